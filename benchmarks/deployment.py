"""What a deployment costs: two tiers over real sockets, one message to a node, the memory of a thin client.

    python -m benchmarks.deployment [--quick] [--json]

Three parts, each with a module of its own that can be run alone: `deployment_tiers`, `deployment_node`,
`deployment_thin`. Everything runs on this machine, one part after the other; nothing else should run on it.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from flower_edge.errors import LaunchError

from . import deployment_node, deployment_thin, deployment_tiers
from .harness.printing import benchmark_parser, print_json, print_table, progress, versions
from .harness.targets import Figure, targets_of, verdicts

__all__ = ["FIGURES", "main"]

_KEY, _LEAST = deployment_node.NODE_LATENCY_SPEEDUP
FIGURES = (
    *deployment_tiers.FIGURES,
    Figure(
        _KEY, "node", "round trip of a message that does nothing, Flower's node over flower-edge node", least=_LEAST
    ),
    *deployment_thin.FIGURES,
)


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure and print; returns the exit code: 0, or 1 where something did not start."""
    options = benchmark_parser("deployment", str(__doc__).splitlines()[0]).parse_args(arguments)
    try:
        found, sides = deployment_tiers.measure(options.quick)
        details: dict[str, Any] = {f"tiers_{name}": asdict(side) for name, side in sides.items()}
        progress("one message: Flower's SuperNode and Grid ...")
        noops = 4 if options.quick else 12
        stock = deployment_node.measure_side(False, noops=noops, lenets=0)
        progress("one message: flower-edge node ...")
        warm = deployment_node.measure_side(True, noops=4 * noops, lenets=0)
    except LaunchError as error:
        progress(f"error: {error}")
        return 1
    found[_KEY] = deployment_node.speedup(stock.noop_s, warm.noop_s)
    details |= {"node_stock": asdict(stock), "node_warm": asdict(warm)}
    found |= deployment_thin.measure(options.quick, with_torch=not options.quick)
    if options.json:
        targets = targets_of(FIGURES)
        print_json(
            {**found, "targets": targets, **details, "quick": options.quick, "versions": versions("flwr", "numpy")}
        )
        return 0
    shown = [figure for figure in FIGURES if figure.key in found]
    print_table("figures", ["key", "value", "target", "reference", ""], verdicts(shown, found))
    return 0


if __name__ == "__main__":
    sys.exit(main())
