"""Pictures: they are what their names say, leave matplotlib's global state alone, and refuse what cannot be drawn."""

from __future__ import annotations

import subprocess
import sys
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
from flower_edge.errors import ConfigError, DataError

pytest.importorskip("matplotlib")

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
