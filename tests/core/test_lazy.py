"""Names that are imported when somebody asks for one, and what is said where their library is not installed."""

from __future__ import annotations

import sys

import pytest

from flower_edge.lazy import lazy


def test_a_name_of_a_missing_extra_says_the_name_the_library_and_the_command(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "torch", None)
    monkeypatch.delitem(sys.modules, "flower_edge.fringe.pipeline_torch", raising=False)
    get, _ = lazy("flower_edge.fringe", ["Pipeline"], {"pipeline_torch": ["Pipeline"]})
    with pytest.raises(ModuleNotFoundError) as raised:
        get("Pipeline")
    assert str(raised.value) == (
        "flower_edge.fringe.Pipeline needs torch, which is not installed; type: pip install 'flower-edge[torch]'"
    )
    assert raised.value.name == "torch"


def test_a_library_that_is_no_extra_keeps_its_own_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "flower_edge.units", None)
    get, _ = lazy("flower_edge", ["mbps_to_bps"], {"units": ["mbps_to_bps"]})
    with pytest.raises(ModuleNotFoundError, match=r"import of flower_edge\.units halted"):
        get("mbps_to_bps")


def test_a_name_that_is_none_is_an_attribute_error() -> None:
    get, _ = lazy("flower_edge", ["mbps_to_bps"], {"units": ["mbps_to_bps"]})
    with pytest.raises(AttributeError, match="module 'flower_edge' has no attribute 'mbps'"):
        get("mbps")
