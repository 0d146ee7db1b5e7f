"""What a batch's way costs: over the TLS stream, and in messages of a stock deployment of Flower.

    python -m benchmarks.split_stream [--quick] [--json]

One SuperLink, one SuperNode, one run: its ServerApp times `Grid.send_and_receive` of a tensor of 102,400 bytes that the
ClientApp gives back, and then lets the same ClientApp send the same tensor over a channel, each way, batch after batch,
through the library's own service, encoder and TLS. No model computes. Messages: the median after one that is not
counted. Stream: the median of all batches but the first ten.
"""

from __future__ import annotations

import json
import statistics
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from flower_edge.errors import LaunchError

from .harness.parts import run_parts
from .harness.printing import benchmark_parser, progress
from .harness.targets import Figure
from .split_deployment import deployment

__all__ = ["FIGURES", "main", "measure"]

FIGURES: Final = (
    Figure(
        "stream_over_message_speedup",
        "stream",
        "round trip of 100 KB each way: a Flower message over a batch on the TLS stream",
        least=1000.0,
        reference="6.1 s over 0.20 ms without TLS",
        decimals=0,
    ),
    Figure("message_round_trip_s", "stream", "Grid.send_and_receive, stock deployment, median", decimals=2),
    Figure("stream_round_trip_s", "stream", "a batch on the TLS stream, median", decimals=6),
    Figure("stream_round_trip_p95_s", "stream", "the same, 95 of 100", decimals=6),
)

_APP: Final = Path(__file__).resolve().parent / "apps" / "split_echo"
_WARM_UP: Final = 10


def measure(quick: bool) -> dict[str, float]:
    """All figures, by key.

    Raises:
        LaunchError: the deployment did not start, or its run did not end in time.
    """
    messages, batches = (4, 1000) if quick else (10, 5000)
    with tempfile.TemporaryDirectory() as folder, deployment(["partition-id=0"]) as flower:
        report = Path(folder) / "report.json"
        flower.run(_APP, f"messages={messages} batches={batches} report='{report}'")
        found = json.loads(flower.wait_for_file(report, 120.0 + 30.0 * messages))
        if "error" in found:
            raise LaunchError(f"the benchmark's ServerApp failed: {found['error']}\n{flower.logs()}")
    batches_s = sorted(found["batches_s"][_WARM_UP:])
    message_s, batch_s = statistics.median(found["messages_s"]), statistics.median(batches_s)
    return {
        "stream_over_message_speedup": message_s / batch_s,
        "message_round_trip_s": message_s,
        "stream_round_trip_s": batch_s,
        "stream_round_trip_p95_s": batches_s[int(0.95 * len(batches_s))],
    }


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure and print; 0 also when a target is missed, 1 when nothing could be measured."""
    options = benchmark_parser("split_stream", "What a batch's way costs, streamed and in messages.").parse_args(
        arguments
    )

    def parts(asked: Sequence[str], given: Any) -> dict[str, Any]:
        del asked
        progress("stream: starting a SuperLink and a SuperNode")
        return measure(bool(given.quick))

    return run_parts(options, ["stream"], FIGURES, parts, _show, ("flower-edge", "flwr", "grpcio"))


def _show(found: Mapping[str, Any]) -> None:
    """Everything is among the figures."""
    del found


if __name__ == "__main__":
    sys.exit(main())
