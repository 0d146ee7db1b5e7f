"""Every docstring example gives what it says."""

from __future__ import annotations

import doctest
import importlib

import pytest
from source_tree import modules


@pytest.mark.parametrize("name", modules())
def test_every_docstring_example_gives_what_it_says(name: str) -> None:
    module = importlib.import_module(name)
    result = doctest.testmod(module, report=True)
    assert result.failed == 0
