"""Profiles, devices and links to plan for: small, by hand or drawn. Nothing here plans."""

from __future__ import annotations

import math

import numpy as np
from hypothesis import strategies as st

from flower_edge.splitting.capacity import Capacity, Cloud
from flower_edge.splitting.costs import CutCodecs
from flower_edge.splitting.plan import DeviceView
from flower_edge.splitting.profile import CutProfile, ModelProfile, UnitProfile

INT8 = CutCodecs("int8", {"kind": "affine", "bits": 8}, {"kind": "affine", "bits": 8}, 8.0, 8.0)
INT4 = CutCodecs("int4", {"kind": "affine", "bits": 4}, {"kind": "affine", "bits": 4}, 4.0, 4.0)


def profile_of(flops: list[float], values: list[int], parameters: int = 10) -> ModelProfile:
    """Units of so many training FLOPs a sample, and cuts of so many values; one more of these."""
    units = tuple(
        UnitProfile(f"u{at}", one / 3, 2 * one / 3, parameters=parameters, state_bytes=4 * parameters)
        for at, one in enumerate(flops)
    )
    cuts = tuple(CutProfile(at, ((one,),), (at > 0,), f"c{at}") for at, one in enumerate(values))
    return ModelProfile(units, cuts)


#: Four equal units and cuts that get smaller.
FOUR = profile_of([1e6] * 4, [1000, 4000, 2000, 1000, 10])


def device(flops_per_s: float = 1e9, bps: float = 1e8, delay_s: float = 0.0, memory: int | None = None) -> DeviceView:
    return DeviceView(Capacity(flops_per_s, bps, bps, delay_s, memory))


def resnet_profile() -> ModelProfile:
    """A ResNet of one block per stage, 8, 16 and 32 channels on 1 x 32 x 32, operation by operation."""
    units: list[UnitProfile] = []
    cuts = [CutProfile(0, ((1, 32, 32),), (False,), "input")]

    def add(name: str, flops: float, parameters: int, buffers: int, *shapes: tuple[int, ...]) -> None:
        backward = flops if not units else 2 * flops
        state = 4 * (parameters + buffers)
        units.append(UnitProfile(name, flops, backward, math.nan, math.nan, parameters, buffers, state))
        cuts.append(CutProfile(len(units), shapes, (True,) * len(shapes), name))

    add("conv", 2 * 9 * 8 * 1024, 72, 0, (8, 32, 32))
    add("bn", 0, 16, 17, (8, 32, 32))
    add("relu", 0, 0, 0, (8, 32, 32))
    before, side = 8, 32
    for after, stride in ((8, 1), (16, 2), (32, 2)):
        old, side = (before, side, side), side // stride
        new = (after, side, side)
        add("conv1", 2 * 9 * before * after * side**2, 9 * before * after, 0, new, old)
        add("bn1", 0, 2 * after, 2 * after + 1, new, old)
        add("relu1", 0, 0, 0, new, old)
        add("conv2", 2 * 9 * after**2 * side**2, 9 * after**2, 0, new, old)
        add("bn2", 0, 2 * after, 2 * after + 1, new, old)
        if stride > 1:
            add("down", 2 * before * after * side**2, before * after + 2 * after, 2 * after + 1, new, new)
        add("block", 0, 0, 0, new)
        before = after
    add("pool", 0, 0, 0, (32,))
    add("fc", 2 * 320, 330, 0, (10,))
    return ModelProfile(tuple(units), tuple(cuts), 32)


@st.composite
def profiles(draw: st.DrawFn, most_units: int = 6) -> ModelProfile:
    count = draw(st.integers(2, most_units))
    flops = draw(st.lists(st.integers(0, 50), min_size=count, max_size=count))
    values = draw(st.lists(st.integers(1, 3000), min_size=count + 1, max_size=count + 1))
    return profile_of([1e5 * one for one in flops], values)


@st.composite
def fleets(draw: st.DrawFn, most: int = 3) -> dict[int, DeviceView]:
    count = draw(st.integers(1, most))
    found = {}
    for number in range(count):
        flops, up, down = (10.0 ** draw(st.floats(low, high)) for low, high in ((7, 10), (6, 9), (6, 9)))
        behind = ("ap",) if draw(st.booleans()) else ()
        capacity = Capacity(flops, up, down, draw(st.sampled_from([0.0, 0.01])))
        found[3 * number] = DeviceView(capacity, up_links=behind, down_links=behind)
    return found


@st.composite
def clouds(draw: st.DrawFn) -> Cloud:
    up, down, ap = (draw(st.sampled_from([math.inf, 1e6, 1e7, 1e8])) for _ in range(3))
    return Cloud(10.0 ** draw(st.floats(8, 11)), up, down, {"ap": ap})


def speeds(seed: int, rounds: int) -> list[dict[int, DeviceView]]:
    """2, 1, 0.1 and 5 GFLOP/s at 0.4 to 1 of it, on 200, 100, 200 and 50 Mbit/s; a row per round."""
    drawn = np.random.default_rng(seed)
    found = []
    for _ in range(rounds):
        flops = np.array([2e9, 1e9, 0.1e9, 5e9]) * drawn.uniform(0.4, 1.0, 4)
        found.append({at: device(float(flops[at]), bps) for at, bps in enumerate((200e6, 100e6, 200e6, 50e6))})
    return found
