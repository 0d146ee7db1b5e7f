"""The pictures of a run: accuracy over rounds and time, bytes, nodes and drift by round, what happened when.

Numbers in, SVG text or a PNG file out; nothing here reads a run folder. matplotlib is used through its figures, never
through pyplot, so no window opens and nothing global is left behind. In the SVG every colour is a CSS variable of the
page (`--ink`, `--faint`, `--first`, `--second`), so that one picture suits light and dark.
"""

from __future__ import annotations

import importlib
import math
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from io import StringIO
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final
from xml.sax.saxutils import escape, quoteattr

from ..errors import ConfigError
from ..monitoring.happenings import Dots, Timeline
from ..monitoring.rounds import RoundLine
from ..units import human_s

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.axis import Axis
    from matplotlib.figure import Figure

__all__ = ["Chart", "charts_of", "save_png", "timeline_chart", "to_svg"]

#: Bars up to this many rounds, lines beyond: thinner bars cannot be told apart.
MOST_BARS: Final = 40

#: Stand-ins that no colour map makes, replaced by CSS variables in the SVG.
_SVG_COLOURS: Final[Mapping[str, str]] = {"ink": "#010203", "faint": "#040506", "first": "#070809", "second": "#0a0b0c"}
#: Okabe and Ito's blue and vermilion: told apart also by people who see no red or no green, and in grey.
_PNG_COLOURS: Final[Mapping[str, str]] = {
    "ink": "#1c1e21",
    "faint": "#c9cdd2",
    "first": "#0072b2",
    "second": "#d55e00",
}


@dataclass(frozen=True)
class Chart:
    """One picture, not drawn yet: what it is called, what it says in words, and how to draw it."""

    name: str
    title: str
    says: str
    draw: Callable[[Axes, Mapping[str, str]], None]
    #: Of 6.4 inches of width.
    height_in: float = 3.2


def charts_of(lines: Sequence[RoundLine]) -> list[Chart]:
    """The pictures that can be drawn from these rounds; those of which nothing was recorded are left out."""
    found = [
        _accuracy("accuracy-by-round", "Accuracy by round", "round", lines),
        _accuracy("accuracy-by-wall-time", "Accuracy by time", "wall_s", lines),
        _accuracy("accuracy-by-virtual-time", "Accuracy by virtual time", "virtual_s", lines),
        _bytes(lines),
        _nodes(lines),
        _divergence(lines),
        _links(lines),
    ]
    return [chart for chart in found if chart is not None]


def timeline_chart(found: Timeline) -> Chart:
    """What happened when: a lane for each kind of event, a dot for each place in time that had one."""
    latest_s = max(lane.last_s for lane in found.lanes)
    scale, unit = _time_unit(latest_s)
    total = sum(lane.total for lane in found.lanes)
    most = max(found.lanes, key=lambda lane: lane.total)
    says = f"{total:,} {'event' if total == 1 else 'events'} of one kind, {most.what!r}."
    if len(found.lanes) > 1:
        says = f"{total:,} events of {len(found.lanes)} kinds; most often {most.what!r}, {most.total:,} times."
    if found.left_out:
        says += f" Rarer, without a lane: {', '.join(f'{what} ({count:,})' for what, count in found.left_out)}."

    def draw(axes: Axes, colours: Mapping[str, str]) -> None:
        drawn = 0
        for label, low, high, size in _DOTS:
            dots = [
                (at_s / scale, row)
                for row, lane in enumerate(found.lanes)
                for at_s, count in lane.places
                if low < count <= high
            ]
            if dots:
                x, y = zip(*dots, strict=True)
                axes.plot(x, y, "o", color=colours["first"], markersize=size, markeredgewidth=0, label=label)
                drawn += 1
        axes.set_yticks(range(len(found.lanes)), [_lane_name(lane) for lane in found.lanes])
        axes.set_ylim(len(found.lanes) - 0.4, -0.6)  # the first on top
        axes.set_xlim(left=min(0.0, min(lane.first_s for lane in found.lanes) / scale))
        axes.set(xlabel=f"{'virtual time' if found.virtual else 'time since the start'} ({unit})")
        if colours is _SVG_COLOURS:
            # Room for lanes' names in the size that the page gives them on a narrow screen.
            axes.tick_params(labelsize=12.2)
            axes.xaxis.label.set_fontsize(12.2)
        if drawn > 1:
            _legend(axes, colours)

    height_in = 1.1 + 0.3 * max(len(found.lanes), 3)
    return Chart("events-by-time", "Events by time", says, draw, height_in)


