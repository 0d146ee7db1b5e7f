"""What the measurement of tuning compares: pairs that differ in one thing, and repeat."""

from __future__ import annotations

import pytest

from benchmarks.provision_tuning import NODES, RIGHT, TRIES, TuningRun, hyper_gain_points, run_tuning, same_work


def test_the_same_run_again_is_the_same_result() -> None:
    run = TuningRun("explore", RIGHT / 10.0, seed=1, steps=3, rounds=2)
    assert run_tuning(run) == run_tuning(run)


def test_work_is_counted_and_equal_where_it_is_said_to_be() -> None:
    search = TuningRun("search", RIGHT / 10.0, seed=0, steps=3, rounds=2)
    made = run_tuning(search).steps
    assert made == 3 * 2 * NODES * TRIES
    assert run_tuning(same_work(search, "fixed")).steps == made
    assert run_tuning(same_work(search, "explore")).steps == made


def test_without_reports_the_rate_stays_where_it_was_told() -> None:
    assert run_tuning(TuningRun("fixed", 0.04, seed=0, steps=2, rounds=2)).lr == pytest.approx(0.04)


@pytest.mark.slow
def test_reports_from_a_start_ten_times_off_gain_at_equal_rounds() -> None:
    assert hyper_gain_points(RIGHT / 10.0, range(2)) > 0.0
    assert hyper_gain_points(RIGHT / 10.0, range(2), "explore") > 0.0
