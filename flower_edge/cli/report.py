"""`flower-edge report`: one HTML page and its pictures from a run folder.

The page stands alone: style and pictures are inside it, it asks no server for anything. Nothing here computes a
result; it shows what was recorded.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from importlib import resources
from pathlib import Path
from typing import Annotated, Any, Final

import typer

from ..errors import ConfigError
from ..monitoring.attendance import attendance, sentences
from ..monitoring.happenings import Happening, Timeline, by_round, happenings, shown, timeline
from ..monitoring.links import by_bandwidth
from ..monitoring.overview import duration_s
from ..monitoring.rounds import RoundLine, cells_of, latest, rounds_of, total
from ..monitoring.run_state import RunState
from ..monitoring.standing import standing
from ..store.atomic import write_bytes
from ..store.run_folder import RunFolder
from .charts import charts_of, save_png, timeline_chart, to_svg
from .columns import count, rate, ratio, seconds, traffic
from .picture_tables import numeric_columns
from .pictures import pictures_in
from .runs import RootOption
from .table import took_s

__all__ = ["register", "write_report"]

#: For each picture the columns of the table beside it: title, field, how to write it.
_COLUMNS: Final[Mapping[str, tuple[tuple[str, str, Callable[[float | None], str]], ...]]] = {
    "accuracy-by-round": (("accuracy", "accuracy", ratio), ("loss", "loss", ratio)),
    "accuracy-by-wall-time": (("time", "wall_s", seconds), ("accuracy", "accuracy", ratio)),
    "accuracy-by-virtual-time": (("virtual time", "virtual_s", seconds), ("accuracy", "accuracy", ratio)),
    "bytes-by-round": (("up", "up_bits", traffic), ("down", "down_bits", traffic)),
    "nodes-by-round": (
        ("sampled", "nodes_sampled", count),
        ("replied", "nodes_replied", count),
        ("failed", "nodes_failed", count),
        ("cells skipped", "cells_skipped", count),
    ),
    "divergence-by-round": (
        ("mean", "divergence", ratio),
        ("farthest edge", "divergence_max", ratio),
        ("edge rounds", "edge_rounds", count),
    ),
    "links-by-round": (
        ("links", "links", count),
        ("mean", "link_mean_s", seconds),
        ("slowest", "link_slowest_s", seconds),
    ),
}
#: Columns of the list of events; one in which nothing was recorded is left out.
_EVENT_COLUMNS: Final[tuple[tuple[str, Callable[[Happening], str]], ...]] = (
    ("round", lambda event: str(event.round)),
    ("virtual time", lambda event: "" if event.virtual_s is None else seconds(event.virtual_s)),
    ("after", lambda event: "" if event.wall_s is None else seconds(event.wall_s)),
    ("what", lambda event: event.what),
    ("terminal", lambda event: event.node),
    ("cell", lambda event: event.cell),
    ("edge round", lambda event: str(event.edge_round or "")),
    ("in words", lambda event: event.text),
)
#: Longer lists of events than this are folded.
_MOST_OPEN: Final = 20
#: Links that are listed, those with the least bandwidth.
_MOST_LINKS: Final = 100
_CELL_COLUMNS: Final[tuple[tuple[str, str, Callable[[float | None], str]], ...]] = (
    ("counted in rounds", "rounds", count),
    ("accuracy", "accuracy", ratio),
    ("loss", "loss", ratio),
    ("examples", "examples", count),
    ("up", "up_bits", traffic),
    ("down", "down_bits", traffic),
)


def register(app: typer.Typer) -> None:
    """Add the verb to the command line."""
    app.command("report")(report)


def report(
    which: Annotated[str, typer.Argument(metavar="RUN", help="A run folder, the beginning of its name, or `latest`.")],
    root: RootOption = None,
    out: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Folder for the page; else the run's own artifacts/.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON document and nothing else.")] = False,
) -> None:
    """Write a page about a run: report.html, which needs no other file, and its pictures as PNG.

    Exit code: 0.

    Example: flower-edge report latest --out ~/public
    """
    run = RunFolder.open(which, root)
    page, *pictures = write_report(run, out)
    if as_json:
        print(json.dumps({"run": str(run.path), "page": str(page), "pictures": list(map(str, pictures))}, indent=2))
    else:
        print(f"report: {page}")


def write_report(run: RunFolder, out: Path | None = None) -> list[Path]:
    """Write `report.html` and one PNG per picture.

    Args:
        run: the run, ended or not.
        out: the folder to write to, made if need be; by default the run's `artifacts/`.

    Returns:
        The page, then the pictures.

    Raises:
        ConfigError: jinja2 or matplotlib is not installed, or `out` cannot be written to.
    """
    try:
        import jinja2
        from markupsafe import Markup
    except ImportError as error:
        raise ConfigError(
            f"the report is written with jinja2, which is not here ({error}); pip install 'flower-edge[report]'"
        ) from error
    folder = run.artifacts if out is None else Path(out).expanduser().absolute()
    lines, events = rounds_of(run), happenings(run)
    charts, lanes = charts_of(lines), timeline(events)
    tables = {chart.name: _numbers(lines, chart.name) for chart in charts}
    if lanes is not None:
        charts.append(timeline_chart(lanes))
        tables[charts[-1].name] = _kinds(lanes)
    ours = {"report.html", *(f"{name}.png" for name in (*_COLUMNS, "events-by-time"))}
    pictures, left_out = pictures_in(run.artifacts, ours)
    files = resources.files(__package__)
    environment = jinja2.Environment(autoescape=True, trim_blocks=False, undefined=jinja2.StrictUndefined)
    environment.globals["numeric_columns"] = numeric_columns
    page = environment.from_string((files / "report.html.j2").read_text("utf-8")).render(
        **_facts(run, lines),
        # Ours, not the run's: the only two things that go in as they are.
        css=Markup((files / "report.css").read_text("utf-8")),
        sections=[
            {
                "name": chart.name,
                "title": chart.title,
                "says": chart.says,
                "svg": Markup(to_svg(chart)),
                "head": tables[chart.name][0],
                "lines": tables[chart.name][1],
            }
            for chart in charts
        ],
        events=_listed(events),
        standing=standing(run),
        seldom=sentences(attendance(run)),
        links=_links(run),
        pictures=pictures,
        left_out=left_out,
    )
    try:
        folder.mkdir(parents=True, exist_ok=True)
        written = [folder / "report.html", *(folder / f"{chart.name}.png" for chart in charts)]
        write_bytes(written[0], page.encode("utf-8", "backslashreplace"))
        for chart, path in zip(charts, written[1:], strict=True):
            save_png(chart, path)
    except OSError as error:
        raise ConfigError(f"cannot write to {folder} ({error.strerror}); give another folder with --out") from error
    return written


def _links(run: RunFolder) -> dict[str, Any]:
    """Links as they were last told, those that carry least first."""
    state = RunState()
    state.add([*run.rows("links"), *run.rows("link")])
    links = by_bandwidth(state.links_now())
    cells = any(link.cell for link in links)
    return {
        "total": state.links_total(),
        "head": ["link", *(["edge"] if cells else []), "bandwidth", "delay of a model", "weight", "round"],
        "lines": [
            [
                f"{link.sender} \N{RIGHTWARDS ARROW} {link.receiver}",
                *([link.cell] if cells else []),
                rate(link.bandwidth_bps),
                seconds(link.delay_s),
                "-" if link.weight is None else f"{link.weight:.3f}",
                str(link.round),
            ]
            for link in links[:_MOST_LINKS]
        ],
    }


def _kinds(found: Timeline) -> tuple[list[str], list[list[str]]]:
    lines = [[lane.what, f"{lane.total:,}", seconds(lane.first_s), seconds(lane.last_s)] for lane in found.lanes]
    return ["what", "times", "first", "last"], [*lines, *([what, f"{n:,}", "-", "-"] for what, n in found.left_out)]


def _listed(events: list[Happening]) -> dict[str, Any]:
    some = shown(events)
    columns = [(title, write) for title, write in _EVENT_COLUMNS if any(write(event) for event in some)]
    head, lines = by_round(events)
    return {
        "head": [title for title, _ in columns],
        "lines": [[write(event) for _, write in columns] for event in some],
        "total": len(events),
        "folded": len(some) > _MOST_OPEN,
        "counts_head": head,
        "counts": lines if len(events) > _MOST_OPEN else [],
    }


def _numbers(lines: list[RoundLine], name: str) -> tuple[list[str], list[list[str]]]:
    """Head and lines of the table beside a picture; columns and rounds of which nothing was recorded are left out."""
    columns = [one for one in _COLUMNS[name] if any(getattr(line, one[1]) is not None for line in lines)]
    # When a round ended is no point of the curve by itself.
    points = [field for _, field, _ in columns if field not in ("wall_s", "virtual_s")]
    return ["round", *(title for title, _, _ in columns)], [
        [str(line.round), *(write(getattr(line, field)) for _, field, write in columns)]
        for line in lines
        if any(getattr(line, field) is not None for field in points)
    ]


def _facts(run: RunFolder, lines: list[RoundLine]) -> dict[str, Any]:
    info, status = run.info, run.status
    where = {key: value for key, value in info.items() if key != "versions"}
    error = info.get("error")
    if status == "interrupted":
        error = "The process that ran it ended without saying so; what it had recorded is below."
    duration = duration_s(run, latest(lines, "wall_s"))
    return {
        "name": run.name,
        "status": status,
        "folder": run.path.name,
        "error": error,
        "tiles": [
            ("rounds", count(max((line.round for line in lines), default=0))),
            ("accuracy", ratio(latest(lines, "accuracy"))),
            ("loss", ratio(latest(lines, "loss"))),
            ("bytes up", traffic(total(lines, "up_bits"))),
            ("bytes down", traffic(total(lines, "down_bits"))),
            ("duration", seconds(duration)),
            ("a round takes", seconds(_median([took for took in took_s(lines) if took]))),
        ],
        **_cells(run),
        "facts": [
            ("Summary", "Summary of this run", list(_flat(run.summary))),
            ("Config", "Config of this run", list(_flat(run.config))),
            ("Versions", "Versions it ran with", list(_flat(info.get("versions", {})))),
            ("Run", "When and where it ran", [one for one in _flat(where) if one[1]]),
        ],
    }


def _cells(run: RunFolder) -> dict[str, Any]:
    found = cells_of(run)
    columns = [one for one in _CELL_COLUMNS if any(getattr(cell, one[1]) is not None for cell in found)]
    return {
        "cell_head": ["cell", *(title for title, _, _ in columns)],
        "cells": [[cell.cell, *(write(getattr(cell, field)) for _, field, write in columns)] for cell in found],
    }


def _median(values: list[float]) -> float | None:
    return sorted(values)[len(values) // 2] if values else None


def _flat(value: Any, at: str = "") -> Iterator[tuple[str, str]]:
    if isinstance(value, Mapping) and value:
        for key, inner in value.items():
            yield from _flat(inner, f"{at}.{key}" if at else str(key))
    elif isinstance(value, list):
        yield at, " ".join(map(str, value))
    elif at:
        yield at, "" if value is None else _short(value)


def _short(value: object) -> str:
    """A number without the digits that nobody reads; anything else as it is."""
    text = str(value)
    return f"{value:.6g}" if isinstance(value, float) and len(text) > 10 else text
