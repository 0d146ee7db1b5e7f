"""Gossip that tells changes: replicas are the senders' own, bit for bit, whatever is lost, comes, goes or restarts."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from flwr.app import ArrayRecord, Context, Message, MetricRecord
from flwr.clientapp.typing import ClientAppCallable
from flwr.serverapp import Grid
from test_gossip import NODES, Drawn, make_app, model, run
from test_gossip_hostile import posted
from test_gossip_timing import drifting_app

from flower_edge.clients import gossip_mod
from flower_edge.codecs.block import Block
from flower_edge.codecs.codec import Codec
from flower_edge.codecs.delta import Delta
from flower_edge.codecs.eden import Eden
from flower_edge.codecs.error_feedback import stc
from flower_edge.codecs.half import Half
from flower_edge.codecs.identity import Identity
from flower_edge.codecs.random_k import RandomK
from flower_edge.codecs.shared_support import SharedSupport
from flower_edge.codecs.sign import Sign
from flower_edge.codecs.top_k import TopK
from flower_edge.control import Dcent, Equal
from flower_edge.control.schedules import OnePeerExponential
from flower_edge.errors import ConfigError
from flower_edge.runtime import Fault, LocalGrid
from flower_edge.runtime.clock.round_clock import RoundClock
from flower_edge.runtime.gossip_messages import GOSSIP_RECORD, Report
from flower_edge.runtime.node_state import NodeState
from flower_edge.store import RunFolder
from flower_edge.strategies import Gossip, Hierarchical, blocks
from flower_edge.topology.set_ups import set_up
from flower_edge.wire import arrays_of

#: Tells half of what has changed: what is believed of a worker is never what it is.
HALF = Delta(Identity(), step=0.5)
EXACT = Delta(Identity())


class Watched:
    """A run whose replicas are compared with the senders' own after every round."""

    def __init__(self, strategy: Gossip, grid: LocalGrid) -> None:
        self.strategy, self.grid = strategy, grid
        self.means: list[np.ndarray] = []
        self.held = 0
        self._told: dict[tuple[int, int, int], bytes] = {}

    def state(self, node: int) -> dict[str, Any]:
        found = NodeState(self.grid.context_of(node), "gossip").load() if self._has(node) else {}
        assert isinstance(found, dict)
        return found

    def _has(self, node: int) -> bool:
        return NodeState(self.grid.context_of(node), "gossip").where != "absent"

    def look(self, number: int, arrays: ArrayRecord) -> MetricRecord | None:
        if number == 0:
            return None
        self.means.append(arrays_of(arrays)["weight"])
        states = {node - 1000: self.state(node) for node in self.grid.get_node_ids() if self._has(node)}
        for name, state in states.items():
            own = state["codec"]
            self._told[name, own["sequence"], own["digest"]] = own["replica"].tobytes()
            for known in [state["base"]] if state["base"] else []:
                begun = EXACT.begin(known["arrays"])
                for other in range(NODES):
                    self._told[other, 0, begun["digest"]] = begun["replica"].tobytes()
        for state in states.values():
            for name, known in state["peers"].items():
                self._same(int(name), known["state"])
        assert self.strategy.group is not None
        for name, known in self.strategy.group.codec_states.items():
            if known["replica"] is not None and known["sequence"]:
                self._same(name, known)
        return None

    def _same(self, name: int, held: dict[str, Any]) -> None:
        assert held["replica"].tobytes() == self._told[name, held["sequence"], held["digest"]]
        self.held += 1


Which = Callable[[int, int], bool]


class There(RoundClock):
    """Shows those nodes that `there` names in each round, and loses the replies of those that `answers` does not."""

    number = 1

    def __init__(self, inner: Grid, there: Which, answers: Which) -> None:
        super().__init__(inner)
        self._there, self._answers = there, answers

    def get_node_ids(self) -> list[int]:
        return [node for node in super().get_node_ids() if self._there(self.number, node - 1000)]

    def send_and_receive(self, messages: Iterable[Message], *, timeout: float | None = None) -> list[Message]:
        replies = super().send_and_receive(messages, timeout=timeout)
        return [reply for reply in replies if self._answers(self.number, reply.metadata.src_node_id - 1000)]


