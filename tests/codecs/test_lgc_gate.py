"""The gate of LGC: it opens for data an autoencoder can code, stays shut for noise, and shuts again."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from flower_edge.codecs.layout import Floats, Layout
from flower_edge.codecs.lgc.gate import SCALARS, Gate, Measured, at_equal_bytes, compared, nmse
from flower_edge.codecs.lgc.lgc import Lgc
from flower_edge.codecs.lgc.teaching import LgcTeacher
from flower_edge.codecs.log4 import Log4
from flower_edge.codecs.moment import Moment, Public
from flower_edge.codecs.sign import Sign
from flower_edge.codecs.sparse import dense
from flower_edge.errors import CodecError
from flower_edge.store import tree_from_bytes, tree_to_bytes

SIZE, NODES = 2000, 4
LAYOUT = Layout.flat(SIZE)
PLACES = np.arange(0, SIZE, 10)
CHANNELS = (16, 32, 64, 16, 4)

Made = Callable[[int, int], Floats]


def smooth(round: int, node: int) -> Floats:
    """What all nodes have in common is a wave over the leader's places."""
    rng = np.random.default_rng([round, node])
    v = 1e-3 * rng.normal(size=SIZE)
    v[PLACES] += 2 + np.sin(np.linspace(0, 4 * np.pi, PLACES.size) + 0.05 * rng.normal())
    return v.astype(np.float32)


def noise(round: int, node: int) -> Floats:
    return np.random.default_rng([round, node]).normal(size=SIZE).astype(np.float32)


def lgc(variant: str = "ring", **options: Any) -> Lgc:
    return Lgc(0.1, 0.001, variant=variant, channels=CHANNELS, taught=5, turn=4, **options)


def played(
    teacher: LgcTeacher, rounds: range, made: Made, state: Any = None, through: bool = False
) -> tuple[list[dict[str, float]], Any]:
    """Rounds of all nodes: metrics after each, and the last state. `through`: by way of a checkpoint, each round."""
    codec, state, aggregates = teacher.codec, state or teacher.init(LAYOUT), ()
    book: bytes | None = state["codebook"].tobytes()
    metrics = []
    for round in rounds:
        told, state = teacher.tell(state, round)
        book = book if told.codebook is None else told.codebook
        updates, spent = {}, 0
        for node in range(NODES):
            at = Moment(round, node, Public(aggregates, told.leader, book))
            data, _ = codec.pack(made(round, node), LAYOUT, {}, at)
            updates[node], _ = codec.unpack(memoryview(data), LAYOUT, {}, at)
            spent += len(data)
        state = teacher.learn(state, round, updates)
        state = tree_from_bytes(tree_to_bytes(state)) if through else state
        aggregates = (np.mean([dense(update) for update in updates.values()], axis=0, dtype=np.float32),)
        error = np.mean([nmse(made(round, node), dense(updates[node])) for node in updates])
        metrics.append({**teacher.metrics(state), "bytes": spent / NODES, "error": float(error)})
    return metrics, state


@pytest.fixture(scope="module")
def learned() -> tuple[LgcTeacher, list[dict[str, float]], Any]:
    """Five rounds of a wave, in which the autoencoder was taught."""
    pytest.importorskip("torch")
    teacher = LgcTeacher(lgc("ring"), Gate(pay_back_rounds=None), learning_rate=5e-3, steps=15)
    return teacher, *played(teacher, range(5), smooth)


def test_the_gate_opens_for_what_an_autoencoder_codes_well_and_then_saves_bytes_and_error(learned: Any) -> None:
    teacher, metrics, state = learned
    assert metrics[-1]["lgc_gate_open"] == 0
    (after,), _ = played(teacher, range(5, 6), smooth, state)
    assert after["lgc_gate_open"] == 1
    assert after["lgc_nmse"] < 0.9 * after["scalar_nmse"]
    assert after["bytes"] < 0.7 * metrics[-1]["bytes"]
    assert after["error"] < 0.1


def test_a_codebook_that_cannot_pay_its_bytes_back_is_not_published(learned: Any) -> None:
    teacher, metrics, state = learned
    saved, book = metrics[-1]["lgc_saved_bytes"], metrics[-1]["lgc_codebook_bytes"]
    enough = math.ceil(book / saved)
    for rounds, published in ((enough - 1, False), (enough, True)):
        told, _ = replace(teacher, gate=Gate(pay_back_rounds=rounds)).tell(state, 5)
        assert (told.codebook is not None) == published


def test_a_gate_that_is_open_shuts_when_the_data_change(learned: Any) -> None:
    teacher, _, state = learned
    # Node 3 is held out, and leads in rounds 5, 9 and 13: two measurements after the change.
    metrics, state = played(
        replace(teacher, steps=1), range(5, 15), lambda *at: (smooth if at[0] < 6 else noise)(*at), state
    )
    assert [metrics[0]["lgc_gate_open"], metrics[-1]["lgc_gate_open"]] == [1, 0]
    assert teacher.tell(state, 15)[0].codebook is None  # told once, then in force


