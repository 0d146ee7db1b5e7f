"""A model is published only if it is at least as good as the reference; what is refused is told and changes nothing."""

from __future__ import annotations

import math
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from flwr.app import ArrayRecord, Message
from flwr.serverapp.strategy import FedAdam, FedAvg, FedAvgM, Krum, Result, Strategy
from hypothesis import given, settings
from hypothesis import strategies as st
from laws.layer_laws import LayerLaws, NeutralLayerLaws
from toy import initial_model, same_model, toy_app

from flower_edge.errors import ConfigError
from flower_edge.rounds import Round
from flower_edge.runtime.local_grid import LocalGrid
from flower_edge.store.run_folder import RunFolder
from flower_edge.strategies import Hierarchical, Layer, Layered, blocks
from flower_edge.strategies.version_gate import GateState, VersionGate, refused_models, versions
from flower_edge.wire import record_of

NODES = 4


def distance(arrays: ArrayRecord) -> float:
    """How far the toy model is from the line behind the data: a loss."""
    return float(np.linalg.norm(arrays["weight"].numpy().astype(float) - np.arange(1.0, 7.0)))


class Spoils(Layer[int]):
    """Replaces the merged model in the given rounds."""

    def __init__(self, rounds: set[int], value: float = 50.0) -> None:
        self.rounds, self.value = rounds, value

    def init(self) -> int:
        return 0

    def merged(self, state: int, round: Round, before: ArrayRecord, after: ArrayRecord) -> tuple[ArrayRecord, int]:
        if round.cloud not in self.rounds:
            return after, state
        return record_of({name: np.full_like(array.numpy(), self.value) for name, array in after.items()}), state + 1


def run(strategy: Strategy, rounds: int = 4, **options: Any) -> Result:
    random.seed(2)
    with LocalGrid(toy_app(), NODES) as grid:
        return strategy.start(grid, initial_model(), num_rounds=rounds, **options)


def model(value: float) -> ArrayRecord:
    return record_of({"w": np.array([value])})


def passed(gate: VersionGate, scores: list[float]) -> tuple[list[bool], GateState]:
    """Show the gate models that are their own scores, as a strategy would: from the model in force."""
    state, now, out = gate.init(), model(scores[0]), []
    for number, score in enumerate(scores[1:], 1):
        candidate = model(score)
        after, state = gate.merged(state, Round(number), now, candidate)
        out.append(after is candidate)
        now = after
    return out, state


def own_score(arrays: ArrayRecord) -> float:
    return float(arrays["w"].numpy()[0])


class TestGate(LayerLaws):
    def make(self) -> Layer[Any]:
        return VersionGate(distance, higher_is_better=False, refused="keep")


class TestGateThatLetsAllThrough(NeutralLayerLaws):
    def make(self) -> Layer[Any]:
        return VersionGate(lambda arrays: 1.0)


@pytest.mark.parametrize("make", [FedAvg, FedAdam, lambda: Krum(num_malicious_nodes=0)], ids=["FedAvg", "Adam", "Krum"])
def test_two_lines_around_a_flower_strategy_keep_a_spoilt_model_out(make: Callable[[], Strategy]) -> None:
    open_ = run(Layered(make(), Spoils({4})))
    gated = run(Layered(make(), Spoils({4}), VersionGate(distance, higher_is_better=False)))
    assert (open_.arrays["weight"].numpy() == 50.0).all()
    assert distance(gated.arrays) < distance(initial_model())


def test_after_a_refusal_training_goes_on_from_the_version_in_force() -> None:
    gate = VersionGate(distance, higher_is_better=False)
    gated = run(Layered(FedAvg(), Spoils({2}), gate), rounds=3)
    assert same_model(gated.arrays, _two_honest_rounds_numbered_1_and_3())


def _two_honest_rounds_numbered_1_and_3() -> ArrayRecord:
    """The same run, the second round's merge thrown away by hand."""

    class Back(Layer[None]):
        def merged(
            self, state: None, round: Round, before: ArrayRecord, after: ArrayRecord
        ) -> tuple[ArrayRecord, None]:
            return (before if round.cloud == 2 else after), state

    return run(Layered(FedAvg(), Back()), rounds=3).arrays


