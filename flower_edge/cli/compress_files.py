"""What `flower-edge compress --out` writes: iterations as CSV, all of it as JSON, and two pictures of the iterations.

Nothing here computes a compression.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from ..errors import ConfigError
from .charts import Chart, save_png
from .compress_table import summary

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from ..runtime.compression.session_torch import CompressionSession
    from ..runtime.compression.told import ConnectionTold, Told

__all__ = ["plain_json", "write_all"]


def write_all(session: CompressionSession, folder: Path) -> list[Path]:
    """Write all of it; returns the files.

    Raises:
        ConfigError: the folder cannot be written to, or matplotlib is not installed.
    """
    told = session.told()
    try:
        folder.mkdir(parents=True, exist_ok=True)
        paths = [folder / name for name in ("iterations.csv", "compression.json", "summary.txt")]
        session.save_csv(paths[0])
        session.save_json(paths[1])
        paths[2].write_text("\n".join(summary(told)) + "\n", encoding="utf-8")
        for chart in charts(told):
            paths.append(folder / f"{chart.name}.png")
            save_png(chart, paths[-1])
    except OSError as error:
        raise ConfigError(f"--out {folder}: {error.strerror or error}; give a folder that can be written to") from None
    return paths


def plain_json(document: Mapping[str, Any]) -> str:
    """As JSON: what is infinite or no number is text, since JSON has neither.

    >>> plain_json({"goodput_bps": float("inf")})
    '{\\n  "goodput_bps": "inf"\\n}'
    """

    def plain(value: Any) -> Any:
        if isinstance(value, Mapping):
            return {str(name): plain(one) for name, one in value.items()}
        if isinstance(value, list | tuple):
            return [plain(one) for one in value]
        if isinstance(value, float) and value - value != 0.0:
            return str(value)
        return value

    return json.dumps(plain(document), indent=2, allow_nan=False)


def charts(told: Told) -> list[Chart]:
    """Bytes and latency of each connection over the iterations; none before the first."""
    if not told["iterations"]:
        return []
    return [
        _chart("bytes-by-iteration", "Bytes of an inference", "bytes", "size_bytes", told["connections"]),
        _chart(
            "latency-by-iteration", "Latency of each link, modelled", "milliseconds", "latency_s", told["connections"]
        ),
    ]


def _chart(
    name: str, title: str, unit: str, field: Literal["size_bytes", "latency_s"], found: Sequence[ConnectionTold]
) -> Chart:
    scale = 1e3 if field == "latency_s" else 1.0
    ends = [(one["name"], one["points"][0][field] * scale, one["points"][-1][field] * scale) for one in found]
    says = "; ".join(f"{one}: {before:.4g} -> {after:.4g} {unit}" for one, before, after in ends) + "."

    def draw(axes: Axes, colours: Mapping[str, str]) -> None:
        for number, one in enumerate(found):
            # Two colours, then other lines: more than two connections are still told apart.
            colour = colours[("first", "second")[number % 2]]
            style = ("-", "--", ":", "-.")[number // 2 % 4]
            points = one["points"]
            x, y = [p["iteration"] for p in points], [p[field] * scale for p in points]
            axes.step(x, y, where="post", color=colour, linestyle=style, label=one["name"])
            for accepted, mark in ((True, "o"), (False, "x")):
                at = [(p["iteration"], p[field] * scale) for p in points if p["here"] and p["accepted"] is accepted]
                if at:
                    axes.plot(*zip(*at, strict=True), mark, color=colour, markersize=5)
        axes.set(xlabel="iteration; o accepted, x rolled back", ylabel=unit, yscale="log")
        axes.locator_params(axis="x", integer=True)
        axes.legend(fontsize="small", frameon=False)

    return Chart(name, title, says, draw)
