"""`Admitted` where rounds are more than one exchange: edges, the centre, late edges, moving terminals, resumed runs."""

from __future__ import annotations

import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from flwr.app import ArrayRecord, ConfigRecord, Context, Message, MetricRecord, RecordDict
from flwr.serverapp.strategy import FedAvg, Result
from moving_oracle import Doubling
from toy import initial_model, same_model, toy_app
from travellers import CONFIG, ONE, app, clock, order, start_model, world

from flower_edge.clients import codec_mod
from flower_edge.clients.assignment import assignment_mod
from flower_edge.codecs import TopK
from flower_edge.errors import NestingError, RoundFailed
from flower_edge.models.results import EvalResult
from flower_edge.rounds import Round
from flower_edge.runtime import Continue, Device, Link, LocalGrid, Replace, SteppedGrid, Stop, VirtualClock
from flower_edge.runtime.assignment_record import ASSIGNMENT_RECORD
from flower_edge.runtime.steps.decisions import Decision, Progress
from flower_edge.store import RunFolder
from flower_edge.strategies import (
    Compressed,
    FedBuff,
    Gossip,
    Hierarchical,
    Layer,
    Layered,
    LayeredGrid,
    Metered,
    Split,
    blocks,
)
from flower_edge.strategies.coverage.coverage import Coverage
from flower_edge.strategies.coverage.covered import Covered
from flower_edge.strategies.coverage.mid_round import MidRound
from flower_edge.strategies.filtering.admitted import Admitted
from flower_edge.strategies.filtering.filtered import Filtered
from flower_edge.strategies.rewards.rewarded import Rewarded
from flower_edge.updates.manifest import part_manifest
from flower_edge.wire import arrays_of, copy_content, model_spec, record_of

NODES = 6