#: Sizes of dots: name, more events than, up to, points.
_DOTS: Final = (("1 event", 0, 1, 2.8), ("2 to 9", 1, 9, 4.2), ("10 or more", 9, math.inf, 6.0))


def _lane_name(lane: Dots) -> str:
    return lane.what if len(lane.what) <= 18 else f"{lane.what[:17]}\N{HORIZONTAL ELLIPSIS}"


def to_svg(chart: Chart) -> str:
    """The picture as one `<svg>` element for an HTML page: no other file, no script, text that stays text."""
    matplotlib = _matplotlib()
    out = StringIO()
    with matplotlib.rc_context({"svg.fonttype": "none", "svg.hashsalt": chart.name, "font.size": 10}):
        _figure(chart, _SVG_COLOURS).savefig(out, format="svg", transparent=True, metadata={"Date": None})
    svg = out.getvalue()
    svg = svg[svg.index("<svg") :]
    svg = re.sub(r"<metadata>.*?</metadata>", "", svg, flags=re.DOTALL)
    svg = re.sub(r' xmlns(:\w+)?="[^"]*"', "", svg)  # known to every HTML parser
    for name, colour in _SVG_COLOURS.items():
        svg = svg.replace(colour, f"var(--{name})")
    # Pictures of one page must not share ids.
    svg = re.sub(r'\bid="', f'id="{chart.name}-', svg)
    svg = re.sub(r'(href="|url\()#', rf"\g<1>#{chart.name}-", svg)
    svg = re.sub(r'<svg( height| width)="[^"]*"|( height| width)="[\d.]+pt"', lambda m: "<svg" if m[1] else "", svg)
    svg = svg.replace("<svg", f'<svg role="img" aria-label={quoteattr(f"{chart.title}. {chart.says}")}', 1)
    return svg.replace(">", f">\n<title>{escape(chart.title)}</title>\n<desc>{escape(chart.says)}</desc>", 1)


def save_png(chart: Chart, path: Path) -> None:
    """The picture as a PNG file on white, 1280 pixels wide."""
    matplotlib = _matplotlib()
    with matplotlib.rc_context({"font.size": 10}):
        figure = _figure(chart, _PNG_COLOURS)
        figure.axes[0].set_title(chart.title, loc="left", color=_PNG_COLOURS["ink"])
        figure.savefig(path, format="png", dpi=200, facecolor="white", metadata={"Description": chart.says})


def _matplotlib() -> Any:
    try:
        return importlib.import_module("matplotlib")
    except ImportError as error:
        raise ConfigError(
            f"the report draws with matplotlib, which is not here ({error}); pip install 'flower-edge[report]'"
        ) from error


def _figure(chart: Chart, colours: Mapping[str, str]) -> Figure:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(6.4, chart.height_in), layout="constrained")
    axes = figure.add_subplot()
    chart.draw(axes, colours)
    axes.spines[["top", "right", "left"]].set_visible(False)
    axes.spines["bottom"].set_color(colours["faint"])
    axes.grid(axis="y", color=colours["faint"], linewidth=0.6)
    axes.set_axisbelow(True)
    axes.tick_params(colors=colours["ink"], length=0)
    axes.xaxis.label.set_color(colours["ink"])
    axes.yaxis.label.set_color(colours["ink"])
    axes.yaxis.labelpad = 8
    return figure


def _legend(axes: Axes, colours: Mapping[str, str]) -> None:
    # In a page texts grow where the picture is small: to the left there is room for that, where a PNG has its title.
    in_page = colours is _SVG_COLOURS
    axes.legend(
        loc="lower left" if in_page else "lower right",
        bbox_to_anchor=(0.0 if in_page else 1.0, 1.0),
        ncols=3,
        frameon=False,
        labelcolor=colours["ink"],
        borderaxespad=0,
        columnspacing=3.0,
    )


