"""Codecs at a cut by name, with what they are predicted to cost: from `cut_codecs` to what planners take."""

from __future__ import annotations

from typing import Final

from .costs import CutCodecs
from .cut_codecs import bits_per_value, cut_codec

__all__ = ["codecs_named"]

#: Numbers of a tensor that predictions are made for: scales of long tensors hardly weigh.
_VALUES: Final = 1 << 14


def codecs_named(name: str) -> CutCodecs:
    """Both directions of one name, or of two with a slash: tensors to the cloud, then gradients back.

    Raises:
        SplitError: no such name.

    >>> one = codecs_named("int4/int8")
    >>> one.up["bits"], one.down["bits"], one.up_bits < one.down_bits
    (4, 8, True)
    >>> codecs_named("none").up_bits
    32.0
    """
    up_name, _, down_name = name.partition("/")
    up, down = cut_codec(up_name, "up"), cut_codec(down_name or up_name, "down")
    return CutCodecs(name, up, down, bits_per_value(up, _VALUES), bits_per_value(down, _VALUES))
