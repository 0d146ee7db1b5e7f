"""Gradient exchange with nodes that fail, forget, drift apart or send nonsense: the others agree on what counted."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any

import numpy as np
import pytest
from flwr.app import ConfigRecord, Context, Message
from flwr.clientapp.typing import ClientAppCallable
from flwr.serverapp.strategy import Result, Strategy
from gradient_toy import Seen, flat, make_app, single_machine, start

from flower_edge.codecs.error_feedback import stc
from flower_edge.codecs.identity import Identity
from flower_edge.codecs.shared_support import SharedSupport
from flower_edge.errors import NobodyContributed, ProtocolError
from flower_edge.runtime import Fault, LocalGrid
from flower_edge.runtime.gradient_messages import PACKET_RECORD, Sealed, bytes_in, record_with
from flower_edge.runtime.node_state import NodeState
from flower_edge.strategies.gradients.exchange import GradientExchange

NODES = 4
STEPS = 4

Mod = Callable[[Message, Context, ClientAppCallable], Message]


def rate(version: int) -> float:
    return 0.05


def run(
    *mods: Mod,
    script: Sequence[Fault] = (),
    rounds: int = 2,
    dtype: Any = np.float64,
    seen: Seen | None = None,
    **options: Any,
) -> tuple[Result, dict[str, int]]:
    """What came of it in Flower's own loop, which takes no events away; and how often what happened."""
    options = {"learning_rate": rate, "steps_per_round": STEPS, "fraction_evaluate": 0.0, **options}
    strategy = GradientExchange(**options)
    with LocalGrid(make_app(mods, seen), NODES, script=script) as grid:
        result = Strategy.start(strategy, grid, start(dtype), num_rounds=rounds)
    strategy.close()
    what = [event.what for event in strategy.events()]
    return result, {one: what.count(one) for one in what}


def nth(node: int, number: int, act: Callable[[Message, Context, ClientAppCallable], Message]) -> Mod:
    """Acts at one message of one node."""

    def mod(message: Message, context: Context, call_next: ClientAppCallable) -> Message:
        counted = context.state.get("messages")
        count = 1 + (int(counted["n"]) if isinstance(counted, ConfigRecord) else 0)  # type: ignore[arg-type]
        context.state["messages"] = ConfigRecord({"n": count})
        mine = int(context.node_config["partition-id"]) == node
        return act(message, context, call_next) if mine and count == number else call_next(message, context)

    return mod


def equals_one_machine(result: Result, updates: int, without: Mapping[int, Collection[int]]) -> None:
    expected = single_machine(updates, NODES, rate, without=without)
    np.testing.assert_allclose(flat(result.arrays), expected, rtol=1e-12, atol=1e-13)


# -- through the server ----------------------------------------------------------------------------------------------


def test_who_misses_a_step_is_left_out_of_it_and_gets_the_model() -> None:
    seen = Seen()
    result, happened = run(script=[Fault(2, "raise", at=3), Fault(0, "raise", at=6)], seen=seen)
    equals_one_machine(result, 8, {2: {2}, 5: {0}})
    assert seen.apart() == []
    assert happened == {}
    assert [m["whole_models"] for m in result.train_metrics_clientapp.values()] == [NODES + 1, 1]
    assert [m["unheard"] for m in result.train_metrics_clientapp.values()] == [1, 1]


def test_who_leaves_for_good_is_not_waited_for() -> None:
    result, _ = run(script=[Fault(1, "drop-out", at=4)])
    equals_one_machine(result, 8, {t: {1} for t in range(3, 8)})


def torn(message: Message, context: Context, call_next: ClientAppCallable) -> Message:
    reply = call_next(message, context)
    reply.content[PACKET_RECORD] = record_with(b"torn")
    return reply


