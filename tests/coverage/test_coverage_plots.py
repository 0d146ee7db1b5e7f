"""Pictures: they are what their names say, leave matplotlib's global state alone, and refuse what cannot be drawn."""

from __future__ import annotations

import subprocess
import sys
from itertools import pairwise
from pathlib import Path
from xml.etree import ElementTree as ET

import numpy as np
import pytest

from flower_edge.coverage import (
    ByPosition,
    Jumping,
    OutOfCoverage,
    PositionTrace,
    RandomWalk,
    Regions,
    plot_attachment,
    plot_map,
)
from flower_edge.coverage.drawing import colour, ink_on, new_figure, plain_log, stroke
from flower_edge.errors import ConfigError, DataError

pytest.importorskip("matplotlib")

from matplotlib.colors import to_rgb

#: One terminal goes from the left edge past the right one and out; one stands in the left.
CROSSING = ByPosition(
    PositionTrace([0, 0, 1], [0.0, 100.0, 0.0], [[0, 0], [400, 0], [10, 10]]),
    Regions(["left", "right"], [[0, 0], [200, 0]], radius_m=150),
)
TIMES_S = np.linspace(0, 100, 51)


def words_of(svg: Path) -> str:
    """matplotlib leaves the text of each label as a comment beside its glyphs."""
    parser = ET.XMLParser(target=ET.TreeBuilder(insert_comments=True))
    return " ".join(e.text or "" for e in ET.parse(svg, parser).iter() if e.tag is ET.Comment)


def test_a_map_names_its_cells_and_counts_handovers_and_who_is_out_of_coverage(tmp_path: Path) -> None:
    words = words_of(plot_map(CROSSING, TIMES_S, tmp_path / "new" / "map.svg"))
    for expected in ("left", "right", "x (m)", "handed over (1)", "out of coverage (1)", "2 terminals, 0 to 100 s"):
        assert expected in words
    words = words_of(plot_map(CROSSING, TIMES_S, tmp_path / "one.svg", nodes=[1], title="the one that stands"))
    for expected in ("the one that stands", "handed over (0)", "out of coverage (0)"):
        assert expected in words


def test_a_timeline_names_its_cells_and_counts_handovers(tmp_path: Path) -> None:
    words = words_of(plot_attachment(CROSSING, TIMES_S, tmp_path / "time.svg"))
    for expected in ("left", "right", "time (s)", "2 terminals, 1 handovers"):
        assert expected in words


def test_a_stretch_of_a_timeline_that_is_long_enough_has_its_cells_name(tmp_path: Path) -> None:
    # The legend, the one that crosses, and the one that stands.
    assert words_of(plot_attachment(CROSSING, TIMES_S, tmp_path / "time.svg")).split().count("left") == 3
    long = "longer-than-any-stretch-is-wide-" * 8
    trace = PositionTrace([0, 0], [0.0, 100.0], [[0, 0], [400, 0]])
    named_long = ByPosition(trace, Regions(["left", long], [[0, 0], [200, 0]], radius_m=150))
    words = words_of(plot_attachment(named_long, TIMES_S, tmp_path / "long.svg")).split()
    assert (words.count("left"), words.count(long)) == (2, 1)


def test_no_two_of_28_lines_look_alike_and_neighbours_differ_without_their_colour() -> None:
    looks = [stroke(number) for number in range(28)]
    assert len({(look["color"], look["linestyle"]) for look in looks}) == 28
    assert all(one["linestyle"] != other["linestyle"] for one, other in pairwise(looks))


def test_what_is_written_on_a_colour_can_be_read() -> None:
    def light(shade: str) -> float:
        parts = [(one / 12.92 if one <= 0.03928 else ((one + 0.055) / 1.055) ** 2.4) for one in to_rgb(shade)]
        return 0.2126 * parts[0] + 0.7152 * parts[1] + 0.0722 * parts[2]

    for number in range(7):
        low, high = sorted((light(colour(number)), light(ink_on(colour(number)))))
        assert (high + 0.05) / (low + 0.05) > 3


