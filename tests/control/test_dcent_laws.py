"""Every way to run DCENT obeys the laws of a controller."""

from __future__ import annotations

from laws.controller_laws import ControllerLaws

from flower_edge.control.controller import Controller
from flower_edge.control.dcent import Dcent
from flower_edge.control.weights_only import WeightsOnly


class TestDcent(ControllerLaws):
    def make(self) -> Controller:
        return Dcent()


class TestLiteral(ControllerLaws):
    def make(self) -> Controller:
        return Dcent.literal(step_cap=1.0, eta=1.0)


class TestSplitPerRowPruned(ControllerLaws):
    def make(self) -> Controller:
        return Dcent(theta=0.5, steps="row", step_cap=0.3, prune_below=0.06, hand_over="min-max", ties="shared")


class TestPerLinkProbed(ControllerLaws):
    def make(self) -> Controller:
        return Dcent(steps="link", step_cap=0.3, eta=1.0, prune_below=0.06, probe_every=3, self_entry="full")


class TestAsleepWithinTau(ControllerLaws):
    tau = 4

    def make(self) -> Controller:
        return Dcent(steps="row", step_cap=0.5, prune_below=0.15, connect="within tau", tau=4)


class TestDolbie(ControllerLaws):
    def make(self) -> Controller:
        return Dcent.dolbie(step_cap=0.1, prune_below=0.02, gap_min=0.1)


class TestFreeSelf(ControllerLaws):
    def make(self) -> Controller:
        return Dcent(steps="row", step_cap=0.3, prune_below=0.06, self_entry="free")


class TestWeightsOnlyMinMax(ControllerLaws):
    def make(self) -> Controller:
        return WeightsOnly(Dcent(steps="row", step_cap=0.3, prune_below=0.06))


class TestWeightsOnlyByWeight(ControllerLaws):
    def make(self) -> Controller:
        return WeightsOnly(Dcent(), divide="by weight")