def test_a_gradient_that_arrived_torn_is_left_out_and_the_node_gets_the_model() -> None:
    result, happened = run(nth(1, 3, torn))
    equals_one_machine(result, 8, {2: {1}})
    assert happened == {"refused": 1}
    assert result.train_metrics_clientapp[1]["whole_models"] == NODES + 1


def test_a_gradient_that_did_not_count_leaves_error_feedback_as_if_it_had_never_been_made() -> None:
    coded: dict[str, Any] = {"codec": stc(0.2), "dtype": np.float32}
    never, _ = run(script=[Fault(1, "raise", at=3)], **coded)
    lost, happened = run(nth(1, 3, torn), **coded)
    assert happened == {"refused": 1}
    np.testing.assert_array_equal(flat(lost.arrays), flat(never.arrays))


def forget(message: Message, context: Context, call_next: ClientAppCallable) -> Message:
    """A SuperNode that was started anew."""
    for name in [name for name in context.state if name.startswith("flower-edge.state")]:
        del context.state[name]
    return call_next(message, context)


def drift(message: Message, context: Context, call_next: ClientAppCallable) -> Message:
    """A bit that turned over in a node's memory."""
    memory = NodeState(context, "gradients")
    tree = memory.load()
    tree["replica"]["x"][7] += 1.0
    memory.save(tree)
    return call_next(message, context)


@pytest.mark.parametrize("codec", [Identity(), stc(0.3), SharedSupport(0.2, 0.1, turn=NODES)], ids=lambda c: c.kind)
@pytest.mark.parametrize(("trouble", "what"), [(forget, "lost"), (drift, "other-model")], ids=["forgot", "drifted"])
def test_who_has_not_the_model_gets_it(codec: Any, trouble: Mod, what: str) -> None:
    seen = Seen()
    result, happened = run(nth(2, 3, trouble), codec=codec, momentum=0.5, dtype=np.float32, seen=seen)
    assert happened == {what: 1}
    assert seen.apart() == ([2] if what == "other-model" else [])
    assert np.isfinite(flat(result.arrays)).all()
    assert result.train_metrics_clientapp[1]["whole_models"] == NODES + 1


