"""The pictures of [1], FIGS. 8 to 11: that they are drawn, and what cannot be drawn."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("matplotlib", reason="pictures are drawn with matplotlib")

from flower_edge.control.figures_plot import (
    plot_accuracy_over_time,
    plot_device_accuracy,
    plot_latency,
    plot_regret,
)
from flower_edge.errors import ConfigError, DataError


def test_the_same_numbers_make_the_same_picture_and_others_another(tmp_path: Path) -> None:
    f_s = {"equal": np.linspace(2.0, 1.0, 30), "dcent": np.linspace(1.0, 0.2, 30)}
    one = plot_latency(f_s, tmp_path / "one.png").read_bytes()
    again = plot_latency(f_s, tmp_path / "again.png").read_bytes()
    other = plot_latency({**f_s, "dcent": np.linspace(1.0, 0.3, 30)}, tmp_path / "other.png").read_bytes()
    assert one.startswith(b"\x89PNG")
    assert one == again != other


def test_regret_is_drawn_of_what_was_lost_against_the_optimum_of_the_same_round(tmp_path: Path) -> None:
    """f and optimum shifted alike: the same regret, so the same picture."""
    f_s, optimum_s = np.full((2, 5), 3.0), np.full((2, 5), 1.0)
    one = plot_regret({"a": f_s}, {"a": optimum_s}, tmp_path / "one.png").read_bytes()
    shifted = plot_regret({"a": f_s + 4.0}, {"a": optimum_s + 4.0}, tmp_path / "shifted.png").read_bytes()
    larger = plot_regret({"a": f_s + 4.0}, {"a": optimum_s}, tmp_path / "larger.png").read_bytes()
    assert one == shifted != larger


def test_a_controller_without_regret_can_be_drawn(tmp_path: Path) -> None:
    none = np.ones(4)
    assert plot_regret({"optimum": none}, {"optimum": none}, tmp_path / "none.png").is_file()


def test_accuracies_of_several_seeds_are_a_band_that_one_seed_has_not(tmp_path: Path) -> None:
    rounds, accuracy = [3, 6, 9], np.array([0.1, 0.5, 0.9])
    single = plot_device_accuracy({"a": (rounds, accuracy)}, tmp_path / "single.svg")
    several = plot_device_accuracy({"a": (rounds, [accuracy - 0.05, accuracy, accuracy + 0.05])}, tmp_path / "some.svg")
    assert several.read_text().count("FillBetween") > single.read_text().count("FillBetween")


def test_what_was_never_read_is_left_out(tmp_path: Path) -> None:
    curves = {"a": ([0.0, 1.0, 2.0], [[0.1, np.nan, 0.9], [0.2, np.nan, np.nan]]), "b": ([0.0], [np.nan])}
    assert plot_accuracy_over_time(curves, tmp_path / "gaps.png", until_s=1.5).is_file()


def test_numbers_that_do_not_fit_are_refused_by_name(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="dcent: 2 points across and 3 up"):
        plot_device_accuracy({"dcent": ([1, 2], [0.1, 0.2, 0.3])}, tmp_path / "x.png")
    with pytest.raises(DataError, match=r"give \[points\] or \[seeds, points\]"):
        plot_latency({"dcent": np.zeros((2, 2, 2))}, tmp_path / "x.png")
    with pytest.raises(DataError, match="give at least one controller"):
        plot_latency({}, tmp_path / "x.png")
    with pytest.raises(ConfigError, match=r"neither \.png nor \.svg"):
        plot_latency({"dcent": np.ones(3)}, tmp_path / "x.jpg")


def test_the_table_beside_a_picture_has_a_line_for_each_place_across(tmp_path: Path) -> None:
    plot_latency({"equal": [[1.0, 2.0], [3.0, 4.0]], "other": [0.5, np.nan]}, tmp_path / "f.png")
    lines = (tmp_path / "f.csv").read_text().splitlines()
    assert lines == ["round,equal,other", "1,2,0.5", "2,3,-"]
