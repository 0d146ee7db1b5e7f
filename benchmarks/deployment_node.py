"""What a message to a node costs: `flower-edge node` beside Flower's own SuperNode, on a real SuperLink.

    python -m benchmarks.deployment_node [--quick] [--json]

One node at a time, one message at a time, over real sockets on the loopback address. The stock side is Flower's
SuperNode and Flower's Grid; the warm side is `flower-edge node` and `ShortPolling` around the same Grid. Both run the
same app, one after the other on the same machine. docs/warm_node.md says what the figures mean.
"""

from __future__ import annotations

import json
import statistics
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final

from flower_edge.errors import LaunchError

from .harness.printing import benchmark_parser, print_json, print_table, progress, versions
from .split_deployment import HOST, deployment

__all__ = ["NODE_LATENCY_SPEEDUP", "Side", "main", "measure_side", "speedup"]

#: Key in the JSON object, and what it should be at least.
NODE_LATENCY_SPEEDUP: Final = ("node_latency_speedup", 10.0)

APP: Final = Path(__file__).parent / "apps" / "node_echo"
#: How long one side may take: a SuperLink, a node, the ServerApp, the messages.
_SIDE_S: Final = 500.0


@dataclass(frozen=True)
class Side:
    """What one kind of node was measured to do.

    Attributes:
        noop_s: seconds of each round trip of a message that does nothing, the first of them left out.
        lenet_s: seconds of each message that trains a LeNet for four steps, the first of them left out: torch is
            imported in it.
        lenet_digests: of what was trained, to be the same on both sides.
        rss_bytes: resident memory of the process that answered the last message.
    """

    noop_s: tuple[float, ...]
    lenet_s: tuple[float, ...]
    lenet_digests: tuple[str, ...]
    rss_bytes: float


def measure_side(warm: bool, *, noops: int, lenets: int) -> Side:
    """Start a SuperLink and one node, and send it messages.

    Args:
        warm: `flower-edge node`, or else Flower's SuperNode.
        noops: messages that do nothing, after one that is not counted.
        lenets: messages that train, after one that is not counted; 0: torch is not imported at all.

    Raises:
        LaunchError: something did not start, or took too long.
    """
    site = "warm" if warm else "stock"
    script = [f"{site} noop {noops + 1}", f"{site} process 1"]
    if lenets:
        script.insert(1, f"{site} lenet {lenets + 1}")
    with deployment([] if warm else [f"site='{site}'"]) as made, tempfile.TemporaryDirectory() as folder:
        if warm:
            given = ("--insecure", "--superlink", f"{HOST}:{made.port}", "--node-config", f"site='{site}'")
            made.start(site, "flower-edge", "node", *given)
        report = Path(folder) / "report.json"
        short = 0.1 if warm else 0.0
        made.run(APP, f"script=\"{';'.join(script)}\" short-poll={short} report='{report}'")
        rows: list[dict[str, Any]] = json.loads(made.wait_for_file(report, _SIDE_S))
    seconds = {kind: tuple(row["seconds"] for row in rows if row["kind"] == kind) for kind in ("noop", "lenet")}
    return Side(
        noop_s=seconds["noop"][1:],
        lenet_s=seconds["lenet"][1:],
        lenet_digests=tuple(row["digest"] for row in rows if row["kind"] == "lenet"),
        rss_bytes=rows[-1]["metrics"]["rss_bytes"],
    )


def speedup(stock_s: Sequence[float], warm_s: Sequence[float]) -> float:
    """Median over median: one message in ten or so meets Flower's back-off of a second, on either side.

    >>> speedup([6.0, 7.0, 9.0], [0.25, 0.35, 1.4])
    20.0
    """
    return statistics.median(stock_s) / statistics.median(warm_s)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run it; returns the exit code: 0, or 1 where something did not start."""
    options = benchmark_parser(
        "deployment_node", "One message to a node: flower-edge node beside Flower's."
    ).parse_args(arguments)
    noops, lenets = (4, 0) if options.quick else (12, 4)
    try:
        progress("Flower's SuperNode and Grid ...")
        stock = measure_side(False, noops=noops, lenets=lenets)
        progress("flower-edge node and ShortPolling ...")
        warm = measure_side(True, noops=4 * noops, lenets=lenets)
    except LaunchError as error:
        progress(f"error: {error}")
        return 1
    key, target = NODE_LATENCY_SPEEDUP
    found = {key: speedup(stock.noop_s, warm.noop_s)}
    if lenets:
        found["node_lenet_speedup"] = speedup(stock.lenet_s, warm.lenet_s)
    count = min(len(stock.lenet_digests), len(warm.lenet_digests))
    same = stock.lenet_digests[:count] == warm.lenet_digests[:count]
    if options.json:
        print_json(
            {
                **found,
                "targets": {key: target},
                "same_models": same,
                "stock": asdict(stock),
                "warm": asdict(warm),
                "quick": bool(options.quick),
                "versions": versions("flower-edge", "flwr"),
            }
        )
        return 0
    _print(stock, warm)
    print(f"{key} = {found[key]:.1f} (target at least {target:g}): {'reached' if found[key] >= target else 'MISSED'}")
    if lenets:
        print(f"the LeNets trained on both sides are {'the same, bit for bit' if same else 'NOT THE SAME'}")
    return 0


def _print(stock: Side, warm: Side) -> None:
    rows = [
        [
            name,
            *(f"{pick(side.noop_s):.2f}" for pick in (statistics.median, min, max)),
            f"{statistics.median(side.lenet_s):.2f}" if side.lenet_s else "-",
            f"{side.rss_bytes / 1e6:.0f}",
        ]
        for name, side in (("stock", stock), ("warm", warm))
    ]
    columns = ["node", "no-op (s)", "least (s)", "most (s)", "LeNet (s)", "RSS (MB)"]
    print_table("round trip of one message, one node", columns, rows)


if __name__ == "__main__":
    sys.exit(main())
