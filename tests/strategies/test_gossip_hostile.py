"""One worker that talks nonsense: it is told and left out, and the others go on as if it had kept silent."""

from __future__ import annotations

import dataclasses
import functools
import json
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from flwr.app import Array, ArrayRecord, ConfigRecord, Context, Message, MetricRecord
from test_gossip import NODES, make_app, model

from flower_edge.clients import gossip_mod
from flower_edge.control import Dcent, Equal
from flower_edge.errors import RoundFailed
from flower_edge.peers.packet import Packet
from flower_edge.runtime import Fault, GridProxy, LocalGrid
from flower_edge.runtime.clock.round_clock import RoundClock
from flower_edge.runtime.gossip_messages import GOSSIP_RECORD, PACKET_RECORD, Report
from flower_edge.strategies import Gossip
from flower_edge.topology.set_ups import set_up
from flower_edge.wire import arrays_of, packet_record

LIAR, IN_ROUND, ROUNDS = 1, 2, 5
Lie = Callable[[Message], None]


def lying(lie: Lie) -> Any:
    """A mod that spoils one worker's reply of one round."""

    def mod(message: Message, context: Context, call_next: Any) -> Message:
        config = message.content.config_records.get("config", {})
        reply: Message = call_next(message, context)
        if context.node_config["partition-id"] == LIAR and config.get("server-round") == IN_ROUND:
            lie(reply)
        return reply

    return mod


def run(lie: Lie | None, strategy: Gossip, rounds: int = ROUNDS, **options: Any) -> list[np.ndarray]:
    means: list[np.ndarray] = []

    def look(number: int, arrays: ArrayRecord) -> MetricRecord | None:
        means.append(arrays_of(arrays)["weight"])
        return None

    mods = [gossip_mod] if lie is None else [lying(lie), gossip_mod]
    with LocalGrid(make_app(mods=mods), NODES, **options) as grid:
        strategy.start(RoundClock(grid), model(), rounds, evaluate_fn=look)
    return means[1:]


@functools.cache
def with_a_silent_one() -> list[np.ndarray]:
    """What comes of it where that worker says nothing at all in that round."""
    return run(None, Gossip(Equal(), fraction_evaluate=0.0), script=[Fault(LIAR, "silent", at=IN_ROUND)])


@functools.cache
def without_a_liar() -> list[np.ndarray]:
    """What comes of it where nobody lies, and the server computes the rows."""
    return run(None, Gossip(Dcent(step_cap=0.2), world=set_up("nlos", 3, nodes=NODES), fraction_evaluate=0.0))


def told(**changes: Any) -> Lie:
    def lie(reply: Message) -> None:
        report = Report.read(reply.content.config_records[GOSSIP_RECORD], sender="it")
        reply.content[GOSSIP_RECORD] = dataclasses.replace(report, **changes).write()

    return lie


def posted(change: Callable[[Packet], bytes]) -> Lie:
    def lie(reply: Message) -> None:
        packet = Packet.from_bytes(reply.content.array_records[PACKET_RECORD]["packet"].data)
        reply.content[PACKET_RECORD] = packet_record(change(packet))

    return lie


def no_packet_label(reply: Message) -> None:
    reply.content[PACKET_RECORD] = ArrayRecord({"packet": Array(np.zeros(3))})


def other_schema(reply: Message) -> None:
    reply.content[GOSSIP_RECORD] = ConfigRecord({"schema": "flower-edge.gossip/9"})


REFUSED: dict[str, Lie] = {
    "endless": told(processing_s=float("inf")),
    "time runs backwards": told(processing_s=-1.0),
    "no time at all": told(processing_s=float("nan")),
    "less than nothing": told(posted_bits=-8),
    "another round": told(round=1),
    "another worker": told(index=0),
    "links that take less than no time": told(heard=[0], heard_s=[-1.0]),
    "another version": other_schema,
    "no packet": no_packet_label,
}
NOT_USED: dict[str, Lie] = {
    "garbage": posted(lambda packet: b"garbage"),
    "cut off": posted(lambda packet: packet.to_bytes()[:-3]),
    "of another round": posted(lambda packet: dataclasses.replace(packet, round=1).to_bytes()),
    "of another sender": posted(lambda packet: dataclasses.replace(packet, sender=0).to_bytes()),
    "of another codec": posted(lambda packet: dataclasses.replace(packet, codec="zip").to_bytes()),
    "of another shape": posted(lambda packet: dataclasses.replace(packet, payload=b"12345678").to_bytes()),
}


@pytest.mark.parametrize("name", REFUSED)
def test_a_reply_that_cannot_be_is_left_out_and_told(name: str) -> None:
    strategy = Gossip(Equal(), fraction_evaluate=0.0)
    heard: list[str] = []
    strategy_events = strategy.events

    def noting() -> Any:
        events = strategy_events()
        heard.extend(event.what for event in events)
        return events

    strategy.events = noting  # type: ignore[method-assign]
    spoiled = run(REFUSED[name], strategy)
    silent = with_a_silent_one()
    assert heard.count("refused") == 1
    # A worker that only its reply makes silent has trained all the same; that round's mean is the others'.
    np.testing.assert_array_equal(spoiled[:IN_ROUND], silent[:IN_ROUND])
    assert np.isfinite(spoiled).all()
    assert len(spoiled) == ROUNDS


