"""Tables beside pictures, and who was refused and rewarded: on the report page, bounded, and as text."""

from __future__ import annotations

import base64
import csv
import re
from collections.abc import Sequence
from pathlib import Path

import pytest
from test_cli_report import Page

from flower_edge.cli.picture_tables import MOST_COLUMNS, MOST_LINES, PictureTable, table_beside
from flower_edge.cli.pictures import pictures_in
from flower_edge.cli.report import write_report
from flower_edge.events import Event
from flower_edge.monitoring.standing import standing
from flower_edge.store import RunFolder

#: One white pixel.
PNG = base64.b64decode(
    "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mP8z8BQDwAEhQGAhKmMIQAAAABJRU5ErkJggg=="
)


def with_table(folder: Path, rows: Sequence[Sequence[str]], name: str = "who-did-what") -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / f"{name}.png").write_bytes(PNG)
    with (folder / f"{name}.csv").open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows(rows)
    return folder / f"{name}.png"


def table(picture: Path) -> PictureTable:
    found = table_beside(picture)
    assert isinstance(found, PictureTable)
    return found


def told(tmp_path: Path) -> RunFolder:
    """A run of two rounds at one edge and a centre in which somebody was refused and somebody paid."""
    with RunFolder.create("told", config={}, seed=7, root=tmp_path) as run:
        for number in (1, 2, 4):
            run.record("central", number, {"accuracy": number / 8})
            run.record(
                "event",
                number,
                Event("refused", "5 sent <NaN>", values={"code": "not-finite"}).row(),
                node="5",
                cell="edge-0",
                edge_round=1,
            )
            for node, edge_round, micro in (("12", 1, 1_000_001), ("3", 1, 0), ("12", 0, 5)):
                row = Event("rewarded", "paid", values={"micro": micro}).row()
                run.record("event", number, row, node=node, cell="edge-0", edge_round=edge_round)
        row = Event("refused", "edge-0 is worse than nothing", values={"code": "held-out"}).row()
        run.record("event", 2, row, node="edge-0")
        run.finish({})
    return RunFolder.open(run.path)


def test_a_csv_of_a_pictures_name_is_the_table_beside_it_on_the_page(tmp_path: Path) -> None:
    run = told(tmp_path)
    with_table(run.artifacts, [["who", "what <b>"], ["terminal 1", "sent, twice"]])
    (run.artifacts / "alone.png").write_bytes(PNG)
    (run.artifacts / "rows.csv").write_text("a,b\n1,2\n")
    text = write_report(run)[0].read_text("utf-8")
    page = Page(text)
    assert page.tables["who did what (who-did-what.csv)"] == [["who", "what <b>"], ["terminal 1", "sent, twice"]]
    assert not any("rows" in caption for caption in page.tables)
    alts = [attributes["alt"] for tag, attributes in page.tags if tag == "img"]
    assert alts == ["who did what; the table has its numbers", "alone"]


def test_a_page_without_pictures_of_its_own_has_no_place_for_them(tmp_path: Path) -> None:
    text = write_report(told(tmp_path))[0].read_text("utf-8")
    assert "Pictures of this run" not in text
    assert "<img" not in text


def test_a_long_table_is_cut_and_says_so(tmp_path: Path) -> None:
    wide = [[f"column {k}" for k in range(MOST_COLUMNS + 3)]]
    long = [["1"] * (MOST_COLUMNS + 3) for _ in range(MOST_LINES + 1_000)]
    found = table(with_table(tmp_path, [*wide, *long]))
    assert (len(found.lines), len(found.head)) == (MOST_LINES, MOST_COLUMNS)
    assert found.note == "1,000 lines and 3 columns more in who-did-what.csv"
    assert all(len(line) == MOST_COLUMNS for line in found.lines)


def test_lines_of_unequal_length_make_a_rectangle_and_long_cells_are_cut(tmp_path: Path) -> None:
    found = table(with_table(tmp_path, [["a", "b"], ["1"], [], ["1", "x" * 1000, "3"]]))
    assert found.head == ("a", "b", "")
    assert found.lines[0] == ("1", "", "")
    assert len(found.lines) == 2
    assert len(found.lines[1][1]) == 300
    assert found.note == ""


