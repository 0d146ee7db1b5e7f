"""What a second tier costs and saves: a centre, two edges, six terminals on real sockets, beside a flat federation.

    python -m benchmarks.deployment_tiers [--quick] [--json]

The same six terminals, client, executor and polling, one after the other on the same machine: first all at the
centre's SuperLink, then three at each edge's. Time is that of a cloud round of ten edge rounds over that of ten flat
rounds. Bytes are those that went over the centre's socket, both ways, polls and headers included, in a cloud round of
one edge round over those in a flat round: with more edge rounds a centre is visited less often, which is no merit of
the deployment. Nobody evaluates. docs/two_tiers.md says what the figures mean.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from itertools import pairwise
from statistics import median
from typing import Any, Final

from flower_edge.errors import LaunchError

from .harness.counted_port import CountedPort, counted_port
from .harness.printing import benchmark_parser, print_json, print_table, progress, versions
from .harness.targets import Figure, targets_of, verdicts
from .split_deployment import CONNECTION, deployment
from .two_tiers import EDGE_APP, TwoTiers, config_text

__all__ = ["FIGURES", "Side", "main", "measure"]

EDGES, EACH = 2, 3
TERMINALS: Final = EDGES * EACH
FIGURES: Final = (
    Figure("tier_overhead_ratio", "tiers", "a cloud round of 10 edge rounds over 10 flat rounds, warm nodes", most=1.2),
    Figure("tier_overhead_ratio_stock", "tiers", "the same with Flower's own nodes and polling"),
    Figure(
        "centre_bytes_ratio",
        "tiers",
        "bytes at the centre's socket, a cloud round of one edge round over a flat round",
        most=EDGES / TERMINALS + 0.05,
        decimals=3,
    ),
    Figure("centre_bytes_ratio_10", "tiers", "the same with 10 edge rounds over 10 flat rounds", decimals=4),
    Figure("edge_round_s", "tiers", "seconds of an edge round, warm nodes"),
    Figure("flat_round_s", "tiers", "seconds of a flat round, warm nodes"),
)
#: Of the model: 400 kB.
PARAMETERS: Final = 100_000
_LONG_S: Final = 900.0


@dataclass(frozen=True)
class Side:
    """What one kind of node was measured to do.

    Attributes:
        edge_rounds: in a cloud round, and flat rounds it is compared with.
        flat_s: seconds of each flat round.
        cloud_s: seconds of each cloud round.
        flat_bytes: at the centre's socket in a flat round.
        cloud_bytes, cloud_many_bytes: the same in a cloud round of one edge round, and of `edge_rounds`; 0: not
            measured.
    """

    edge_rounds: int
    flat_s: tuple[float, ...]
    cloud_s: tuple[float, ...]
    flat_bytes: float
    cloud_bytes: float
    cloud_many_bytes: float

    @property
    def overhead(self) -> float:
        """Time of a cloud round over as many flat rounds: medians, for one round in ten or so meets a back-off."""
        return median(self.cloud_s) / (self.edge_rounds * median(self.flat_s))


def measure_side(warm: bool, *, edge_rounds: int, cloud_rounds: int, count_bytes: bool) -> Side:
    """Both deployments of one kind of node, one after the other.

    Raises:
        LaunchError: something did not start, or took too long.
    """
    with deployment([]) as made, counted_port(made.port) as port:
        layout = [list(range(edge * EACH, (edge + 1) * EACH)) for edge in range(EDGES)]
        tiers = TwoTiers(made, layout, warm=warm, stock_poll=not warm)
        for partition in range(TERMINALS):
            config = config_text(partition_id=partition, num_partitions=TERMINALS)
            tiers.nodes[f"flat-{partition}"] = made.add_node(f"flat-{partition}", config, warm=warm, port=port.port)
        flat = _flat(tiers, edge_rounds * cloud_rounds)
        for process in tiers.nodes.values():
            process.terminate()
        for process in tiers.nodes.values():
            process.wait(60)
        tiers.nodes.clear()
        tiers.start_superlinks(in_memory=True)
        for edge, partitions in enumerate(layout):
            tiers.start_host(edge, port=port.port)
            for partition in partitions:
                tiers.start_terminal(partition, f"edge-{edge}")
        for edge in range(EDGES):
            tiers.start_edge(edge)
        tiers.wait_for_edges(_LONG_S)
        cloud = _cloud(tiers, "cloud", edge_rounds, cloud_rounds)
        once = _cloud(tiers, "cloud-once", 1, 3) if count_bytes else None
    return Side(
        edge_rounds,
        tuple(flat["round_s"]),
        tuple(cloud["round_s"]),
        _bytes(port, flat),
        0.0 if once is None else _bytes(port, once),
        _bytes(port, cloud),
    )


def _flat(tiers: TwoTiers, rounds: int) -> dict[str, Any]:
    report = tiers.made.folder / "flat.json"
    given = {"flat_rounds": rounds, "terminals": TERMINALS, "report": str(report), "parameters": PARAMETERS}
    config = config_text(**given, stock=tiers.stock_poll, run_name="flat")
    tiers.made.run(EDGE_APP, config, link=CONNECTION)
    told: dict[str, Any] = json.loads(tiers.made.wait_for_file(report, _LONG_S))
    return told


def _cloud(tiers: TwoTiers, name: str, edge_rounds: int, rounds: int) -> dict[str, Any]:
    report = tiers.made.folder / f"{name}.json"
    given = {"edge_rounds": edge_rounds, "cloud_rounds": rounds, "warm_up": 1, "parameters": PARAMETERS}
    tiers.start_centre(report, **given, run_name=name, seed=11)
    return tiers.wait_for_report(report, _LONG_S)


def _bytes(port: CountedPort, told: dict[str, Any]) -> float:
    """Of a round in the middle."""
    ends: list[float] = told["ends_s"]
    return float(median(port.bytes_between(begin, end) for begin, end in pairwise(ends)))


def measure(quick: bool) -> tuple[dict[str, float], dict[str, Side]]:
    """The figures by key, and what they are made of."""
    progress("warm nodes: one tier, then two ...")
    warm = measure_side(True, edge_rounds=10, cloud_rounds=1 if quick else 3, count_bytes=True)
    progress("Flower's own nodes: one tier, then two ...")
    stock = measure_side(False, edge_rounds=3 if quick else 10, cloud_rounds=1, count_bytes=False)
    found = {
        "tier_overhead_ratio": warm.overhead,
        "tier_overhead_ratio_stock": stock.overhead,
        "centre_bytes_ratio": warm.cloud_bytes / warm.flat_bytes,
        "centre_bytes_ratio_10": warm.cloud_many_bytes / (warm.edge_rounds * warm.flat_bytes),
        "edge_round_s": median(warm.cloud_s) / warm.edge_rounds,
        "flat_round_s": median(warm.flat_s),
    }
    return found, {"warm": warm, "stock": stock}


def main(arguments: Sequence[str] | None = None) -> int:
    """Run it; returns the exit code: 0, or 1 where something did not start."""
    options = benchmark_parser("deployment_tiers", str(__doc__).splitlines()[0]).parse_args(arguments)
    try:
        found, sides = measure(options.quick)
    except LaunchError as error:
        progress(f"error: {error}")
        return 1
    if options.json:
        told = {name: asdict(side) for name, side in sides.items()}
        print_json(
            {**found, "targets": targets_of(FIGURES), **told, "quick": options.quick, "versions": versions("flwr")}
        )
        return 0
    print_table("figures", ["key", "value", "target", "reference", ""], verdicts(FIGURES, found))
    return 0


if __name__ == "__main__":
    sys.exit(main())
