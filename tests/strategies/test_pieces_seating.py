"""Who sits where, and who takes whose piece: laws of pure functions."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from flower_edge.errors import NotEnoughNodes
from flower_edge.splitting.chain import Machine
from flower_edge.splitting.costs import Job, memory_bytes
from flower_edge.splitting.profile import CutProfile, ModelProfile, UnitProfile
from flower_edge.strategies.pieces.reseating import Room, reseated
from flower_edge.strategies.pieces.seating import Chain, Terminal, seat_chains

UNITS = 6
PROFILE = ModelProfile(
    tuple(UnitProfile(f"unit-{i}", 10.0, 20.0, parameters=5, state_bytes=20) for i in range(UNITS)),
    tuple(CutProfile(i, ((4,),), (i > 0,), f"cut-{i}") for i in range(UNITS + 1)),
)
ROOM = Room(PROFILE, Job(batch_size=2))


@st.composite
def crews(draw: st.DrawFn) -> list[Terminal]:
    """Terminals of two edges, of which some have samples."""
    return [
        Terminal(
            number, 100 + number, Machine(1e6 * draw(st.integers(1, 5))), draw(st.integers(0, 2)), edge=draw(EDGES)
        )
        for number in range(draw(st.integers(0, 12)))
    ]


EDGES = st.sampled_from(["a", "b"])


@settings(max_examples=60, deadline=None)
@given(crews(), st.integers(1, 3), st.integers(1, 3))
def test_nobody_sits_twice_and_every_chain_is_whole(crew: list[Terminal], first: int, second: int) -> None:
    need = {"a": first, "b": second}
    of = {edge: [one for one in crew if one.edge == edge] for edge in need}
    possible = min(len(of["a"]) // first, len(of["b"]) // second, sum(one.samples > 0 for one in of["a"]))
    if not possible:
        with pytest.raises(NotEnoughNodes):
            seat_chains(crew, need)
        return
    seating = seat_chains(crew, need)
    assert len(seating.chains) == possible
    seated = [one.number for chain in seating.chains for one in chain.terminals]
    assert sorted(seated + [one.number for one in seating.spares]) == [one.number for one in crew]
    for chain in seating.chains:
        assert [one.edge for one in chain.terminals] == ["a"] * first + ["b"] * second
        assert chain.terminals[0].samples > 0
        assert chain.number == chain.terminals[0].number


@st.composite
def broken(draw: st.DrawFn) -> tuple[Chain, set[int], list[Terminal]]:
    """A chain some of whose terminals are gone, and spares."""
    cuts = sorted(draw(st.sets(st.integers(1, UNITS - 1), max_size=4)))
    ends = [0, *cuts, UNITS]
    spans = tuple(pairwise(ends))

    def made(number: int) -> Terminal:
        memory = draw(st.sampled_from([None, 150, 300]))
        return Terminal(number, 100 + number, Machine(1e6, memory), 1, loads=draw(st.booleans()))

    chain = Chain(0, tuple(made(number) for number in range(len(spans))), 0, spans)
    lost = draw(st.sets(st.integers(0, len(spans) - 1), min_size=1))
    return chain, lost, [made(20 + number) for number in range(draw(st.integers(0, 3)))]


@settings(max_examples=100, deadline=None)
@given(broken())
def test_after_a_loss_all_units_are_held_once_by_somebody_who_can(case: tuple[Chain, set[int], list[Terminal]]) -> None:
    chain, lost, spares = case
    found = reseated(chain, lost, spares, ROOM, "segments")
    assert found.told
    if found.chain is None:
        return
    spans, terminals = found.chain.spans, found.chain.terminals
    assert [unit for start, stop in spans for unit in range(start, stop)] == list(range(UNITS))
    gone = {chain.terminals[place].number for place in lost}
    assert not gone & {one.number for one in terminals}
    kept = {one.number: span for one, span in zip(chain.terminals, chain.spans, strict=True)}
    for one, span in zip(terminals, spans, strict=True):
        if kept.get(one.number) != span:
            assert ROOM.fits(one, span)
            assert span[0] > 0 or one.loads
    names = [one.number for one in terminals]
    assert len(set(names)) == len(names)
    assert not set(names) & {one.number for one in found.spares}


def test_whoever_fills_a_place_may_take_the_next_one_as_well() -> None:
    crew = tuple(Terminal(n, 100 + n, Machine(1e6), loads=True) for n in range(3))
    chain = Chain(0, crew, 0, ((0, 2), (2, 4), (4, UNITS)))
    for lost, left in (({0, 1}, 2), ({0, 2}, 1), ({1, 2}, 0)):
        found = reseated(chain, lost, (), ROOM, "segments").chain
        assert found is not None
        assert ([one.number for one in found.terminals], found.spans) == ([left], ((0, UNITS),))


def test_the_memory_of_the_whole_model_is_that_which_planners_reckon_with() -> None:
    values = 4 * 2 * 4
    assert ROOM.needed_bytes((0, UNITS)) == memory_bytes(PROFILE, UNITS, Job(batch_size=2))
    assert ROOM.needed_bytes((0, 2)) + ROOM.needed_bytes((2, UNITS)) == ROOM.needed_bytes((0, UNITS)) + values