def test_numbers_are_set_as_numbers_and_sentences_as_words(tmp_path: Path) -> None:
    numbers = [["round", "all", "gate"], ["0", "0.1", "-"], ["1", "-1e-3", "1,234"], ["2", "50 %", "7"]]
    assert (table(with_table(tmp_path, numbers)).words, table(with_table(tmp_path, numbers)).kind) == (False, "")
    assert table(with_table(tmp_path, [["who", "why"], ["1", "sent NaN"]])).kind == "words told"
    why = "sent NaN in round 1, and then in each of the others"
    assert table(with_table(tmp_path, [["who", "why"], ["1", why]])).kind == "words told sentences"


def test_columns_of_numbers_are_set_to_the_right_also_in_a_table_of_words(tmp_path: Path) -> None:
    run = told(tmp_path)
    with_table(
        run.artifacts, [["terminal", "fault", "credits", "none"], ["1", "noise", "-3.5", "-"], ["2", "-", "-", "-"]]
    )
    text = write_report(run)[0].read_text("utf-8")
    assert re.findall(r'<th scope="col" class="num">([^<]*)', text) == ["credits", "times", "times paid", "credits"]
    assert re.findall(r'<td class="num">([^<]*)', text)[:2] == ["-3.5", "-"]


def test_a_table_of_many_columns_is_below_its_picture(tmp_path: Path) -> None:
    run = told(tmp_path)
    with_table(run.artifacts, [["round"] + ["x"] * 5, ["1"] * 6], "beside")
    with_table(run.artifacts, [["round"] + ["x"] * 6, ["1"] * 7], "below")
    text = write_report(run)[0].read_text("utf-8")
    places = re.findall(r'<div class="(\w+) tabled">.*?<code>([^<]*)</code>', text, re.DOTALL)
    assert places == [("stacked", "below.png"), ("pair", "beside.png")]


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b"", "empty"),
        (b"\xff\xfe\x00a", "no CSV of UTF-8 text"),
        (b"a,b\n" + b"1,2\n" * 300_000, "1.2 MB, more than the 1 MB a table may have here"),
    ],
    ids=["empty", "no text", "too large"],
)
def test_a_table_that_cannot_be_shown_is_named_and_its_picture_stays(tmp_path: Path, content: bytes, says: str) -> None:
    with_table(tmp_path, []).with_suffix(".csv").write_bytes(content)
    pictures, notes = pictures_in(tmp_path)
    assert [(picture.name, picture.table) for picture in pictures] == [("who-did-what.png", None)]
    assert len(notes) == 1
    assert notes[0].startswith("who-did-what.csv")
    assert says in notes[0]


def test_the_page_says_who_was_refused_when_and_why_and_who_was_paid(tmp_path: Path) -> None:
    page = Page(write_report(told(tmp_path))[0].read_text("utf-8"))
    assert page.tables["Replies that were refused, by node and code"] == [
        ["node", "at", "code", "times", "rounds", "why, the first time"],
        ["5", "edge-0", "not-finite", "3", "1-2 4", "5 sent <NaN>"],
        ["edge-0", "centre", "held-out", "1", "2", "edge-0 is worse than nothing"],
    ]
    assert page.tables["Credits by node and payer, from the events of this run"] == [
        ["node", "payer", "times paid", "credits"],
        ["3", "edge-0", "0", "0.000000"],
        ["12", "centre", "3", "0.000015"],
        ["12", "edge-0", "3", "3.000003"],
    ]


def test_a_run_that_refused_and_paid_nobody_has_no_such_section(tmp_path: Path) -> None:
    with RunFolder.create("quiet", config={}, seed=7, root=tmp_path) as run:
        run.record("central", 1, {"accuracy": 0.5})
        run.event(1, "nothing special")
        run.finish({})
    assert "Refused and rewarded" not in write_report(run)[0].read_text("utf-8")


def test_very_many_refusals_are_bounded_and_the_page_says_how_many_more_there_are(tmp_path: Path) -> None:
    with RunFolder.create("many", config={}, seed=7, root=tmp_path) as run:
        for number in range(1, 251):
            row = Event("refused", "x" * 900, values={"code": "norm"}).row()
            run.record("event", number, row, node=str(number))
        run.finish({})
    found = standing(run)
    assert len(found.refused) == 200
    assert found.notes == ("50 more lines of refusals",)
    assert {line[1] for line in found.refused} == {"server"}
    assert max(len(line[-1]) for line in found.refused) == 300