def _accuracy(name: str, title: str, over: str, lines: Sequence[RoundLine]) -> Chart | None:
    points = [
        (at, line.accuracy)
        for line in lines
        if (at := getattr(line, over)) is not None and line.accuracy is not None and math.isfinite(line.accuracy)
    ]
    if not points or (over != "round" and len({at for at, _ in points}) < 2):
        return None
    scale, unit = (1.0, "round") if over == "round" else _time_unit(max(at for at, _ in points))
    label = {"round": "round", "wall_s": f"time since the start ({unit})", "virtual_s": f"virtual time ({unit})"}[over]
    best_at, best = max(points, key=lambda point: point[1])
    where = f"round {best_at}" if over == "round" else f"{best_at / scale:.3g} {unit}"
    says = f"From {points[0][1]:.4g} to {points[-1][1]:.4g} over {len(points)} evaluations; best {best:.4g} at {where}."

    def draw(axes: Axes, colours: Mapping[str, str]) -> None:
        marker = "o" if len(points) <= MOST_BARS else ""
        x, y = [at / scale for at, _ in points], [value for _, value in points]
        axes.plot(x, y, color=colours["first"], marker=marker, markersize=4, linewidth=1.8)
        axes.set(xlabel=label, ylabel="accuracy")
        if over == "round":
            _whole_numbers(axes.xaxis)

    return Chart(name, title, says, draw)


def _bytes(lines: Sequence[RoundLine]) -> Chart | None:
    having = [line for line in lines if line.up_bits is not None or line.down_bits is not None]
    if not having:
        return None
    up = [(line.up_bits or 0.0) / 8 for line in having]
    down = [(line.down_bits or 0.0) / 8 for line in having]
    scale, unit = next(((s, u) for s, u in ((1e9, "GB"), (1e6, "MB"), (1e3, "kB")) if max(up + down) >= s), (1.0, "B"))
    says = f"In all {sum(up) / scale:.4g} {unit} up and {sum(down) / scale:.4g} {unit} down in {len(having)} rounds."

    def draw(axes: Axes, colours: Mapping[str, str]) -> None:
        rounds = [line.round for line in having]
        width = _bar_width(len(rounds)) / 2
        for values, name, colour, side in ((up, "up", "first", -0.52), (down, "down", "second", 0.52)):
            heights = [value / scale for value in values]
            if len(rounds) <= MOST_BARS:
                axes.bar([at + side * width for at in rounds], heights, width, color=colours[colour], label=name)
            else:
                dashes = "-" if name == "up" else "--"
                axes.plot(rounds, heights, dashes, color=colours[colour], linewidth=1.5, label=name)
        axes.set(xlabel="round", ylabel=f"{unit} per round")
        axes.set_ylim(bottom=0)
        _whole_numbers(axes.xaxis)
        _legend(axes, colours)

    return Chart("bytes-by-round", "Bytes by direction", says, draw)


def _nodes(lines: Sequence[RoundLine]) -> Chart | None:
    having = [line for line in lines if line.nodes_replied is not None or line.nodes_sampled is not None]
    if not having:
        return None
    failed = [line.nodes_failed or 0.0 for line in having]
    replied = [
        (line.nodes_sampled or 0.0) - lost if line.nodes_replied is None else line.nodes_replied
        for line, lost in zip(having, failed, strict=True)
    ]
    some = f"{min(replied):g}" if min(replied) == max(replied) else f"Between {min(replied):g} and {max(replied):g}"
    says = f"{some} replies a round, {sum(replied):g} in all; {sum(failed):g} failed."

    def draw(axes: Axes, colours: Mapping[str, str]) -> None:
        rounds = [line.round for line in having]
        if len(rounds) <= MOST_BARS:
            width = _bar_width(len(rounds))
            axes.bar(rounds, replied, width, color=colours["first"], label="replied")
            if any(failed):
                axes.bar(
                    rounds,
                    failed,
                    width,
                    bottom=replied,
                    color=colours["second"],
                    hatch="//",
                    edgecolor=colours["ink"],
                    linewidth=0,
                    label="failed",
                )
        else:
            axes.plot(rounds, replied, color=colours["first"], linewidth=1.5, label="replied")
            if any(failed):
                axes.plot(rounds, failed, "--", color=colours["second"], linewidth=1.5, label="failed")
        axes.set(xlabel="round", ylabel="nodes")
        axes.set_ylim(bottom=0)
        _whole_numbers(axes.xaxis)
        _whole_numbers(axes.yaxis)
        _legend(axes, colours)

    return Chart("nodes-by-round", "Nodes by round", says, draw)