def watch(
    strategy: Gossip,
    rounds: int = 8,
    *,
    there: Which = lambda number, node: True,
    answers: Which = lambda number, node: True,
    after: Callable[[int, LocalGrid], None] = lambda number, grid: None,
    mods: Sequence[Any] = (gossip_mod,),
    **kwargs: Any,
) -> tuple[dict[int, Any], Watched]:
    """What was told of each round, and the run, whose replicas were the senders' own after every round."""
    with LocalGrid(make_app(mods), NODES, **kwargs) as grid:
        clock, watched = There(grid, there, answers), Watched(strategy, grid)

        def look(number: int, arrays: ArrayRecord) -> MetricRecord | None:
            watched.look(number, arrays)
            after(number, grid)
            clock.number = number + 1
            return None

        result = strategy.start(clock, model(), rounds, evaluate_fn=look)
    return {number: dict(told) for number, told in result.train_metrics_clientapp.items()}, watched


def plain(told: dict[int, Any]) -> list[int]:
    """How many whole models were posted in each round."""
    return [int(found.get("plain_packets", 0)) for found in told.values()]


def gossip(codec: Codec = HALF, controller: Any = None, **kwargs: Any) -> Gossip:
    return Gossip(controller or Equal(), codec=codec, fraction_evaluate=0.0, **kwargs)


# -- what is learned -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("mailbox", ["relay", "shared-memory"])
def test_changes_told_whole_teach_what_models_do(mailbox: Any) -> None:
    _, models = run(Gossip(Drawn(3), fraction_evaluate=0.0), rounds=6)
    _, changes = watch(gossip(EXACT, Drawn(3), mailbox=mailbox), 6)
    np.testing.assert_allclose(changes.means, models, rtol=1e-5)


@pytest.mark.parametrize("codec", [HALF, Delta(Identity(), step=0.3, mixing=0.5)])
def test_a_lossy_codec_keeps_the_mean_of_the_models_and_brings_them_together(codec: Delta) -> None:
    def weights(grid: LocalGrid) -> np.ndarray:
        states = [NodeState(grid.context_of(1000 + k), "gossip").load() for k in range(NODES)]
        return np.array([state["arrays"]["weight"] for state in states])  # type: ignore[index, call-overload]

    first: list[np.ndarray] = []

    def look(number: int, arrays: ArrayRecord) -> MetricRecord | None:
        first.extend([weights(grid)] if number == 1 else [])
        return None

    with LocalGrid(drifting_app(drift=0.0, spread=10.0), NODES) as grid:
        gossip(codec).start(RoundClock(grid), model(), 40, evaluate_fn=look)
        last = weights(grid)
    assert np.ptp(first[0], axis=0).min() == pytest.approx(40.0)
    # What separates them shrinks by sqrt(1 - step) a round: both eigenvalues of x - gamma x^, x^ + step (x - x^).
    assert np.ptp(last, axis=0).max() < 2 * 40.0 * (1 - codec.step) ** (39 / 2)
    np.testing.assert_allclose(last.mean(axis=0), first[0].mean(axis=0), rtol=1e-6)


def test_everybody_begins_from_one_model_and_no_whole_model_is_ever_posted() -> None:
    told, watched = watch(gossip())
    assert plain(told) == [0] * 8
    assert not any("missing_packets" in found for found in told.values())
    assert watched.held > 7 * NODES * (NODES - 1)


# -- what happens on the way -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("mailbox", ["relay", "shared-memory"])
@pytest.mark.parametrize("kind", ["raise", "silent"])
def test_a_worker_that_is_not_heard_in_a_round_is_followed_again(kind: Any, mailbox: Any) -> None:
    told, _ = watch(gossip(mailbox=mailbox), script=[Fault(1, kind, at=3)])
    assert sum(plain(told)[:2]) == 0
    assert sum(plain(told)) <= NODES
    assert "missing_packets" not in told[8]


@pytest.mark.parametrize("mailbox", ["relay", "shared-memory"])
def test_a_worker_whose_reply_was_lost_posts_its_whole_model_at_once(mailbox: Any) -> None:
    told, _ = watch(gossip(mailbox=mailbox), answers=lambda number, node: (number, node) != (3, 2))
    assert plain(told) == [0, 0, 0, 1, 0, 0, 0, 0]
    assert "missing_packets" not in told[5]


