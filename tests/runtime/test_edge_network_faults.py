"""What the network does between an edge and a terminal: rounds end in time with the rest, and the terminal comes back.

One deployment for all: the wire is changed while it runs. See `far_terminal` for who is where.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import pytest
from far_terminal import FAR, NEAR, PARAMETERS, FarTerminal, Told, far_terminal, start
from wire_cases import Wire, needs_namespaces

pytestmark = [pytest.mark.slow, pytest.mark.flwr, pytest.mark.netns]

NAMES = {FAR: f"partition-{FAR}", NEAR: f"partition-{NEAR}"}
EXAMPLES = {NAMES[FAR]: 10.0, NAMES[NEAR]: 13.0}
#: From and to the far terminal.
UP, DOWN = 0, 1


@pytest.fixture(scope="module")
def host(tmp_path_factory: pytest.TempPathFactory) -> Iterator[FarTerminal]:
    needs_namespaces()
    with far_terminal(tmp_path_factory.mktemp("wire")) as made:
        yield made


def cut(way: int | None, seconds: float) -> Callable[[Wire], None]:
    """One way, or both, for so long."""
    ways = (UP, DOWN) if way is None else (way,)

    def happens(wire: Wire) -> None:
        for at in ways:
            wire.ways[at].open = False
        time.sleep(seconds)
        for at in ways:
            wire.ways[at].open = True

    return happens


@dataclass(frozen=True)
class Fault:
    """What happens, and when.

    Attributes:
        happens: called in the middle of a model.
        moving: which way that model goes.
        deadline_s: of the round.
        missed: whether it lasts longer than the round.
        parameters: floats of the model, where it is another one.
    """

    happens: Callable[[Wire], None]
    moving: int = UP
    deadline_s: float = 90.0
    missed: bool = False
    parameters: int = PARAMETERS


FAULTS = {
    "cut for 3 s": Fault(cut(None, 3.0)),
    "cut for 30 s": Fault(cut(None, 30.0), deadline_s=20.0, missed=True),
    "cut for 30 s while it is sent the model": Fault(cut(None, 30.0), DOWN, deadline_s=20.0, missed=True),
    "cut one way for 5 s": Fault(cut(DOWN, 5.0)),
    "cut the other way for 5 s": Fault(cut(UP, 5.0), DOWN),
    "5 % of packets lost": Fault(lambda wire: wire.both(loss=0.05, bps=0.0), DOWN),
    "200 ms late": Fault(lambda wire: wire.both(delay_s=0.2, bps=0.0), DOWN),
    "0.1 Mbit/s": Fault(lambda wire: wire.both(bps=1e5), DOWN, deadline_s=180.0),
    # 40 s each way: longer than Flower waits for an answer.
    "0.1 Mbit/s and 500 KB": Fault(lambda wire: wire.both(bps=1e5), DOWN, deadline_s=400.0, parameters=125_000),
    "1 s there, 1 s away": Fault(lambda wire: wire.both(flaps_s=1.0, bps=1e6), DOWN),
}
#: On each commit; the others in the whole matrix.
SAMPLED = ("cut for 3 s", "5 % of packets lost")


def in_the_middle(host: FarTerminal, way: int) -> None:
    """Until half of a model has gone this way."""
    before, latest_s = host.wire.carried_bytes[way], time.monotonic() + 60.0
    while host.wire.carried_bytes[way] - before < 50_000:
        assert time.monotonic() < latest_s, host.logs()
        time.sleep(0.005)


def trained(host: FarTerminal, number: int, partition: int, seen: int) -> np.ndarray:
    """What a terminal makes of the model in a round, when it remembers so many."""
    drawn = np.random.default_rng([partition, number, seen]).normal(size=host.model.shape)
    return (0.9 * host.model + 0.1 * drawn).astype(np.float32)


def check(host: FarTerminal, told: Told) -> None:
    """Its model is that of the terminals it says it counted, each once, as they were in this round."""
    assert told.counted, told.trouble
    assert told.counted == {name: EXAMPLES[name] for name in told.counted}
    # What the far one remembered then is told by the mean: it may have worked on another round since.
    near, seen = host.remembers(NEAR), told.seen * sum(told.counted.values())
    expected = np.zeros_like(host.model)
    if NAMES[NEAR] in told.counted:
        seen -= 13 * near
        expected = expected + 13 * trained(host, told.number, NEAR, near)
    if NAMES[FAR] in told.counted:
        far = round(seen / 10)
        seen -= 10 * far
        expected = expected + 10 * trained(host, told.number, FAR, far)
    assert seen == pytest.approx(0.0, abs=1e-6)
    expected = expected / sum(told.counted.values())
    np.testing.assert_allclose(told.model, expected, atol=1e-5)


def until_both(host: FarTerminal, rounds: int) -> list[Told]:
    """Rounds until both terminals count in one, which has to be among the next so many.

    On a busy machine either of them may be late for a round, and both.
    """
    done: list[Told] = []
    while not done or len(done[-1].counted) < 2:
        assert len(done) < rounds, [*(one.trouble for one in done), host.logs()]
        done.append(host.begin(60.0).result())
        if done[-1].counted:
            check(host, done[-1])
    return done


@pytest.mark.parametrize(
    "name", [name if name in SAMPLED else pytest.param(name, marks=pytest.mark.full) for name in FAULTS]
)
def test_a_round_ends_in_time_with_the_rest_and_the_terminal_comes_back_as_who_it_was(
    host: FarTerminal, name: str
) -> None:
    fault = FAULTS[name]
    host.wire.as_new()
    host.model = start(fault.parameters)
    until_both(host, 3)
    # Seconds for each model: a busy machine is in time to do something in the middle of it.
    host.wire.both(bps=2e5)
    lost, remembered = host.wire.lost, host.remembers(FAR)
    going = host.begin(fault.deadline_s)
    in_the_middle(host, fault.moving)
    assert not going.done()
    fault.happens(host.wire)
    told = going.result()
    check(host, told)
    assert told.seconds < fault.deadline_s + 30.0
    assert told.counted.keys() == ({NAMES[NEAR]} if fault.missed else EXAMPLES.keys())
    if "cut" in name or "lost" in name or "away" in name:
        assert host.wire.lost > lost  # it did happen
    # Whoever asks for this round again is told the same: it was acknowledged.
    again = host.ask(told.number, fault.deadline_s)
    np.testing.assert_array_equal(again.array_records["arrays"]["w"].numpy(), told.model)
    host.wire.as_new()
    host.model = start(PARAMETERS)
    rounds = [told, *until_both(host, 4)]
    counted = sum(NAMES[FAR] in one.counted for one in rounds)
    # It has worked on each round that counts it, and on none twice; a round that had ended cost it its work once.
    assert counted <= host.remembers(FAR) - remembered <= len(rounds)
    assert host.nodes[FAR].poll() is None
    assert host.log(f"node-{FAR}").count("SuperNode ID") == 1


@pytest.mark.full
def test_a_terminal_that_was_away_for_many_rounds_works_on_none_that_have_ended(host: FarTerminal) -> None:
    """Else it would train on all of them, one after the other, before it is of use again."""
    host.wire.as_new()
    until_both(host, 3)
    remembered = host.remembers(FAR)
    host.wire.both(open=False)
    for _ in range(9):
        told = host.begin(6.0).result()
        check(host, told)
        assert told.counted.keys() == {NAMES[NEAR]}
    host.wire.as_new()
    rounds = until_both(host, 4)
    # The last two or three of nine may have been good still, by the seconds that clocks may differ.
    assert host.remembers(FAR) - remembered <= 3 + len(rounds)
    assert list(host.nodes_there().values()) == ["online", "online"]


@pytest.mark.full
def test_a_terminal_whose_key_nobody_has_registered_is_not_let_in(host: FarTerminal) -> None:
    host.wire.as_new()
    nodes = host.nodes_there()
    stranger = host.start_stranger()
    assert stranger.wait(120) != 0
    assert "Failed to initialize the connection" in host.log("stranger")
    assert host.nodes_there() == nodes