@pytest.mark.parametrize("variant", ["server", "ring"])
def test_the_gate_stays_shut_for_noise_and_scalars_code(variant: str) -> None:
    pytest.importorskip("torch")
    teacher = LgcTeacher(lgc(variant), Gate(pay_back_rounds=None), steps=2)
    metrics, _ = played(teacher, range(7), noise)
    assert all(entry["lgc_gate_open"] == 0 for entry in metrics)
    assert metrics[-1]["lgc_nmse"] > metrics[-1]["scalar_nmse"]
    assert metrics[-1]["lgc_codebooks"] == 0


@pytest.mark.parametrize("variant", ["server", "ring"])
def test_training_is_the_same_again_and_after_a_checkpoint(variant: str) -> None:
    pytest.importorskip("torch")
    codec = lgc(variant, gated=False, seed=5)
    runs = [played(LgcTeacher(codec, steps=2), range(4), smooth, None, through) for through in (False, False, True)]
    assert tree_to_bytes(runs[0][1]) == tree_to_bytes(runs[1][1]) == tree_to_bytes(runs[2][1])
    other = played(LgcTeacher(lgc(variant, gated=False, seed=6), steps=2), range(4), smooth)
    assert tree_to_bytes(other[1]) != tree_to_bytes(runs[0][1])


def test_without_a_gate_the_autoencoder_codes_as_soon_as_it_is_taught() -> None:
    pytest.importorskip("torch")
    metrics, _ = played(LgcTeacher(lgc("server", gated=False), steps=1), range(7), noise)
    assert [entry["lgc_gate_open"] for entry in metrics] == [0, 0, 0, 0, 0, 1, 1]


def test_what_came_through_the_autoencoder_is_not_learned_from() -> None:
    pytest.importorskip("torch")
    teacher = LgcTeacher(lgc("ring", gated=False), steps=1)
    _, state = played(teacher, range(8), smooth)
    seen = {entry["round"]: [node for of in entry["of"] for node in of["nodes"]] for entry in state["batches"]}
    assert seen[3] == [1, 0, 2]  # while it is taught: who leads, and all others but the held-out one
    assert seen[6] == [2]  # after that: who leads
    assert 5 not in seen  # node 3 leads, which is held out


def test_rounds_without_any_node_change_nothing_but_the_count_of_missed_leaders() -> None:
    teacher = LgcTeacher(lgc())
    state = teacher.init(LAYOUT)
    after = teacher.learn(state, 0, {})
    assert tree_to_bytes({**after, "leader": 0}) == tree_to_bytes({**state, "leader": 0})


@pytest.mark.parametrize(("error", "opens"), [(0.185, False), (0.175, True)])
def test_a_little_better_is_not_enough(error: float, opens: bool) -> None:
    gate = Gate(margin=0.9, window=1, pay_back_rounds=None)
    state = gate.see(gate.init(), [Measured(error, 0.2, 10, 5)])
    assert gate.decide(state, codebook_bytes=0, out=False) is opens


def test_less_than_a_coder_needs_buys_a_share_of_its_places() -> None:
    v = np.random.default_rng(0).normal(size=800).astype(np.float32)
    layout = Layout.flat(800)
    data, _ = Log4().pack(v, layout, {}, Moment())
    whole = nmse(v, np.asarray(Log4().unpack(memoryview(data), layout, {}, Moment())[0]))
    assert at_equal_bytes(Log4(), v, 10_000) == whole
    assert at_equal_bytes(Log4(), v, len(data) / 2) == pytest.approx(0.5 + 0.5 * whole)
    assert at_equal_bytes(Sign(), v, 0) == 1.0


def test_a_learned_coder_is_compared_with_the_best_scalar_one_at_its_own_bytes() -> None:
    v = np.random.default_rng(1).normal(size=800).astype(np.float32)
    measured = compared(v, v * np.float32(0.999), 100)
    assert measured.scalar_nmse == min(at_equal_bytes(codec, v, 100) for codec in SCALARS.values())
    assert measured.lgc_nmse == pytest.approx(1e-6, rel=1e-2)
    assert measured.saved_bytes == 2 * 800 - 100  # no scalar coder is as good
    assert compared(v, -v, 10).saved_bytes == 0  # worse than sending nothing


@pytest.mark.parametrize("options", [{"margin": 0.0}, {"margin": 1.1}, {"window": 0}, {"pay_back_rounds": 0}])
def test_a_gate_that_makes_no_sense_is_refused(options: dict[str, Any]) -> None:
    with pytest.raises(CodecError, match=next(iter(options))):
        Gate(**options)
