"""The thin client's benchmark measures real processes, and the thin executor stays within its target."""

from __future__ import annotations

import pytest

from benchmarks.deployment_thin import FIGURES, measure


@pytest.mark.slow
def test_a_thin_executor_needs_less_memory_than_the_target_and_more_than_one_that_does_nothing() -> None:
    found = measure(quick=True, with_torch=False)
    assert 0 < found["thin_worker_rss_mb"] <= 120
    assert found["thin_worker_whole_rss_mb"] > found["noop_worker_whole_rss_mb"] > 20
    assert set(found) <= {figure.key for figure in FIGURES} | {"noop_worker_whole_rss_mb"}