@settings(max_examples=60)
@given(st.lists(st.floats(-5, 5), min_size=2, max_size=9), st.sampled_from(["last", "best", 0.5]), st.booleans())
def test_what_is_in_force_is_never_worse_than_it_was_and_the_counts_add_up(
    scores: list[float], reference: Any, higher: bool
) -> None:
    gate = VersionGate(own_score, reference=reference, higher_is_better=higher)
    out, state = passed(gate, scores)
    assert state.count == 1 + sum(out)
    assert state.refusals == len(out) - sum(out)
    sign = 1.0 if higher else -1.0
    bound = sign * (reference if isinstance(reference, float) else scores[0])
    in_force = [sign * version.score for version in versions(state) if version.origin == "published"]
    assert all(score >= bound for score in in_force)
    if reference != 0.5:
        assert in_force == sorted(in_force)


def test_equal_is_good_enough_and_a_margin_asks_for_more_or_less() -> None:
    assert passed(VersionGate(own_score), [1.0, 1.0])[0] == [True]
    assert passed(VersionGate(own_score, margin=0.5), [1.0, 1.4, 1.5])[0] == [False, True]
    assert passed(VersionGate(own_score, margin=-0.5), [1.0, 0.6, 0.0])[0] == [True, False]
    assert passed(VersionGate(own_score, margin=0.5, higher_is_better=False), [1.0, 0.6, 0.5])[0] == [False, True]


def test_against_the_best_a_slow_slide_is_stopped_that_the_last_lets_pass() -> None:
    slide = [1.0, 0.8, 0.6, 0.4]
    assert passed(VersionGate(own_score, margin=-0.25), slide)[0] == [True, True, True]
    assert passed(VersionGate(own_score, margin=-0.25, reference="best"), slide)[0] == [True, False, False]


def test_a_score_that_is_no_number_is_never_published_and_replaces_nothing() -> None:
    for bad in (math.nan, math.inf, -math.inf):
        for higher in (True, False):
            assert passed(VersionGate(own_score, higher_is_better=higher), [1.0, bad])[0] == [False]
    assert passed(VersionGate(own_score), [math.nan, -7.0, -8.0])[0] == [True, False]


def test_no_model_is_evaluated_twice() -> None:
    asked: list[float] = []

    def counting(arrays: ArrayRecord) -> float:
        asked.append(own_score(arrays))
        return asked[-1]

    gate = VersionGate(counting)
    state, now = gate.init(), model(1.0)
    for number, score in enumerate([2.0, 1.5, 1.5, 3.0], 1):
        after, state = gate.merged(state, Round(number), now, model(score))
        now = model(own_score(after))  # equal bytes in another object, as after a resume or a message
    assert asked == [1.0, 2.0, 1.5, 3.0]


def test_versions_are_numbered_and_the_last_ones_can_be_had_again() -> None:
    _, state = passed(VersionGate(own_score, keep=2, refused="keep"), [0.0, 1.0, 0.5, 2.0, 3.0, 0.25])
    assert [(version.number, version.score, version.round) for version in versions(state)] == [(3, 2.0, 3), (4, 3.0, 4)]
    assert [own_score(version.arrays) for version in refused_models(state)] == [0.5, 0.25]
    _, forgetful = passed(VersionGate(own_score), [0.0, -1.0])
    assert refused_models(forgetful) == ()
    assert versions(forgetful)[0].origin == "first"


def test_a_model_from_elsewhere_is_taken_in_under_a_number_of_its_own() -> None:
    gate = VersionGate(own_score)
    _, state = gate.merged(gate.init(), Round(1), model(1.0), model(2.0))
    _, state = gate.merged(state, Round(2), model(5.0), model(4.0))  # the centre sent 5.0
    assert [(version.number, version.origin) for version in versions(state)] == [
        (1, "first"),
        (2, "published"),
        (3, "given"),
    ]
    assert state.refusals == 1


def test_every_decision_is_told_once_with_score_and_reference(tmp_path: Path) -> None:
    with RunFolder.create("run", config={}, seed=1, root=tmp_path) as folder:
        gate = VersionGate(distance, name="centre", higher_is_better=False)
        run(Layered(FedAvg(), Spoils({2}), gate), rounds=3, run=folder)
        events = folder.rows("event")
        traffic = folder.rows("traffic")
    assert [(row.round, row.values["what"]) for row in events] == [
        (1, "published"),
        (2, "refused-version"),
        (3, "published"),
    ]
    refused = events[1].values
    assert refused["score"] > refused["reference"]  # type: ignore[operator]
    assert "version 2 stays, the candidate is dropped" in str(refused["text"])
    assert [row.values["centre_version"] for row in traffic] == [2, 2, 3]
    assert [row.values["centre_refused"] for row in traffic] == [0, 1, 1]