def test_a_gradient_that_is_not_finite_is_refused_and_the_others_count() -> None:
    def diverge(message: Message, context: Context, call_next: ClientAppCallable) -> Message:
        reply = call_next(message, context)
        data = bytes_in(reply.content, PACKET_RECORD, sender="it")
        assert data is not None
        sealed = Sealed.from_bytes(data, step=2, sender=1)
        payload = np.full(len(sealed.payload) // 8, np.nan).tobytes()
        changed = Sealed(2, 1, payload, sealed.weight, sealed.version, sealed.digest)
        reply.content[PACKET_RECORD] = record_with(changed.to_bytes())
        return reply

    result, happened = run(nth(1, 3, diverge))
    equals_one_machine(result, 8, {2: {1}})
    assert happened == {"refused": 1}


def test_a_round_to_which_nobody_contributes_says_why() -> None:
    with pytest.raises(NobodyContributed, match="disk full"):
        run(script=[Fault(n, "raise", at=2, reason="disk full") for n in range(NODES)])


def test_a_step_of_which_every_gradient_is_refused_says_why() -> None:
    with pytest.raises(ProtocolError, match="could be used; the first: 4 bytes"):
        run(torn)


# -- in a ring -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("mailbox", ["relay", "shared-memory"])
@pytest.mark.parametrize("at", [5, 6, 7, 8], ids=["begin", "hop-1", "hop-2", "hop-3"])
def test_a_step_in_which_a_node_fails_counts_for_nobody(at: int, mailbox: Any) -> None:
    seen = Seen()
    result, happened = run(form="ring", mailbox=mailbox, script=[Fault(1, "raise", at=at)], seen=seen)
    # Of four steps one is dropped; the node takes part again in the next round.
    equals_one_machine(result, 7, {1: {1}, 2: {1}})
    assert seen.apart() == []
    assert happened == {"dropped-step": 1}
    assert [m.get("dropped_steps", 0) for m in result.train_metrics_clientapp.values()] == [1, 0]
    assert result.train_metrics_clientapp[2]["ring_nodes"] == NODES


def test_a_dropped_step_leaves_error_feedback_as_it_was() -> None:
    """All four try a step in vain, three make it; the fourth is still there in the end."""
    seen = Seen()
    options: dict[str, Any] = {"form": "ring", "codec": stc(0.2), "dtype": np.float32, "seen": seen, "rounds": 4}
    result, _ = run(script=[Fault(1, "raise", at=7)], **options)
    assert seen.apart() == []
    losses = [m["loss"] for m in result.train_metrics_clientapp.values()]
    assert losses[-1] < losses[0]


def test_who_leaves_the_ring_for_good_closes_it() -> None:
    result, _ = run(form="ring", script=[Fault(3, "drop-out", at=6)])
    equals_one_machine(result, 7, {t: {3} for t in range(1, 7)})
    assert result.train_metrics_clientapp[2]["ring_nodes"] == NODES - 1


def test_a_packet_that_was_torn_on_the_way_takes_its_sender_out_of_the_ring() -> None:
    def tear(message: Message, context: Context, call_next: ClientAppCallable) -> Message:
        reply = call_next(message, context)
        data = bytes_in(reply.content, PACKET_RECORD, sender="it")
        assert data is not None
        reply.content[PACKET_RECORD] = record_with(data[:-1] + bytes([data[-1] ^ 1]))
        return reply

    result, happened = run(nth(2, 5, tear), form="ring")
    equals_one_machine(result, 7, {1: {2}, 2: {2}})
    assert happened == {"missing": 1, "dropped-step": 1}


def test_what_nobody_can_decode_nobody_counts() -> None:
    from flower_edge.peers import Packet

    def nonsense(message: Message, context: Context, call_next: ClientAppCallable) -> Message:
        reply = call_next(message, context)
        data = bytes_in(reply.content, PACKET_RECORD, sender="it")
        assert data is not None
        outer = Packet.from_bytes(data)
        inner = Sealed.from_bytes(outer.payload, step=1, sender=2)
        inner = Sealed(1, 2, b"nonsense", inner.weight, inner.version, inner.digest)
        reply.content[PACKET_RECORD] = record_with(Packet(outer.round, 2, 0, "", inner.to_bytes()).to_bytes())
        return reply

    result, happened = run(nth(2, 5, nonsense), form="ring")
    # It believes its own gradient, so that its model is another; it sees the others' from the next round on.
    equals_one_machine(result, 7, {1: {2}, 2: {2}})
    assert happened == {"refused": 1, "other-model": 1, "dropped-step": 1}


@pytest.mark.parametrize("trouble", [forget, drift], ids=["forgot", "drifted"])
def test_who_lost_the_model_of_the_ring_gets_a_copy_with_the_next_round(trouble: Mod) -> None:
    seen = Seen()
    result, _ = run(nth(2, 5, trouble), form="ring", codec=stc(0.3), dtype=np.float32, momentum=0.5, seen=seen)
    assert all(len(models) >= NODES - 1 for models in seen.models.values())
    assert len(seen.models[max(seen.models)]) == NODES
    assert seen.apart() in ([], [1])
    assert result.train_metrics_clientapp[2]["ring_nodes"] == NODES


def test_when_the_node_that_was_to_send_the_model_fails_another_does() -> None:
    last = STEPS * NODES + 1
    result, happened = run(form="ring", script=[Fault(0, "raise", at=last)], rounds=2)
    equals_one_machine(result, 8, {})
    assert happened == {}


def test_a_ring_of_which_nobody_is_left_says_so() -> None:
    with pytest.raises(NobodyContributed, match="step 1"):
        run(form="ring", script=[Fault(n, "raise", at=5) for n in range(NODES)])