@pytest.mark.parametrize(
    ("low", "high", "expected"), [(0.3, 30_000.0, {"0.5", "1", "20,000"}), (1.1, 1.9, {"1.2", "1.8"})]
)
def test_a_logarithmic_axis_is_written_in_plain_numbers(low: float, high: float, expected: set[str]) -> None:
    figure, axes = new_figure("a picture", 4, 3)
    axes.plot([low, high], [1, 2])
    plain_log(axes, "x")
    figure.draw_without_rendering()
    shown = {
        text.get_text() for text, at in zip(axes.get_xticklabels(), axes.get_xticks(), strict=True) if low < at < high
    }
    assert expected <= shown
    assert not any("$" in text for text in shown)


def test_the_tables_beside_them_say_the_same_in_numbers(tmp_path: Path) -> None:
    plot_map(CROSSING, TIMES_S, tmp_path / "map.svg")
    assert (tmp_path / "map.csv").read_text().splitlines() == [
        "edge,x (m),y (m),radius (m),terminals at 100 s",
        "left,0,0,150,1",
        "right,200,0,150,0",
        "none,-,-,-,1",
    ]
    plot_attachment(CROSSING, TIMES_S, tmp_path / "time.svg")
    head, moved, stood = (line.split(",") for line in (tmp_path / "time.csv").read_text().splitlines())
    assert head == ["terminal", "handed over", "left", "right", "out of coverage"]
    assert stood == ["1", "0", "100%", "0%", "0%"]
    # At 4 m/s it leaves the left one after 150 m, unless the right one has it already, and the right one after 350 m.
    assert moved[:2] == ["0", "1"]
    shares = [int(share.rstrip("%")) for share in moved[2:]]
    assert sum(shares) == pytest.approx(100, abs=1)
    assert shares[2] == pytest.approx(12.5, abs=2)


def test_pictures_of_many_cells_and_of_absences_can_be_drawn_too(tmp_path: Path) -> None:
    many = ByPosition(RandomWalk(80, (500.0, 500.0), 5.0, 20.0, 0), Regions.grid(16, (500.0, 500.0)))
    for path in (
        plot_map(OutOfCoverage(many, 0.2, 20.0, 0), [0, 50], tmp_path / "map.png"),
        plot_attachment(many, [0, 50], tmp_path / "time.png"),
    ):
        assert path.read_bytes().startswith(b"\x89PNG")


def test_the_same_picture_is_the_same_file(tmp_path: Path) -> None:
    one, other = (plot_map(CROSSING, TIMES_S, tmp_path / f"{i}.png").read_bytes() for i in range(2))
    assert one == other


def test_drawing_imports_no_pyplot_and_importing_the_room_no_matplotlib(tmp_path: Path) -> None:
    code = (
        "import sys; from flower_edge.coverage import *\n"
        "assert 'matplotlib' not in sys.modules\n"
        "located = ByPosition(Still([[0, 0]]), Regions(['a'], [[0, 0]], 1))\n"
        "plot_map(located, [0, 1], 'map.png'); plot_attachment(located, [0, 1], 'time.png')\n"
        "assert 'matplotlib.pyplot' not in sys.modules\n"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr


def test_without_matplotlib_the_error_says_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    with pytest.raises(ConfigError, match=r"pip install 'flower-edge\[report\]'"):
        plot_map(CROSSING, TIMES_S, tmp_path / "map.png")


def test_what_cannot_be_drawn_is_refused_by_name(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"map\.gif is neither"):
        plot_map(CROSSING, TIMES_S, tmp_path / "map.gif")
    with pytest.raises(ConfigError, match="a map of Jumping"):
        plot_map(Jumping(["a"], 2, 0.0, 1.0, 0), TIMES_S, tmp_path / "map.png")
    with pytest.raises(DataError, match="at least two, ascending"):
        plot_attachment(CROSSING, [5.0, 5.0], tmp_path / "time.png")
    with pytest.raises(DataError, match="node 2 is not there"):
        plot_attachment(CROSSING, TIMES_S, tmp_path / "time.png", nodes=[2])
