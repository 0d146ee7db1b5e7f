"""What to say when an optional package is not there.

It imports nothing: the caller tries, and raises what this returns.
"""

from __future__ import annotations

from ..errors import ConfigError


def missing_extra(what: str, package: str, extra: str) -> ConfigError:
    """The error for a feature whose optional package is not installed.

    >>> raise missing_extra("data set 'digits'", "scikit-learn", "data")
    Traceback (most recent call last):
    ...
    flower_edge.errors.ConfigError: data set 'digits' needs scikit-learn, which is not installed; type: \
pip install 'flower-edge[data]'
    """
    return ConfigError(f"{what} needs {package}, which is not installed; type: pip install 'flower-edge[{extra}]'")
