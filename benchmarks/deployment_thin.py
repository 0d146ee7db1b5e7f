"""What a thin client needs: memory of an executor process, time of its import, and of a training step beside torch.

    python -m benchmarks.deployment_thin [--quick] [--json]

An executor here is a process of its own that has loaded what `flower-edge node`'s executor loads, holds a ClientApp,
and is handed messages in Flower's serialisation through a pipe. There is no SuperLink and no socket in it: both sides
of the difference would have had the same. Memory is the resident set the system tells (VmRSS), libraries included.
Everything computes on one thread: with more the linear algebra of two libraries would be compared, not the clients.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Mapping
from statistics import median
from typing import Any, Final

from .harness.printing import benchmark_parser, print_json, print_table, progress, versions
from .harness.targets import Figure, targets_of, verdicts

__all__ = ["FIGURES", "main", "measure"]

FIGURES: Final = (
    Figure(
        "thin_worker_rss_mb",
        "memory",
        "MB that 3 rounds of a NumPy MLP add to an executor that ran one no-op message",
        most=120,
        reference="torch_worker_rss_mb",
        decimals=1,
    ),
    Figure("thin_worker_whole_rss_mb", "memory", "MB of the executor after them, all libraries", decimals=1),
    Figure("torch_worker_rss_mb", "memory", "the first figure with the same model in torch", decimals=1),
    Figure("thin_import_s", "memory", "seconds until the thin executor has its app", decimals=2),
    Figure("torch_import_s", "memory", "the same with torch", decimals=2),
    Figure("thin_step_ms", "memory", "milliseconds of a training step, 32 samples", decimals=2),
    Figure("torch_step_ms", "memory", "the same with torch", decimals=2),
)
MB: Final = 1e6
_ONE_THREAD: Final = {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}


def main(arguments: list[str] | None = None) -> int:
    """Measure and print."""
    options = benchmark_parser("deployment_thin", str(__doc__).splitlines()[0]).parse_args(arguments)
    found = measure(options.quick)
    if options.json:
        print_json(
            {
                **found,
                "targets": targets_of(FIGURES),
                "quick": options.quick,
                "versions": versions("flwr", "numpy"),
            }
        )
        return 0
    print_table("figures", ["key", "value", "target", "reference", ""], verdicts(FIGURES, found))
    return 0


def measure(quick: bool, with_torch: bool = True) -> dict[str, Any]:
    """The figures by key, the median of 1 (quick) or 5 processes of each kind.

    Args:
        quick: one process of each kind.
        with_torch: measure the comparison, too; its figures are left out otherwise.
    """
    kinds = ["noop", "thin", *(["torch"] if with_torch else [])]
    told: dict[str, list[Mapping[str, float]]] = {kind: [] for kind in kinds}
    for turn in range(1 if quick else 5):
        for kind in kinds:
            progress(f"executor {turn + 1} with {kind}")
            told[kind].append(_executor(kind))

    def middle(kind: str, name: str) -> float:
        return float(median(one[name] for one in told[kind]))

    noop_bytes = middle("noop", "rss_bytes")
    found = {
        "thin_worker_rss_mb": (middle("thin", "rss_bytes") - noop_bytes) / MB,
        "thin_worker_whole_rss_mb": middle("thin", "rss_bytes") / MB,
        "thin_import_s": middle("thin", "import_s"),
        "thin_step_ms": middle("thin", "step_ms"),
        "noop_worker_whole_rss_mb": noop_bytes / MB,
    }
    if with_torch:
        found["torch_worker_rss_mb"] = (middle("torch", "rss_bytes") - noop_bytes) / MB
        found["torch_import_s"], found["torch_step_ms"] = middle("torch", "import_s"), middle("torch", "step_ms")
    return found


def _executor(kind: str) -> dict[str, float]:
    command = [sys.executable, "-m", "benchmarks.deployment_thin_child", kind]
    variables = {**os.environ, **_ONE_THREAD}
    done = subprocess.run(command, capture_output=True, text=True, timeout=300.0, check=False, env=variables)
    if done.returncode:
        raise RuntimeError(f"the executor with {kind} ended with {done.returncode}: {done.stderr.strip()[-400:]}")
    told: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return told


if __name__ == "__main__":
    sys.exit(main())
