"""Every layer of ours obeys the laws of a layer."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from flwr.app import ArrayRecord
from laws.layer_laws import LayerLaws, NeutralLayerLaws

from flower_edge.rounds import Round
from flower_edge.strategies import Identity, Layer, Metered
from flower_edge.wire import arrays_of, record_of


class Halved(Layer[int]):
    """Takes every step half as far. Not neutral: shows that the laws are not only about doing nothing."""

    def init(self) -> int:
        return 0

    def merged(self, state: int, round: Round, before: ArrayRecord, after: ArrayRecord) -> tuple[ArrayRecord, int]:
        old, new = arrays_of(before), arrays_of(after)
        halfway = {name: ((old[name] + new[name]) / 2).astype(old[name].dtype) for name in old}
        return record_of(halfway), state + 1

    def metrics(self, state: int) -> Mapping[str, float]:
        return {"halved": state}


class TestIdentity(NeutralLayerLaws):
    def make(self) -> Layer[Any]:
        return Identity()


class TestMetered(NeutralLayerLaws):
    def make(self) -> Layer[Any]:
        return Metered()


class TestMeteredWithFraming(NeutralLayerLaws):
    def make(self) -> Layer[Any]:
        return Metered(framing=True)


class TestHalved(LayerLaws):
    def make(self) -> Layer[Any]:
        return Halved()
