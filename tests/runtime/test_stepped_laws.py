"""Whatever is decided, whoever fails and however many edges are at it: every task ends, and nobody is given twice."""

from __future__ import annotations

from collections import Counter
from functools import cache

from flwr.app import Message
from hypothesis import given, settings
from hypothesis import strategies as st
from stepped_learner import START, alone, learner, model_of, order_to

from flower_edge.rounds import Round
from flower_edge.runtime.abilities import cutting_off
from flower_edge.runtime.clock.devices import Device, Link
from flower_edge.runtime.clock.virtual_clock import VirtualClock
from flower_edge.runtime.faults import Fault
from flower_edge.runtime.local_grid import LocalGrid
from flower_edge.runtime.steps.decisions import Change, Continue, Decision, Detach, Drop, Progress, Renew, Replace, Stop
from flower_edge.runtime.steps.grid import SteppedGrid
from flower_edge.runtime.steps.messages import LATE_RECORD, renewed_of
from flower_edge.runtime.wrapped_grid import announce
from flower_edge.wire import record_of

CELLS = {"a": (1000, 1001), "b": (1002, 1003)}
STEPS, ROUNDS, NODES = 7, 3, 5  # node 1004 is in no cell
node_ids = st.integers(1000, 1000 + NODES - 1)
decisions = st.one_of(
    st.builds(Continue, st.lists(node_ids, max_size=2).map(tuple)),
    st.sampled_from([Stop(), Drop(), Detach(), Detach(steps=0), Detach(steps=1), Change({"local-steps": 5})]),
    st.builds(Replace, node_ids, st.booleans()),
    st.builds(Renew, st.just({"arrays": record_of(START)}), st.just("for a law")),
)
faults = st.lists(st.builds(Fault, st.integers(0, NODES - 1), st.just("raise"), st.integers(1, 6)), max_size=3)
speeds = st.lists(st.sampled_from([0.5, 1.0, 3.0]), min_size=NODES, max_size=NODES)


@cache
def model_after(node: int, number: int, steps: int) -> bytes:
    return model_of(alone(steps, node=node, **{"server-round": number}))


@settings(max_examples=25, deadline=None)
@given(
    script=st.lists(decisions, min_size=1, max_size=12),
    trouble=faults,
    step_s=speeds,
    enough=st.none() | st.integers(1, 2),
)
def test_every_task_ends_and_every_reply_is_whole_of_its_own_round_and_given_once(
    script: list[Decision], trouble: list[Fault], step_s: list[float], enough: int | None
) -> None:
    asked = Counter[int]()

    def decide(progress: Progress) -> Decision:
        assert progress.node_id in progress.asked
        asked[progress.node_id] += 1
        if progress.round > ROUNDS or progress.error or asked[progress.node_id] > 12:
            return Continue()  # a policy that replaces for ever would never end
        return script[(progress.node_id + asked[progress.node_id]) % len(script)]

    given_out: list[tuple[str, int, Message]] = []
    with LocalGrid(learner(), nodes=NODES, script=trouble) as local:
        clock = VirtualClock(local, [Device(step_s=s) for s in step_s], [Link()] * NODES)
        grid = SteppedGrid(clock, 2, decide)

        def edge(cell: str) -> None:
            for number in range(1, ROUNDS + 1):
                announce(grid, Round(1, number, cell))
                messages = [order_to(node, STEPS, **{"server-round": number}) for node in CELLS[cell]]
                with cutting_off(grid, enough):
                    replies = list(grid.send_and_receive(messages, timeout=30))
                given_out.extend((cell, number, reply) for reply in replies)

        clock.side_by_side([lambda cell=cell: edge(cell) for cell in CELLS])
        clock.wait_until(clock.now_s + 1000.0)
        announce(grid, Round(2, 1, "c"))
        last = [order_to(1000 + node, STEPS, **{"server-round": 9}) for node in range(NODES)]
        replies = list(grid.send_and_receive(last, timeout=30))
        left = len(trouble)  # faults that had not happened yet may meet the last round
        assert sum(not reply.has_error() for reply in replies) >= NODES - left
        assert not [event for event in grid.lost_work() if "under way" in event.outcome]

    usable = [(cell, number, reply) for cell, number, reply in given_out if not reply.has_error()]
    if not any(isinstance(decision, Renew) for decision in script):
        counted = [reply for _, _, reply in given_out]
    else:
        counted = [reply for _, _, reply in usable]  # one part may fail where another has not
    places = Counter((r.metadata.reply_to_message_id, r.metadata.src_node_id, renewed_of(r)) for r in counted)
    for cell, number, reply in usable:
        late = reply.content.config_records.get(LATE_RECORD)
        begun = number if late is None else late["base-round"]
        assert late is None or (late["cell"] == cell and begun < number)
        steps, renewed = reply.content.metric_records["metrics"]["steps"], renewed_of(reply)
        assert 0 < steps <= STEPS - (renewed.first_step if renewed else 0)
        if renewed is None:
            assert model_of(reply) == model_after(reply.metadata.src_node_id, begun, steps)
        if not any(isinstance(decision, Replace) for decision in script):
            # A task can be given back to a node that had it once, and only by Replace.
            assert places[reply.metadata.reply_to_message_id, reply.metadata.src_node_id, renewed] == 1
    assert len({id(reply) for _, _, reply in given_out}) == len(given_out)
