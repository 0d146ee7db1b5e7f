"""Every docstring example gives what it says."""

from __future__ import annotations

import doctest
import importlib
import inspect

import pytest
from source_tree import modules


@pytest.mark.parametrize("name", modules())
def test_every_docstring_example_gives_what_it_says(name: str) -> None:
    module = importlib.import_module(name)
    # As `doctest.testmod`, which sets up a test for each docstring, also where it has no example: most have none.
    if ">>>" not in inspect.getsource(module):
        return
    runner = doctest.DocTestRunner()
    for test in doctest.DocTestFinder(exclude_empty=True).find(module, name):
        if test.examples:
            runner.run(test)
    assert runner.summarize(verbose=False).failed == 0