def _divergence(lines: Sequence[RoundLine]) -> Chart | None:
    having = [(line, mean) for line in lines if (mean := line.divergence) is not None and math.isfinite(mean)]
    if not any(mean for _, mean in having):
        return None  # one edge is where the centre is
    far = [
        (line.round, most) for line, _ in having if (most := line.divergence_max) is not None and math.isfinite(most)
    ]
    kept = [(line.round, int(line.edge_rounds)) for line, _ in having if line.edge_rounds is not None]
    changes = [(at, now) for (_, before), (at, now) in pairwise(kept) if now != before]
    says = f"On average {having[0][1]:.4g} in round {having[0][0].round} and {having[-1][1]:.4g} in the last"
    if far:
        farthest_at, farthest = max(far, key=lambda point: point[1])
        says += f"; the farthest edge {farthest:.4g} in round {farthest_at}"
    says += "." + "".join(f" {now} edge rounds from round {at} on." for at, now in changes)

    def draw(axes: Axes, colours: Mapping[str, str]) -> None:
        marker = "o" if len(having) <= MOST_BARS else ""
        rounds, mean = [line.round for line, _ in having], [value for _, value in having]
        axes.plot(rounds, mean, color=colours["first"], marker=marker, markersize=4, linewidth=1.8, label="mean")
        if far:
            axes.plot(*zip(*far, strict=True), "--", color=colours["second"], linewidth=1.5, label="farthest edge")
        for at, now in changes:
            axes.axvline(at - 0.5, color=colours["faint"], linewidth=1.2)
            axes.annotate(
                f"κ2 = {now}",
                (at - 0.5, 1.0),
                xycoords=("data", "axes fraction"),
                xytext=(3, -3),
                textcoords="offset points",
                va="top",
                color=colours["ink"],
            )
        axes.set(xlabel="round", ylabel="distance from the mean")
        axes.set_ylim(bottom=0)
        _whole_numbers(axes.xaxis)
        _legend(axes, colours)

    return Chart("divergence-by-round", "Divergence of the edges by round", says, draw)


def _links(lines: Sequence[RoundLine]) -> Chart | None:
    slow = [(line.round, most) for line in lines if (most := line.link_slowest_s) is not None and math.isfinite(most)]
    mean = [(line.round, at) for line in lines if (at := line.link_mean_s) is not None and math.isfinite(at)]
    if not slow or not mean:
        return None
    scale, unit = next(((s, u) for s, u in ((1.0, "s"), (1e-3, "ms")) if slow[-1][1] >= s), (1e-6, "µs"))
    at, worst = max(slow, key=lambda point: point[1])
    says = (
        f"A model took {human_s(mean[0][1])} over a link in round {mean[0][0]} and {human_s(mean[-1][1])} in round "
        f"{mean[-1][0]}, on average; at the worst {human_s(worst)}, in round {at}."
    )

    def draw(axes: Axes, colours: Mapping[str, str]) -> None:
        marker = "o" if len(slow) <= MOST_BARS else ""
        for points, dashes, colour, name in ((mean, "-", "first", "mean"), (slow, "--", "second", "slowest link")):
            x, y = [at for at, _ in points], [value / scale for _, value in points]
            axes.plot(x, y, dashes, color=colours[colour], marker=marker, markersize=4, linewidth=1.6, label=name)
        axes.set(xlabel="round", ylabel=f"delay of a model ({unit})")
        axes.set_ylim(bottom=0)
        _whole_numbers(axes.xaxis)
        _legend(axes, colours)

    return Chart("links-by-round", "Delay of links by round", says, draw)


def _bar_width(rounds: int) -> float:
    # Two or three rounds alone would make slabs.
    return 0.76 * min(1.0, (rounds + 1) / 8)


def _whole_numbers(axis: Axis) -> None:
    from matplotlib.ticker import MaxNLocator

    axis.set_major_locator(MaxNLocator(nbins=10, integer=True, min_n_ticks=1))


def _time_unit(longest_s: float) -> tuple[float, str]:
    return next(((s, u) for s, u in ((3600.0, "h"), (60.0, "min")) if longest_s >= 3 * s), (1.0, "s"))
