"""What a radio is made of: path loss, shadows, Shannon, and how long nodes compute before they send."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from flower_edge.errors import ConfigError, DataError
from flower_edge.topology.path_loss import D2D_NLOS, MACRO, WINNER_LOS, PathLoss, PowerLaw, WinnerLos
from flower_edge.topology.processing import GivenProcessing, NormalProcessing, draw_means_s
from flower_edge.topology.shadowing import Shadowing
from flower_edge.topology.shannon import ShannonRadio, shannon
from flower_edge.topology.topology import Topology
from flower_edge.units import db_to_ratio, db_to_ratios, dbm_to_w, dbm_to_ws, ratio_to_db

MODELS: list[PathLoss] = [D2D_NLOS, MACRO, WINNER_LOS, WinnerLos(heights_m=(1.5, 1.5))]


def loss_db(model: PathLoss, distance_m: float) -> float:
    return -ratio_to_db(float(model.gain_ratio(distance_m)))


def test_units_of_arrays_are_those_of_single_values() -> None:
    values = np.array([-174.0, 0.0, 23.0])
    np.testing.assert_allclose(db_to_ratios(values), [db_to_ratio(value) for value in values], rtol=1e-13)
    np.testing.assert_allclose(dbm_to_ws(values), [dbm_to_w(value) for value in values], rtol=1e-13)


# -- path loss ---------------------------------------------------------------------------------------------------------


def test_losses_are_those_of_the_named_models() -> None:
    assert loss_db(D2D_NLOS, 100.0) == pytest.approx(148 - 40)
    assert loss_db(MACRO, 100.0) == pytest.approx(128.1 - 37.6)
    five_ghz = WinnerLos(carrier_hz=5e9)
    assert five_ghz.breakpoint_m == pytest.approx(300.0)
    assert loss_db(five_ghz, 100.0) == pytest.approx(41.0 + 2 * 22.7)
    assert loss_db(five_ghz, 1000.0) == pytest.approx(120 + 9.45 - 17.3 * math.log10(9) - 17.3 * math.log10(0.5))


def test_a_macro_cell_is_milder_than_devices_without_line_of_sight_at_every_distance() -> None:
    distance_m = np.geomspace(0.1, 1e7, 50)
    assert (MACRO.gain_ratio(distance_m) > D2D_NLOS.gain_ratio(distance_m)).all()


@given(st.sampled_from(MODELS), st.floats(0, 5e3), st.floats(0, 5e3))
def test_power_never_grows_with_distance_nor_exceeds_what_was_sent(model: PathLoss, one_m: float, two_m: float) -> None:
    near, far = model.gain_ratio([min(one_m, two_m), max(one_m, two_m)])
    # The document rounds its constants: at the breakpoint the two lines miss each other by a few hundredths of a dB.
    assert 0 < far <= near * db_to_ratio(0.05)
    assert near < 1


@pytest.mark.parametrize("heights_m", [(10.0, 1.5), (1.8, 1.8), (5.0, 3.0)])
def test_the_two_lines_of_winner_meet_at_the_breakpoint(heights_m: tuple[float, float]) -> None:
    model = WinnerLos(heights_m=heights_m)
    at_m = model.breakpoint_m
    assert abs(loss_db(model, at_m * (1 + 1e-9)) - loss_db(model, at_m * (1 - 1e-9))) < 0.05


def test_nearer_than_the_least_distance_counts_as_the_least() -> None:
    assert D2D_NLOS.gain_ratio(0.0) == D2D_NLOS.gain_ratio(1.0)
    assert WINNER_LOS.gain_ratio(3.0) == WINNER_LOS.gain_ratio(10.0)


def test_path_losses_out_of_range_are_refused() -> None:
    with pytest.raises(ConfigError, match="per_decade_db = 0"):
        PowerLaw(100.0, 0.0)
    with pytest.raises(ConfigError, match="heights above 1 m"):
        WinnerLos(heights_m=(10.0, 1.0))


# -- shadowing ---------------------------------------------------------------------------------------------------------

PAIRS = Topology.complete(60)


def test_shadows_are_normal_in_decibels_and_the_same_both_ways() -> None:
    gain = Shadowing(7.0, seed=3).gain_ratio(PAIRS.receiver, PAIRS.sender, 1)
    np.testing.assert_array_equal(gain, gain[PAIRS.reverse_link])
    drawn_db = 10 * np.log10(gain[PAIRS.receiver < PAIRS.sender])
    assert stats.kstest(drawn_db, stats.norm(scale=7.0).cdf).pvalue > 0.01


def test_without_symmetry_both_ways_are_drawn_for_themselves() -> None:
    gain = Shadowing(7.0, seed=3, symmetric=False).gain_ratio(PAIRS.receiver, PAIRS.sender, 1)
    assert abs(np.corrcoef(np.log(gain), np.log(gain[PAIRS.reverse_link]))[0, 1]) < 0.1


def test_shadows_stay_for_as_many_rounds_as_asked() -> None:
    ends = PAIRS.receiver, PAIRS.sender
    for_ever, now_and_then = Shadowing(7.0, 1), Shadowing(7.0, 1, redrawn_every=3)
    first = now_and_then.gain_ratio(*ends, 1)
    np.testing.assert_array_equal(now_and_then.gain_ratio(*ends, 3), first)
    assert (now_and_then.gain_ratio(*ends, 4) != first).all()
    np.testing.assert_array_equal(for_ever.gain_ratio(*ends, 99), for_ever.gain_ratio(*ends, 1))


def test_a_shadow_belongs_to_its_pair_whatever_else_there_is() -> None:
    shadowing = Shadowing(7.0, seed=5)
    all_of_them = PAIRS.dense(shadowing.gain_ratio(PAIRS.receiver, PAIRS.sender, 1))
    assert shadowing.gain_ratio(np.array([7]), np.array([33]), 1) == all_of_them[7, 33]
    assert len(np.unique(all_of_them)) == 60 * 59 // 2 + 1  # every pair its own, and the diagonal


def test_shadows_out_of_range_are_refused() -> None:
    with pytest.raises(ConfigError, match="sd_db = -1"):
        Shadowing(-1.0, 0)
    with pytest.raises(ConfigError, match="redrawn_every = 0"):
        Shadowing(7.0, 0, redrawn_every=0)


# -- processing --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("mean_s", "sd_s"), [(1.0, 0.5), (0.2, 0.5), (1.9, 0.33)])
def test_times_follow_the_normal_distribution_cut_off_at_its_limits(mean_s: float, sd_s: float) -> None:
    drawn_s = NormalProcessing(20_000, mean_s, sd_s, seed=0).processing_s(7)
    expected = stats.truncnorm((0.01 - mean_s) / sd_s, (2.0 - mean_s) / sd_s, mean_s, sd_s)
    assert stats.kstest(drawn_s, expected.cdf).pvalue > 0.01
    assert len(np.unique(drawn_s)) > 19_990, "nothing may be heaped up on the limits"


def test_the_slowest_of_fifteen_takes_1_74_seconds_on_average() -> None:
    slowest_s = [NormalProcessing(15, seed=seed).processing_s(t).max() for seed in range(8) for t in range(1, 151)]
    assert np.mean(slowest_s) == pytest.approx(1.74, abs=0.02)


def test_times_are_looked_up_in_any_order_and_for_any_number_of_nodes() -> None:
    few, many = NormalProcessing(4, seed=2), NormalProcessing(40, seed=2)
    later, first = few.processing_s(9), few.processing_s(1)
    np.testing.assert_array_equal(many.processing_s(1)[:4], first)
    np.testing.assert_array_equal(many.processing_s(9)[:4], later)
    assert (first != later).all()
    assert (NormalProcessing(4, seed=3).processing_s(1) != first).all()


def test_devices_that_are_slow_for_good_stay_slow() -> None:
    means_s = draw_means_s(200, 0.4, 1.6, seed=1)
    assert 0.4 <= means_s.min() < 0.45
    assert 1.55 < means_s.max() <= 1.6
    times_s = NormalProcessing(200, means_s, 0.2, seed=1)
    assert np.corrcoef(times_s.processing_s(1), times_s.processing_s(100))[0, 1] > 0.6
    same_for_all = NormalProcessing(200, 1.0, 0.2, seed=1)
    assert abs(np.corrcoef(same_for_all.processing_s(1), same_for_all.processing_s(100))[0, 1]) < 0.2


def test_limits_that_leave_nothing_are_refused_and_so_is_a_spread_of_0() -> None:
    with pytest.raises(ConfigError, match="puts next to nothing between the limits"):
        NormalProcessing(3, mean_s=10.0, sd_s=0.1, seed=0)
    with pytest.raises(ConfigError, match="GivenProcessing for times that are always the same"):
        NormalProcessing(3, sd_s=0.0, seed=0)
    with pytest.raises(ConfigError, match="rounds count from 1"):
        NormalProcessing(3, seed=0).processing_s(0)
    with pytest.raises(ConfigError, match="lower one first"):
        NormalProcessing(3, low_s=2.0, high_s=1.0, seed=0)
    with pytest.raises(ConfigError, match="lower one first"):
        draw_means_s(3, 1.6, 0.4, seed=0)
    with pytest.raises(ConfigError, match="finite limits"):
        draw_means_s(3, 1.0, np.inf, seed=0)


def test_recorded_times_are_played_as_they_are_silence_included() -> None:
    times_s = GivenProcessing([[1.0, 2.0], [np.nan, 0.5]])
    np.testing.assert_array_equal(times_s.processing_s(2), [np.nan, 0.5])
    with pytest.raises(DataError, match="times of 2 rounds were given"):
        times_s.processing_s(3)
    np.testing.assert_array_equal(GivenProcessing([[1.0], [2.0]], repeat=True).processing_s(4), [2.0])
    with pytest.raises(DataError, match=r"times_s\[0, 1\] = 0.0"):
        GivenProcessing([[1.0, 0.0]])
    with pytest.raises(DataError, match="a row of times for each round"):
        GivenProcessing([1.0, 2.0])
    with pytest.raises(DataError, match="as many numbers in every row"):
        GivenProcessing([[1.0, 2.0], [3.0]])  # type: ignore[list-item]


# -- Shannon -----------------------------------------------------------------------------------------------------------

PAIR = Topology.complete(2, [[0, 0], [100, 0]])
BUDGET_HZ = np.array([20e6, 20e6])


def efficiency(radio: ShannonRadio, budget_hz: np.ndarray = BUDGET_HZ) -> np.ndarray:
    assert PAIR.positions_m is not None
    return radio.over(PAIR, PAIR.positions_m, budget_hz, None).spectral_efficiency


def test_a_link_worked_out_by_hand() -> None:
    # 23 dBm - 108 dB = -85 dBm arrive; noise is -174 dBm/Hz over 20 MHz (73.01 dB) = -100.99 dBm; SNR 15.99 dB.
    snr = db_to_ratio(23 - 108 + 174) / 20e6
    np.testing.assert_allclose(efficiency(ShannonRadio()), [math.log2(1 + snr)] * 2, rtol=1e-12)
    assert efficiency(ShannonRadio())[0] == pytest.approx(5.35, abs=0.01)


@settings(max_examples=30)
@given(st.floats(-20, 20), st.floats(1e5, 1e9))
def test_decibels_of_power_noise_and_band_are_worth_the_same(more_db: float, budget_hz: float) -> None:
    band = np.full(2, budget_hz)
    louder = efficiency(ShannonRadio(tx_dbm=23 + more_db), band)
    np.testing.assert_allclose(efficiency(ShannonRadio(noise_figure_db=-more_db), band), louder, rtol=1e-9)
    np.testing.assert_allclose(efficiency(ShannonRadio(), band / db_to_ratio(more_db)), louder, rtol=1e-9)


def test_a_louder_sender_is_heard_better_than_it_hears() -> None:
    radio = ShannonRadio(tx_dbm=[23.0, 33.0])
    into_0, into_1 = efficiency(radio)
    np.testing.assert_array_equal(into_1, efficiency(ShannonRadio())[1])
    assert into_0 > into_1
    worse_ears = efficiency(ShannonRadio(noise_figure_db=[0.0, 9.0]))
    assert worse_ears[1] < worse_ears[0] == efficiency(ShannonRadio())[0]


def test_links_that_are_capped_too_weak_or_too_long() -> None:
    np.testing.assert_array_equal(efficiency(ShannonRadio(cap=5.0)), [5.0, 5.0])
    np.testing.assert_array_equal(efficiency(ShannonRadio(least=5.4)), [0.0, 0.0])
    np.testing.assert_array_equal(efficiency(ShannonRadio(range_m=99.0)), [0.0, 0.0])
    assert (efficiency(ShannonRadio(range_m=100.0, least=5.3)) > 5.3).all()
    assert PAIR.positions_m is not None
    out = ShannonRadio(range_m=99.0).over(PAIR, PAIR.positions_m, BUDGET_HZ, None)
    np.testing.assert_array_equal(out.carrier, [-1, -1])


def test_a_hopeless_link_still_carries_its_trickle() -> None:
    assert shannon(1e-20) == pytest.approx(1e-20 / math.log(2))


def test_radios_out_of_range_are_refused() -> None:
    for wrong, words in (
        ({"tx_dbm": math.inf}, "tx_dbm = inf; give finite decibels"),
        ({"cap": 0.0}, "cap = 0.0; give a number above 0"),
        ({"least": 8.0, "cap": 7.4}, "not above the cap"),
    ):
        with pytest.raises(ConfigError, match=words):
            ShannonRadio(**wrong)
    with pytest.raises(ConfigError, match=r"tx_dbm has shape \(3,\)"):
        efficiency(ShannonRadio(tx_dbm=[23.0, 23.0, 23.0]))
