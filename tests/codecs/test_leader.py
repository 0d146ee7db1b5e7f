"""The lagged leader: whose places are public, and what happens while nobody leads."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from flower_edge.codecs.layout import Layout
from flower_edge.codecs.leader import LaggedLeader, leads, used_places
from flower_edge.codecs.sparse import Sparse
from flower_edge.store import tree_from_bytes, tree_to_bytes

LAYOUT = Layout.flat(10)


def sent(*places: int) -> Sparse:
    return Sparse(np.array(places), np.ones(len(places), np.float32), 10)


@given(st.integers(1, 20), st.integers(0, 10**6), st.integers(0, 100))
def test_each_node_leads_exactly_once_in_any_turn(turn: int, node: int, begin: int) -> None:
    assert sum(leads(node, round, turn) for round in range(begin, begin + turn)) == 1


def test_where_no_leader_arrives_the_crowd_leads_and_where_nobody_does_the_one_before() -> None:
    teacher = LaggedLeader(0.2, turn=3)
    state = teacher.learn(teacher.init(LAYOUT), 0, {0: sent(1, 4), 1: sent(7)})
    crowd = {0: sent(2, 5), 1: sent(2, 9, 8), 3: sent(2, 9)}
    given = [(crowd, [2, 9], 1), ({}, [1, 4], 1), ({**crowd, 2: sent(3)}, [3], 0)]  # round 1 is node 2's turn
    for updates, places, missed in given:
        after = teacher.learn(state, 1, updates)
        leader = teacher.tell(after, 2)[0].leader
        assert leader is not None
        assert leader.tolist() == places
        assert teacher.metrics(after)["leader_missed"] == missed


def test_the_crowd_leads_also_where_its_nodes_pull_apart() -> None:
    up, down = (Sparse(np.array([3, 6]), np.array([sign * 5, 2], np.float32), 10) for sign in (1, -1))
    teacher = LaggedLeader(0.1, turn=0)
    for updates in ({0: up, 1: down}, {0: up.dense(), 1: down.dense()}):
        leader = teacher.tell(teacher.learn(teacher.init(LAYOUT), 0, updates), 1)[0].leader
        assert leader is not None
        assert leader.tolist() == [3]  # the mean there is 0


def test_of_several_that_lead_another_one_is_taken_each_time() -> None:
    teacher = LaggedLeader(0.5, turn=1)
    state, nodes = teacher.init(LAYOUT), []
    for round in range(6):
        state = teacher.learn(state, round, {node: sent(node) for node in range(3)})
        nodes.append(teacher.metrics(state)["leader_node"])
    assert nodes == [0, 1, 2, 0, 1, 2]


def test_a_leader_that_sent_more_than_its_share_is_cut_to_its_largest() -> None:
    dense = np.array([0, 5, 0, 1, -4, 3, 0, 0, 2, 0], np.float32)
    teacher = LaggedLeader(0.2, turn=1)
    leader = teacher.tell(teacher.learn(teacher.init(LAYOUT), 0, {0: dense}), 1)[0].leader
    assert leader is not None
    assert leader.tolist() == [1, 4]
    assert used_places(dense, 10).tolist() == [1, 3, 4, 5, 8]


def test_the_order_in_which_updates_arrive_makes_no_difference_and_a_checkpoint_none() -> None:
    teacher = LaggedLeader(0.5, turn=2)
    updates = {node: sent(node) for node in range(4)}
    one = teacher.learn(teacher.init(LAYOUT), 4, updates)
    other = teacher.learn(tree_from_bytes(tree_to_bytes(teacher.init(LAYOUT))), 4, dict(reversed(updates.items())))
    assert tree_to_bytes(one) == tree_to_bytes(other)