@pytest.mark.parametrize("name", NOT_USED)
def test_a_packet_that_cannot_be_read_is_nobodys(name: str) -> None:
    spoiled = run(NOT_USED[name], Gossip(Equal(), fraction_evaluate=0.0))
    silent = with_a_silent_one()
    np.testing.assert_array_equal(spoiled[:IN_ROUND], silent[:IN_ROUND])
    assert len(spoiled) == ROUNDS


def rows(change: Callable[[dict[str, Any]], None]) -> Lie:
    def lie(reply: Message) -> None:
        report = Report.read(reply.content.config_records[GOSSIP_RECORD], sender="it")
        told = json.loads(report.requirements)
        change(told)
        reply.content[GOSSIP_RECORD] = dataclasses.replace(report, requirements=json.dumps(told)).write()

    return lie


def signals(told: dict[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = told.get("signals", told)
    return found


REQUIRED: dict[str, Lie] = {
    "no JSON": told(requirements="{"),
    "nothing": told(requirements=""),
    "too much": told(requirements="[" * 100_000),
    "no number": rows(lambda t: signals(t)["alpha_max"]["values"].__setitem__(0, float("nan"))),
    "below nothing": rows(lambda t: signals(t)["alpha_max"]["values"].__setitem__(0, -1.0)),
    "more than the row bears": rows(lambda t: signals(t)["alpha_max"]["values"].__setitem__(0, 1e9)),
    "links of others": rows(lambda t: signals(t)["probes"]["values"].append(77)),
    "a list that is none": rows(lambda t: signals(t).__setitem__("alpha_max", 3)),
    "half of it": rows(lambda t: signals(t).pop("requests")),
}


@pytest.mark.parametrize("signalling", ["requirements", "scalars"])
@pytest.mark.parametrize("name", REQUIRED)
def test_requirement_values_that_are_none_move_no_row_and_the_row_is_handed_out_again(
    name: str, signalling: Any
) -> None:
    world = set_up("nlos", 3, nodes=NODES)
    strategy = Gossip(Dcent(step_cap=0.2), world=world, signalling=signalling, fraction_evaluate=0.0)
    means = run(REQUIRED[name], strategy)
    assert len(means) == ROUNDS
    assert np.isfinite(means).all()
    assert strategy.group is not None
    strategy.group.check()
    np.testing.assert_allclose(means[:IN_ROUND], without_a_liar()[:IN_ROUND], rtol=1e-12)


def test_weights_that_do_not_follow_from_the_delays_are_not_taken() -> None:
    lie = rows(lambda t: t["requirements"]["weights_hat"]["values"].__setitem__(0, 1.0))
    strategy = Gossip(Dcent(), world=set_up("nlos", 3, nodes=NODES), signalling="requirements", fraction_evaluate=0.0)
    assert len(run(lie, strategy)) == ROUNDS
    assert strategy.group is not None
    strategy.group.check()


def test_where_nobody_can_be_used_the_first_reason_is_told() -> None:
    def old(message: Message, context: Context, call_next: Any) -> Message:
        reply: Message = call_next(message, context)
        other_schema(reply)
        return reply

    with (
        LocalGrid(make_app(mods=[old, gossip_mod]), NODES) as grid,
        pytest.raises(RoundFailed, match=r"no reply of the 5 .*gossip/9.*install the same"),
    ):
        Gossip(Equal()).start(RoundClock(grid), model(), 1)


def test_metrics_without_a_weight_are_not_counted_and_the_model_is() -> None:
    def weightless(reply: Message) -> None:
        for record in reply.content.metric_records.values():
            record.pop("num-examples", None)

    spoiled = run(weightless, Gossip(Equal(), fraction_evaluate=0.0))
    np.testing.assert_array_equal(spoiled, run(None, Gossip(Equal(), fraction_evaluate=0.0)))


def test_a_worker_that_always_says_it_lost_its_model_stops_nobody() -> None:
    def forgetful(message: Message, context: Context, call_next: Any) -> Message:
        if context.node_config["partition-id"] == LIAR:
            context.state.pop("flower-edge.state.gossip", None)
        reply: Message = call_next(message, context)
        return reply

    with LocalGrid(make_app(mods=[forgetful, gossip_mod]), NODES) as grid:
        result = Gossip(Equal(), fraction_evaluate=0.0).start(RoundClock(grid), model(), 5)
    assert len(result.train_metrics_clientapp) == 5
    assert np.isfinite(arrays_of(result.arrays)["weight"]).all()


@pytest.mark.parametrize("kind", ["raise", "silent", "drop-out"])
@pytest.mark.parametrize("signalling", ["rows", "requirements", "scalars"])
def test_any_trouble_with_a_node_is_survived_through_a_proxy(kind: Any, signalling: Any) -> None:
    strategy = Gossip(
        Dcent(step_cap=0.1), world=set_up("nlos", 3, nodes=NODES), signalling=signalling, fraction_evaluate=0.0
    )
    script = [Fault(2, kind, at=3), Fault(0, kind, at=5)]
    with LocalGrid(make_app(), NODES, script=script) as grid:
        result = strategy.start(RoundClock(GridProxy(grid, deadline_s=0.1)), model(), 6)
    assert len(result.train_metrics_clientapp) == 6
    assert np.isfinite(arrays_of(result.arrays)["weight"]).all()