@pytest.mark.parametrize("mailbox", ["relay", "shared-memory"])
def test_whoever_was_away_for_four_rounds_catches_up_with_what_it_missed(mailbox: Any) -> None:
    told, _ = watch(gossip(mailbox=mailbox), there=lambda number, node: node != 2 or not 3 <= number <= 6)
    assert plain(told) == [0] * 8
    assert not any("missing_packets" in found for found in told.values())


def test_a_worker_that_fails_in_four_rounds_catches_up_with_what_it_missed() -> None:
    told, _ = watch(gossip(), script=[Fault(2, "raise", at=at) for at in (3, 4, 5, 6)])
    assert plain(told) == [0] * 8
    assert not any("missing_packets" in found for found in told.values())


def test_whoever_was_away_for_longer_asks_for_whole_models() -> None:
    told, _ = watch(gossip(away_rounds=20), 14, there=lambda number, node: node != 2 or not 3 <= number <= 8)
    assert sum(plain(told)) == NODES - 1
    assert told[9]["missing_packets"] == NODES - 1
    assert "missing_packets" not in told[14]


def test_whoever_comes_later_is_told_whole_models_by_its_neighbours_and_tells_its_own() -> None:
    told, watched = watch(gossip(), there=lambda number, node: node != 4 or number >= 4)
    assert plain(told) == [0, 0, 0, NODES, 0, 0, 0, 0]
    assert not any("missing_packets" in told[number] for number in range(1, 9))
    assert watched.held > 0


@pytest.mark.parametrize("mailbox", ["relay", "shared-memory"])
def test_a_worker_that_lost_its_state_is_followed_from_its_first_packet(mailbox: Any) -> None:
    def after(number: int, grid: LocalGrid) -> None:
        if number == 3:
            del grid.context_of(1003).state["flower-edge.state.gossip"]

    told, _ = watch(gossip(mailbox=mailbox), 9, after=after)
    assert plain(told)[:4] == [0] * 4
    assert plain(told)[4] == NODES
    assert plain(told)[5:] == [0] * 4
    assert not any("missing_packets" in told[number] for number in range(7, 10))


@pytest.mark.parametrize("mailbox", ["relay", "shared-memory"])
def test_links_that_rest_and_come_back_are_mixed_at_once(mailbox: Any) -> None:
    told, _ = watch(gossip(EXACT, Drawn(3), mailbox=mailbox), 10)
    assert not any("missing_packets" in found for found in told.values())
    assert sum(plain(told)) > NODES  # what it costs where other links are used in every round


def test_a_link_that_was_given_up_and_is_taken_up_again_costs_one_whole_model() -> None:
    controller = Dcent(step_cap=0.3, prune_below=0.12, probe_every=3, silent_after=1)
    told, _ = watch(gossip(controller=controller, world=set_up("nlos-per-device", 3, nodes=NODES)), 14)
    assert len({found["links"] for found in told.values()}) > 1
    assert 0 < sum(plain(told)) < 14 * NODES / 2
    assert not any("missing_packets" in found for found in told.values())


@pytest.mark.parametrize("mailbox", ["relay", "shared-memory"])
@pytest.mark.parametrize("controller", [Equal(), OnePeerExponential()])
@pytest.mark.parametrize("staleness", [1, 3])
def test_packets_that_come_late_are_decoded_in_order_and_each_once(
    staleness: int, controller: Any, mailbox: Any
) -> None:
    world = set_up("nlos-per-device", 3, nodes=NODES)
    told, watched = watch(gossip(controller=controller, world=world, staleness=staleness, mailbox=mailbox), 12)
    assert not any("missing_packets" in found for found in told.values())
    assert watched.held > 0
    if isinstance(controller, Equal):
        assert plain(told) == [0] * 12