class Kept(Admitted):
    """Keeps the last state of every cell, for the tests to look at."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self.kept: dict[str, Any] = {}

    def inbound(self, state: Any, round: Round, replies: list[Message]) -> Any:
        replies, state = super().inbound(state, round, replies)
        self.kept[round.cell] = state
        return replies, state

    def counts(self) -> dict[str, dict[str, int]]:
        return {cell: dict(state.counts) for cell, state in self.kept.items() if state.counts}


def spoiling(*bad: int, **metrics: float) -> Any:
    """A mod: these nodes answer with NaN, or with these metrics."""

    def mod(message: Message, context: Context, call_next: Any) -> Message:
        reply: Message = call_next(message, context)
        if context.node_config["partition-id"] not in bad or "arrays" not in reply.content:
            return reply
        content = copy_content(reply.content)
        if metrics:
            told = {name.replace("_", "-"): value for name, value in metrics.items()}
            content["metrics"] = MetricRecord({**dict(content.metric_records["metrics"].items()), **told})
        else:
            nan = {name: array * np.float32("nan") for name, array in arrays_of(content["arrays"]).items()}  # type: ignore[arg-type]
            content["arrays"] = record_of(nan)
        reply.content = content
        return reply

    return mod


def failing(*bad: int) -> Any:
    def mod(message: Message, context: Context, call_next: Any) -> Message:
        if context.node_config["partition-id"] in bad and message.metadata.message_type == "train":
            raise RuntimeError("fails")
        reply: Message = call_next(message, context)
        return reply

    return mod


def run(strategy: Any, mods: list[Any] | None = None, rounds: int = 3, seconds: Any = None, **options: Any) -> Result:
    random.seed(4)
    np.random.seed(4)
    with LocalGrid(toy_app(mods), NODES) as local:
        grid = VirtualClock(local, [Device(step_s=s) for s in seconds], [Link()] * NODES) if seconds else local
        result: Result = strategy.start(grid, initial_model(), num_rounds=rounds, **options)
        return result


def tiers(layers: Callable[[], list[Layer[Any]]], **options: Any) -> Hierarchical:
    def edge(cell: str) -> Any:
        return Layered(FedAvg(fraction_train=1.0, **ONE), *layers())

    return Hierarchical(edge, cells=blocks(3), edge_rounds=2, seed=7, **options)


# -- edges and the centre --------------------------------------------------------------------------------------------


def test_inside_edges_and_at_the_centre_nothing_changes_where_nothing_is_wrong() -> None:
    inner, outer = Kept(most_examples=40), Kept(most_examples=100)
    gated = Layered(tiers(lambda: [inner]), outer)
    assert same_model(run(gated).arrays, run(tiers(list)).arrays)
    assert inner.counts() == outer.counts() == {}
    assert sorted(inner.kept) == ["edge-0", "edge-1", "edge-2"]


def test_inside_an_edge_the_bad_terminal_is_refused_and_the_others_are_merged() -> None:
    inner = Kept()
    found = run(tiers(lambda: [inner]), [spoiling(3)])
    assert inner.counts() == {"edge-1": {"not-finite": 6}}
    assert same_model(found.arrays, run(tiers(list), [failing(3)]).arrays)


def test_at_the_centre_a_wholly_faulty_edge_is_refused() -> None:
    outer = Kept()
    found = run(Layered(tiers(list), outer), [spoiling(2, 3)])
    assert outer.counts() == {"": {"not-finite": 3}}
    assert {event.node for event in outer.kept[""].untold} <= {"edge-1"}
    assert same_model(found.arrays, run(tiers(list), [failing(2, 3)]).arrays)


def test_at_the_centre_the_limit_is_one_of_the_whole_cell() -> None:
    outer = Kept(most_examples={"edge-0": 43, "edge-1": 54, "edge-2": 67})  # 20 + 23, 26 + 29, 32 + 35
    run(Layered(tiers(list), outer), rounds=1)
    assert outer.counts() == {"": {"num-examples": 2}}  # of edge-1, which has 55: it trains and it evaluates


def test_an_edge_of_whose_terminals_none_was_admitted_is_skipped_and_not_held_for_faulty() -> None:
    inner, outer = Kept(), Kept()
    found = run(Layered(tiers(lambda: [inner]), outer), [spoiling(2, 3)])
    assert inner.counts() == {"edge-1": {"not-finite": 6}}
    assert outer.counts() == {}
    assert same_model(found.arrays, run(tiers(list), [failing(2, 3)]).arrays)


def test_where_every_edge_is_refused_the_round_says_why() -> None:
    with pytest.raises(RoundFailed, match=r"edge-0, edge-1, edge-2: refused \(not-finite\): 'weight' has NaN in it"):
        run(Layered(tiers(list), Admitted()), [spoiling(*range(NODES))])


@pytest.mark.parametrize("buffer", [1, 2])
def test_edges_that_come_late_are_judged_by_what_they_were_given(buffer: int) -> None:
    def late() -> Hierarchical:
        return tiers(list, asynchronous=FedBuff(buffer))

    seconds = [1.0, 1.0, 2.3, 2.3, 7.01, 7.01]
    outer = Kept()
    found = run(Layered(late(), outer), rounds=9, seconds=seconds)
    assert same_model(found.arrays, run(late(), rounds=9, seconds=seconds).arrays)
    assert outer.counts() == {}


def test_an_asynchronous_run_that_is_resumed_refuses_nobody(tmp_path: Path) -> None:
    outer, seconds = Kept(), [1.0, 1.0, 2.3, 2.3, 7.01, 7.01]
    with RunFolder.create("late", config={}, seed=0, root=tmp_path) as folder:
        for rounds, resume in ((4, False), (8, True)):
            strategy = Layered(tiers(list, asynchronous=FedBuff(1)), outer)
            run(strategy, rounds=rounds, seconds=seconds, run=folder, resume=resume)
    assert outer.counts() == {}


# -- terminals that move ---------------------------------------------------------------------------------------------


def moving(seed: int, gate: Admitted | None, share: float = 0.4) -> Result:
    rng = np.random.default_rng(seed)
    cells = ["north", "south", None]
    paths: list[Any] = []
    for _ in range(NODES):
        times = np.cumsum(rng.exponential(6.0, 12))
        paths.append({0.0: "north", **{float(t): cells[int(rng.integers(3))] for t in times}})
    coverage = Coverage(world(["north", "south"], paths), handover=True)

    def edge(cell: str) -> Layered:
        gates = [] if gate is None else [gate]
        return Layered(FedAvg(fraction_evaluate=0.0, **ONE), Covered(coverage, max_staleness=4), *gates)

    random.seed(seed)
    with LocalGrid(app(), NODES) as local:
        decide = MidRound(coverage, on_exit="keep", enlist=True, replace_slower_than=1.5)
        speeds = clock(local, [float(s) for s in rng.choice([0.25, 0.5, 1.0, 2.0], NODES)])
        stepped = SteppedGrid(speeds, 2, decide, reachable=coverage.reachable)
        strategy = Hierarchical(edge=edge, cells=coverage, edge_rounds=2, seed=7, idle_s=5.0)
        doubled = Doubling(stepped, share, seed)
        return strategy.start(doubled, start_model(), 4, 60.0, ConfigRecord(dict(CONFIG)))


@pytest.mark.parametrize("seed", [1, 7])
def test_substitutes_partial_work_and_late_replies_pass_and_second_ones_do_not(seed: int) -> None:
    gate = Kept(most_examples=8)
    found, without = moving(seed, gate), moving(seed, None)
    assert bool(found.arrays) == bool(without.arrays)
    assert same_model(found.arrays, without.arrays)  # `Covered` drops what comes twice, the gate before it, too
    codes = {code for counts in gate.counts().values() for code in counts}
    assert codes == {"duplicate"}


@pytest.mark.parametrize("enrolled", [8, 7])
def test_a_substitute_is_judged_by_its_own_enrolment(enrolled: int) -> None:
    def replaced(progress: Progress) -> Decision:
        return Replace(1000) if progress.node_id == 1001 and progress.steps_done else Continue()

    gate = Kept(most_examples={"0": enrolled, "1": 8})
    with LocalGrid(app(), 2) as local:
        session = LayeredGrid(SteppedGrid(clock(local, [1.0] * 2), 2, replaced), [gate])
        session.announced(Round(1))
        replies = list(session.send_and_receive([order(1001, 1)]))
    assert {reply.metadata.src_node_id: reply.has_error() for reply in replies}[1000] == (enrolled < 8)
    assert gate.counts() == ({"": {"num-examples": 1}} if enrolled < 8 else {})


def test_a_task_that_is_stopped_early_is_a_good_one() -> None:
    def half(progress: Progress) -> Decision:
        return Stop() if progress.steps_done >= 4 else Continue()

    gate = Kept(most_examples=8)
    with LocalGrid(app(), 3) as local:
        grid = SteppedGrid(clock(local, [1.0] * 3), 2, half)
        config = ConfigRecord(dict(CONFIG))
        result = Layered(FedAvg(fraction_evaluate=0.0), gate).start(grid, start_model(), 2, train_config=config)
    assert result.train_metrics_clientapp[2]["steps"] == 4
    assert gate.counts() == {}


# -- with the other layers, and with a mod on the client --------------------------------------------------------------


def test_behind_a_codec_the_decoded_replies_are_judged() -> None:
    gate = Kept()
    layers = [gate, Compressed(TopK(0.5)), Metered()]
    found = run(Layered(FedAvg(), *layers), [codec_mod])
    assert same_model(found.arrays, run(Layered(FedAvg(), *layers[1:]), [codec_mod]).arrays)
    assert gate.counts() == {}
    run(Layered(FedAvg(), *layers), [codec_mod, spoiling(2, num_examples=-5)], rounds=1)
    assert gate.counts() == {"": {"num-examples": 1}}


def test_the_wrong_order_is_refused() -> None:
    with pytest.raises(NestingError, match=r"write Layered\(strategy, Admitted\(\.\.\.\), Compressed\(\.\.\.\)\)"):
        Layered(FedAvg(), Compressed(TopK(0.5)), Admitted())


def test_replies_folded_into_one_cannot_be_looked_at_one_by_one() -> None:
    for layer in (Admitted(), Filtered(), Rewarded(lambda arrays: EvalResult(0.0, 1.0, 1))):
        name = type(layer).__name__
        with pytest.raises(NestingError, match=rf"leave fold=True out: Layered\(strategy, {name}\(\.\.\.\), Comp"):
            Layered(FedAvg(), layer, Compressed(TopK(0.5), fold=True), Metered())


def test_with_the_mod_on_every_client_stamps_come_back_and_change_nothing() -> None:
    gate = Kept(echo="required")
    quiet = FedAvg(fraction_evaluate=0.0)
    assert same_model(run(Layered(quiet, gate), [assignment_mod]).arrays, run(quiet).arrays)
    assert gate.counts() == {}


def test_without_the_mod_required_refuses_and_if_there_does_not() -> None:
    def only_some(message: Message, context: Context, call_next: Any) -> Message:
        if context.node_config["partition-id"] == 2:
            return call_next(message, context)  # type: ignore[no-any-return]
        return assignment_mod(message, context, call_next)

    for echo, counts in (("required", {"": {"wrong-version": 1}}), ("if there", {})):
        gate = Kept(echo=echo)
        run(Layered(FedAvg(fraction_evaluate=0.0), gate), [only_some], rounds=1)
        assert gate.counts() == counts


def test_a_whole_reply_of_an_earlier_round_sent_once_more_is_refused() -> None:
    first: dict[str, RecordDict] = {}

    def again(message: Message, context: Context, call_next: Any) -> Message:
        reply: Message = call_next(message, context)
        if context.node_config["partition-id"] == 2 and message.metadata.message_type == "train":
            reply.content = first.setdefault("train", copy_content(reply.content))
        return reply

    gate = Kept(echo="if there", replays=False)
    run(Layered(FedAvg(), gate), [again, assignment_mod], rounds=3)
    assert gate.counts() == {"": {"wrong-version": 2}}
    assert "round of the assignment it answers is '1', expected '3'" in gate.kept[""].untold[0].text


def test_the_mod_leaves_messages_without_a_stamp_alone() -> None:
    assert same_model(run(FedAvg(), [assignment_mod]).arrays, run(FedAvg()).arrays)


def test_a_stamp_is_not_put_into_the_content_that_messages_share() -> None:
    layer, content = Admitted(echo="required", seed=1), RecordDict({"arrays": initial_model()})
    with LocalGrid(toy_app(), 2) as grid:
        state = layer.opened(layer.init(), grid)
        messages, _ = layer.outbound(state, Round(1), [Message(content, node, "train") for node in (1000, 1001)])
    assert list(content) == ["arrays"]
    nonces = [message.content.config_records[ASSIGNMENT_RECORD]["nonce"] for message in messages]
    assert len(set(nonces)) == 2


# -- sub-models ------------------------------------------------------------------------------------------------------


def test_a_node_that_was_given_a_part_owes_that_part() -> None:
    layer = Admitted(manifest=lambda round, key, sent: part_manifest(model_spec(sent), {"weight": (np.arange(3),)}))
    small = record_of({"weight": np.zeros(3, np.float32)})
    with LocalGrid(toy_app(), 2) as grid:
        state = layer.opened(layer.init(), grid)
        sent = [Message(RecordDict({"arrays": initial_model()}), node, "train") for node in (1000, 1001)]
        sent, state = layer.outbound(state, Round(1), sent)
        metrics = MetricRecord({"num-examples": 5})
        part = Message(RecordDict({"arrays": small, "metrics": metrics}), reply_to=sent[0])
        whole = Message(RecordDict({"arrays": initial_model(), "metrics": metrics}), reply_to=sent[1])
        replies, state = layer.inbound(state, Round(1), [part, whole])
    assert [reply.has_error() for reply in replies] == [False, True]
    assert dict(state.counts) == {"extra-array": 1}


# -- checkpoints -----------------------------------------------------------------------------------------------------


class Killed(Exception):
    """The run ends in the middle."""


class Deadly(Layer[None]):
    def __init__(self, number: int | None) -> None:
        self.number = number

    def merged(self, state: None, round: Round, before: ArrayRecord, after: ArrayRecord) -> tuple[ArrayRecord, None]:
        if round.cloud == self.number:
            raise Killed
        return after, state


def test_a_resumed_run_refuses_what_the_uninterrupted_one_does(tmp_path: Path) -> None:
    def again(message: Message, context: Context, call_next: Any) -> Message:
        reply: Message = call_next(message, context)
        if context.node_config["partition-id"] == 2 and message.metadata.message_type == "train":
            reply.content = replayed.setdefault("it", copy_content(reply.content))
        return reply

    def start(folder: RunFolder, deadly: int | None, resume: bool = False) -> tuple[Result, dict[str, float]]:
        gate = Kept(seed=5)
        strategy = Layered(FedAvg(fraction_evaluate=0.0), Deadly(deadly), gate)
        result = run(strategy, [again, spoiling(4)], rounds=5, run=folder, resume=resume)
        return result, dict(gate.metrics(gate.kept[""]))

    replayed: dict[str, RecordDict] = {}
    with RunFolder.create("whole", config={}, seed=5, root=tmp_path) as folder:
        whole, counted = start(folder, None)
    replayed.clear()
    with pytest.raises(Killed), RunFolder.create("killed", config={}, seed=5, root=tmp_path) as folder:
        start(folder, 3)
    with RunFolder.create("resumed", config={}, seed=5, root=tmp_path) as resumed:
        resumed.continue_from(RunFolder.open(folder.path))
        result, counts = start(resumed, None, resume=True)
    assert counted == counts
    assert counts["refused_replayed"] == 4
    assert counts["gate_refused_run"] == 9
    assert set(whole.arrays) == set(result.arrays)


# -- strategies whose replies are no models ---------------------------------------------------------------------------


def test_a_strategy_whose_replies_are_no_models_is_refused_by_name() -> None:
    for kind in (Gossip, Split):
        with pytest.raises(NestingError, match=f"Admitted around {kind.__name__}: .*leave Admitted out"):
            Admitted().check(object.__new__(kind))
    with pytest.raises(NestingError, match=r"write Admitted\(weighted_by='seconds'\)"):
        Layered(FedAvg(weighted_by_key="seconds"), Admitted())
