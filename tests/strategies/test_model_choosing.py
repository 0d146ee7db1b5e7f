"""Who is given which variant: in time, within memory, not to and fro; by group; as chosen."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from flower_edge.errors import ConfigError
from flower_edge.grouping import by_levels, by_value
from flower_edge.strategies.provision.by_load import ByLoad, by_load
from flower_edge.strategies.provision.choosing import AsChosen, ByGroup, Terminal
from flower_edge.submodels.catalogue import mlp_catalogue
from flower_edge.submodels.sizes import Size
from flower_edge.submodels.step_times import StepTimes

MODELS = mlp_catalogue([64, 256, 10], {"a": 1.0, "b": 0.5, "c": 0.25, "d": 0.125, "e": 0.0625})
FLOPS = {one.name: one.train_flops for one in MODELS}


def speeds(*step_s: float) -> StepTimes:
    """Terminals "0", "1", … that take so long for a step of the whole model."""
    times = StepTimes()
    for place, seconds in enumerate(step_s):
        times = times.noted(str(place), "a", seconds)
    return times


def names(choice: Any, times: StepTimes, terminals: dict[str, Terminal]) -> list[str]:
    return [given_.variant for given_ in choice.decide(MODELS, times, terminals).values()]


def alike(count: int, **known: Any) -> dict[str, Terminal]:
    return {str(place): Terminal(**{"steps": 10, **known}) for place in range(count)}


FIVE = speeds(1.0, 2.0, 4.0, 8.0, 16.0)


def test_five_classes_get_five_sizes_of_equal_time() -> None:
    decided = ByLoad("fastest").decide(MODELS, FIVE, alike(5))
    assert [one.variant for one in decided.values()] == ["a", "b", "c", "d", "e"]
    assert all(one.round_s == pytest.approx(10.0) for one in decided.values())


def test_with_the_median_half_of_all_have_the_whole_model() -> None:
    assert names(ByLoad(), FIVE, alike(5)) == ["a", "a", "a", "b", "c"]


def test_a_number_is_kept_by_whoever_can() -> None:
    decided = ByLoad(25.0).decide(MODELS, FIVE, alike(5))
    assert [one.variant for one in decided.values()] == ["a", "a", "b", "c", "d"]
    late = ByLoad(1.0).decide(MODELS, FIVE, alike(5))["4"]
    assert late.variant == "e"
    assert late.why == "the quickest: 10 s, more than 1 s"


def test_devices_that_are_alike_but_for_noise_all_get_the_whole_model() -> None:
    for deadline in ("fastest", "median"):
        assert names(ByLoad(deadline), speeds(1.0, 1.04, 1.09, 1.02), alike(4)) == ["a"] * 4  # type: ignore[arg-type]


def test_nobody_waits_for_a_shorter_round_than_the_slowest_can_make() -> None:
    # The slowest needs 100 s for the smallest: the second may as well train more.
    assert names(ByLoad("fastest"), speeds(1.0, 2.0, 160.0), alike(3)) == ["a", "a", "e"]


def test_a_load_makes_a_model_smaller_and_its_end_larger_again() -> None:
    choice = ByLoad(10.0)
    assert names(choice, speeds(1.0), {"0": Terminal(steps=10)}) == ["a"]
    assert names(choice, speeds(1.0), {"0": Terminal({"load": 0.5}, steps=10, before="a")}) == ["b"]
    assert names(choice, speeds(0.9), {"0": Terminal({"load": 0.0}, steps=10, before="b")}) == ["a"]


def test_a_slow_link_makes_a_model_smaller() -> None:
    bits = 8 * MODELS["a"].state_bytes
    terminals = {"0": Terminal(steps=10, up_bps=bits / 30.0, down_bps=bits / 30.0)}
    decided = ByLoad(35.0).decide(MODELS, speeds(1e-3), terminals)["0"]
    assert decided.variant == "b"
    assert decided.round_s == pytest.approx(60.0 * MODELS["b"].state_bytes / MODELS["a"].state_bytes, rel=1e-3)
    told = {"0": Terminal({"up_bps": bits / 30.0, "down_bps": bits / 30.0}, steps=10)}
    assert names(ByLoad(35.0), speeds(1e-3), told) == ["b"]


def test_what_does_not_fit_into_memory_is_not_given() -> None:
    free = 2 * MODELS["c"].train_bytes(32)
    assert names(ByLoad(), speeds(1.0), {"0": Terminal({"memory_free_bytes": free}, steps=10)}) == ["c"]
    none = ByLoad().decide(MODELS, speeds(1.0), {"0": Terminal({"memory_free_bytes": 1}, steps=10)})["0"]
    assert none.variant == "e"
    assert "no variant fits" in none.why


def test_at_the_edge_nobody_goes_to_and_fro() -> None:
    # 10 s for the whole model, a limit of 10 s, and a noise of 5 %.
    for deadline in (10.0, "fastest"):
        has, changes = "", 0
        for noise in (1.0, 1.04, 0.97, 1.05, 0.96, 1.03, 0.99, 1.05):
            times = speeds(noise, 1.0) if deadline == "fastest" else speeds(noise)
            given_ = ByLoad(deadline).decide(  # type: ignore[arg-type]
                MODELS, times, {"0": Terminal(steps=10, before=has), **({"1": Terminal(steps=10)} if has else {})}
            )["0"]
            changes += given_.variant != has
            has = given_.variant
        assert changes <= 2, deadline


def test_a_hard_deadline_is_not_stretched_and_a_soft_one_is() -> None:
    before = {"0": Terminal(steps=10, before="a")}
    assert names(ByLoad(10.0), speeds(1.05), before) == ["b"]
    both = {**before, "1": Terminal(steps=10, before="a")}
    assert names(ByLoad("fastest"), speeds(1.05, 1.0), both) == ["a", "a"]
    assert names(ByLoad("fastest"), speeds(1.15, 1.0), both) == ["b", "a"]


def test_of_whom_nothing_is_known_the_lightest_is_given_until_it_is() -> None:
    decided = ByLoad().decide(MODELS, FIVE, {**alike(5), "9": Terminal()})["9"]
    assert (decided.variant, decided.why) == ("e", "how long a round takes it is not known yet")
    assert names(ByLoad(unknown="b"), StepTimes(), alike(2)) == ["b", "b"]
    # Seconds cannot be kept where nobody knows how many steps a round has; that one is slower than another is known.
    assert names(ByLoad(20.0), FIVE, alike(5, steps=None)) == ["e"] * 5
    assert names(ByLoad("fastest"), FIVE, alike(5, steps=None)) == ["a", "b", "c", "d", "e"]


def test_steps_come_from_replies_else_from_examples_else_from_the_others() -> None:
    terminals = {
        "0": Terminal(steps=10),
        "1": Terminal({"num_examples": 10 * 32}),
        "2": Terminal(),
    }
    decided = ByLoad("fastest").decide(MODELS, speeds(1.0, 1.0, 1.0), terminals)
    assert [one.round_s for one in decided.values()] == pytest.approx([10.0, 10.0, 10.0])


@settings(max_examples=60, deadline=None)
@given(
    seconds=st.lists(st.floats(1e-3, 1e3), min_size=1, max_size=6),
    deadline=st.one_of(st.floats(1e-2, 1e4), st.sampled_from(["fastest", "median"])),
    before=st.sampled_from(["", *MODELS.names]),
)
def test_nobody_is_late_who_need_not_be(seconds: list[float], deadline: Any, before: str) -> None:
    times = speeds(*seconds)
    terminals = alike(len(seconds), before=before)
    soft = isinstance(deadline, str)
    whole = sorted(10 * s for s in seconds)
    if soft:
        slowest_s = max(10 * s * FLOPS["e"] / FLOPS["a"] for s in seconds)
        middle_s = (whole[(len(whole) - 1) // 2] + whole[len(whole) // 2]) / 2
        limit_s = max(whole[0] if deadline == "fastest" else middle_s, slowest_s)
    else:
        limit_s = deadline
    for key, one in ByLoad(deadline).decide(MODELS, times, terminals).items():
        assert one.round_s is not None
        quickest_s = 10 * seconds[int(key)] * FLOPS["e"] / FLOPS["a"]
        assert one.round_s <= max(limit_s * (1.1 if soft else 1.0), quickest_s) * (1 + 1e-6)
        # And nobody who was given a variant anew could have had a larger one in time.
        if not before and one.variant != "a":
            larger = MODELS.names[MODELS.place(one.variant) - 1]
            assert 10 * seconds[int(key)] * FLOPS[larger] / FLOPS["a"] > limit_s * (1 - 1e-6)


def test_groups_get_a_size_each() -> None:
    terminals = {"0": Terminal({"device": "phone"}), "1": Terminal({"device": "car"}), "2": Terminal()}
    choice = ByGroup(by_value("device"), {"phone": "d", "car": Size(0.5), "unknown": 0.25})
    choice.check(MODELS)
    assert names(choice, StepTimes(), terminals) == ["d", "b", "c"]
    levels = ByGroup(by_levels("load", [0.5], ["idle", "busy"]), {"idle": "a"}, other="e")
    assert names(levels, StepTimes(), {"0": Terminal({"load": 0.1}), "1": Terminal({"load": 0.9})}) == ["a", "e"]


def test_a_group_without_a_size_is_refused() -> None:
    with pytest.raises(ConfigError, match="group 'car' has no size"):
        ByGroup(by_value("device"), {"phone": "d"}).decide(MODELS, StepTimes(), {"0": Terminal({"device": "car"})})
    with pytest.raises(ConfigError, match="is not in the model list"):
        ByGroup(by_value("device"), {"phone": 0.3}).check(MODELS)
    with pytest.raises(ConfigError, match="no variant 'z'"):
        ByGroup(by_value("device"), {"phone": "d"}, other="z").check(MODELS)
    with pytest.raises(ConfigError, match="expected a grouping and sizes"):
        ByGroup(by_value("device"), {})


def test_what_is_not_on_the_list_is_not_given() -> None:
    decided = AsChosen("c").decide(
        MODELS, StepTimes(), {"0": Terminal(chosen="a"), "1": Terminal(chosen="z"), "2": Terminal()}
    )
    assert [(one.variant, one.why) for one in decided.values()] == [
        ("a", "its own choice"),
        ("c", "default"),
        ("c", "default"),
    ]
    with pytest.raises(ConfigError, match="no variant 'z'"):
        AsChosen("z").check(MODELS)


def test_known_times_assign_without_a_layer() -> None:
    assign = by_load(MODELS, FIVE, ByLoad("fastest", steps=10))
    assert [assign(1, str(place), {}).rate for place in range(5)] == [1.0, 0.5, 0.25, 0.125, 0.0625]
    assert assign(1, "0", {"load": 0.75}).rate < 1.0


@pytest.mark.parametrize(
    "how",
    [{"deadline": 0.0}, {"deadline": "soon"}, {"deadline": True}, {"steps": 0}, {"memory_share": 0}, {"hysteresis": 2}],
)
def test_arguments_out_of_their_range_are_refused(how: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match="expected"):
        ByLoad(**how)