def test_it_guards_the_centre_and_every_edge() -> None:
    def edge(cell: str) -> Strategy:
        spoil = Spoils({2} if cell == "edge-0" else set())
        return Layered(FedAvg(), spoil, VersionGate(distance, higher_is_better=False))

    def hierarchy(edge: Callable[[str], Strategy]) -> Strategy:
        return Hierarchical(edge=edge, cells=blocks(2), edge_rounds=2)

    spoilt = run(hierarchy(lambda cell: Layered(FedAvg(), Spoils({2} if cell == "edge-0" else set()))), rounds=2)
    inside = run(hierarchy(edge), rounds=2)
    around = run(
        Layered(
            hierarchy(lambda cell: Layered(FedAvg(), Spoils({2} if cell == "edge-0" else set()))),
            VersionGate(distance, higher_is_better=False),
        ),
        rounds=2,
    )
    one_round = run(hierarchy(lambda cell: FedAvg()), rounds=1)
    assert distance(spoilt.arrays) > 40
    assert distance(inside.arrays) < distance(one_round.arrays)
    assert same_model(around.arrays, one_round.arrays)


@pytest.mark.parametrize("refused", ["drop", "keep"])
def test_a_killed_and_resumed_run_ends_as_the_uninterrupted_one(refused: Any, tmp_path: Path) -> None:
    class Killed(BaseException):
        pass

    class Kills(Layer[None]):
        def outbound(self, state: None, round: Round, messages: list[Message]) -> tuple[list[Message], None]:
            if round.cloud == 3:
                raise Killed
            return messages, state

    asked: list[float] = []

    def start(folder: RunFolder, *last: Layer[Any], resume: bool = False) -> ArrayRecord:
        def counting(arrays: ArrayRecord) -> float:
            asked.append(distance(arrays))
            return asked[-1]

        gate = VersionGate(counting, higher_is_better=False, reference="best", refused=refused)
        strategy = Layered(FedAvg(fraction_train=0.5), Spoils({2, 4}), gate, *last)
        with LocalGrid(toy_app(), NODES) as grid:
            return strategy.start(grid, initial_model(), num_rounds=5, run=folder, resume=resume).arrays

    class Spares(Kills):
        def outbound(self, state: None, round: Round, messages: list[Message]) -> tuple[list[Message], None]:
            return messages, state

    Spares.__name__ = "Kills"
    random.seed(3)
    with RunFolder.create("whole", config={}, seed=1, root=tmp_path) as first:
        whole = start(first, Spares())
        expected = [(row.round, row.values) for row in first.rows("event")]
    once, _ = list(asked), asked.clear()
    random.seed(3)
    with pytest.raises(Killed), RunFolder.create("killed", config={}, seed=1, root=tmp_path) as killed:
        start(killed, Kills())
    random.seed(99)
    with RunFolder.create("resumed", config={}, seed=1, root=tmp_path) as again:
        again.continue_from(RunFolder.open(killed.path))
        resumed = start(again, Spares(), resume=True)
        told = [(row.round, row.values) for row in again.rows("event") if "what" in row.values]
    assert same_model(whole, resumed)
    assert told == expected
    assert asked == once, "a resumed gate asks for no score it knows"


def test_fedavgm_goes_on_from_the_model_in_force_and_not_from_its_own() -> None:

    class Told(FedAvgM):
        def configure_train(self, server_round: int, arrays: ArrayRecord, *rest: Any) -> Any:
            self.current_arrays = arrays
            return super().configure_train(server_round, arrays, *rest)

    gate = VersionGate(distance, higher_is_better=False)
    options = {"server_learning_rate": 0.5, "server_momentum": 0.0}
    assert same_model(run(Layered(FedAvgM(**options))).arrays, run(Layered(Told(**options))).arrays)
    own = run(Layered(FedAvgM(**options), Spoils({2}), gate), rounds=3)
    told = run(Layered(Told(**options), Spoils({2}), gate), rounds=3)
    assert same_model(own.arrays, told.arrays)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"margin": math.nan}, "margin = nan"),
        ({"reference": "first"}, "expected 'last', 'best' or a finite number"),
        ({"reference": True}, "expected 'last', 'best' or a finite number"),
        ({"keep": 0}, "keep = 0"),
        ({"refused": "burn"}, "expected 'drop' or 'keep'"),
    ],
)
def test_arguments_out_of_range_are_refused_by_name(options: dict[str, Any], words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        VersionGate(own_score, **options)


def test_an_evaluation_that_returns_no_number_is_named() -> None:
    def forgot_to_return(arrays: ArrayRecord) -> Any:
        return None

    gate = VersionGate(forgot_to_return)
    with pytest.raises(ConfigError, match=r"VersionGate\(forgot_to_return.*returned None"):
        gate.merged(gate.init(), Round(1), model(0.0), model(1.0))
