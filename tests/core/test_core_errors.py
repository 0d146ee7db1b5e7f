"""Errors: one root, and the built-in kinds that callers expect."""

from __future__ import annotations

import inspect

import pytest

from flower_edge import errors
from flower_edge.errors import EdgeError

ALL = [kind for _, kind in inspect.getmembers(errors, inspect.isclass)]


@pytest.mark.parametrize("kind", ALL, ids=lambda kind: kind.__name__)
def test_every_error_is_an_edge_error_and_says_what_it_means(kind: type[EdgeError]) -> None:
    assert issubclass(kind, EdgeError)
    assert kind.__doc__
    assert str(kind("what came, what was expected, what to type")) == "what came, what was expected, what to type"


@pytest.mark.parametrize("name", ["ConfigError", "DataError", "WireError", "ModelMismatch", "NestingError"])
def test_a_bad_value_is_also_a_value_error(name: str) -> None:
    assert issubclass(getattr(errors, name), ValueError)


@pytest.mark.parametrize("name", ["RoundFailed", "NotEnoughNodes"])
def test_a_failed_round_is_the_other_ends_fault_and_no_value_error(name: str) -> None:
    kind = getattr(errors, name)
    assert issubclass(kind, errors.ProtocolError)
    assert not issubclass(kind, ValueError)