def test_a_damaged_packet_is_nobodys_and_the_next_tells_the_whole_model() -> None:
    def damaging(message: Message, context: Context, call_next: ClientAppCallable) -> Message:
        reply = call_next(message, context)
        config = message.content.config_records.get("config")
        if context.node_config["partition-id"] == 1 and config is not None and config["server-round"] == 3:
            posted(lambda packet: packet.to_bytes()[:-3])(reply)
        return reply

    told, _ = watch(gossip(), mods=[damaging, gossip_mod])
    assert plain(told) == [0, 0, 0, 1, 0, 0, 0, 0]
    assert "missing_packets" not in told[5]


def test_a_neighbour_that_always_wants_whole_models_gets_one_every_few_rounds() -> None:
    def greedy(message: Message, context: Context, call_next: ClientAppCallable) -> Message:
        reply = call_next(message, context)
        if context.node_config["partition-id"] == 1:
            report = Report.read(reply.content.config_records[GOSSIP_RECORD], sender="it")
            asks = Report(**{**vars(report), "wants_plain": [0, 2, 3, 4, 77]})
            reply.content[GOSSIP_RECORD] = asks.write()
        return reply

    told, _ = watch(gossip(), 12, mods=[greedy, gossip_mod])
    assert sum(plain(told)) <= 3 * (NODES - 1)


@pytest.mark.parametrize(
    ("codec", "mailbox"),
    [
        (Delta(TopK(0.4), mixing=0.5), "relay"),
        (Delta(Sign()), "shared-memory"),
        (Delta(Block(4, block=16)), "relay"),
        (Delta(Eden(1), step=0.6, first=Half("fp16")), "shared-memory"),
        (Delta(RandomK(0.5), step=0.5, mixing=0.5), "relay"),
    ],
)
def test_replicas_are_the_senders_own_with_codecs_that_draw_and_leave_out(codec: Delta, mailbox: Any) -> None:
    world = set_up("nlos-per-device", 3, nodes=NODES)
    strategy = gossip(codec, Drawn(1), world=world, staleness=1, mailbox=mailbox, away_rounds=20)
    _, watched = watch(
        strategy,
        12,
        there=lambda number, node: (number < 4 or node != 1) or number > 9,
        answers=lambda number, node: (number, node) != (6, 0),
    )
    assert watched.held > 0
    assert np.isfinite(watched.means).all()


# -- around a run ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("mailbox", ["relay", "shared-memory"])
def test_a_resumed_run_equals_the_uninterrupted_one(tmp_path: Path, mailbox: Any) -> None:
    """The workers of a resumed run may have gone on: here, they have lost everything."""

    def fresh() -> Gossip:
        return gossip(HALF, Drawn(5), mailbox=mailbox, world=set_up("nlos", 2, nodes=NODES), staleness=1)

    told, whole = watch(fresh(), 6)
    with (
        RunFolder.create("test", config={}, seed=0, root=tmp_path) as folder,
        LocalGrid(make_app(), NODES) as grid,
    ):
        fresh().start(RoundClock(grid), model(), 3, run=folder)
        again = fresh().start(RoundClock(grid), model(), 6, run=folder, resume=True)
    np.testing.assert_array_equal(arrays_of(again.arrays)["weight"], whole.means[-1])
    found = {number: dict(found) for number, found in again.train_metrics_clientapp.items()}
    assert plain(found) == plain(told)


def test_cells_of_a_hierarchy_begin_from_the_centres_model_and_post_no_whole_one() -> None:
    hierarchy = Hierarchical(edge=lambda cell: gossip(EXACT), cells=blocks(2), edge_rounds=3)
    exact = Hierarchical(edge=lambda cell: gossip(Identity()), cells=blocks(2), edge_rounds=3)
    _, changes = run(hierarchy, rounds=3)
    _, models = run(exact, rounds=3)
    np.testing.assert_allclose(changes, models, rtol=1e-5)


@pytest.mark.parametrize(
    ("codec", "why"),
    [
        (stc(0.01), r"neighbours exchange whole models, and 'error_feedback', 'sign', 'top_k' is made.*take Delta of"),
        (Delta(SharedSupport(0.05)), r"'shared_support' lives on what a server publishes"),
    ],
)
def test_a_codec_for_changes_is_refused_for_models(codec: Codec, why: str) -> None:
    with pytest.raises(ConfigError, match=why):
        Gossip(Equal(), codec=codec)
