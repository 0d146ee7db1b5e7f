"""What encoding saves and what it costs: every figure from the library's own codecs.

    python -m benchmarks.encoding [--quick] [--json] [--only PART] [--mnist DIR]

Six parts: training (bytes until federated averaging loses half a point), entropy (supports against adaptive counting),
lgc (an autoencoder of values against scalar coders), gradients (synchronous SGD, every step encoded), speed (against
memcpy) and lenet (LeNet on MNIST, full form). Everything but speed depends on nothing but the seeds.
docs/benchmarks.md says what each figure means.
"""

from __future__ import annotations

import argparse
import logging
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from flower_edge.data import load_dataset

from .encoding_candidates import HALF_POINT
from .encoding_entropy import entropy_figures, entropy_jobs, entropy_of
from .encoding_folding import measure_folding
from .encoding_gradients import GradientSetting, gradient_figures, gradient_settings, run_gradients
from .encoding_lenet import lenet_figures, lenet_settings, run_lenet
from .encoding_lgc import lgc_errors, lgc_figures, lgc_settings, table_jobs
from .encoding_rounds import Setting, run_setting
from .encoding_speed import CODECS, measure_speed
from .encoding_training import FULL_SEEDS, QUICK_SEEDS, training_figures, training_settings
from .harness.children import available_cpus
from .harness.parts import WORKERS, run_parts
from .harness.printing import benchmark_parser, print_table, progress
from .harness.targets import Figure
from .harness.workers import run_jobs

__all__ = ["FIGURES", "PARTS", "main"]

PARTS: Final = ("training", "entropy", "lgc", "gradients", "speed", "lenet")

FIGURES: Final = (
    Figure(
        "stateless_ratio_at_half_point",
        "training",
        "float32 over uplink bytes at half a point, no memory, 30 rounds",
        least=60.0,
        reference="EDEN 1 bit ~30, FedSZ 5.6-12.6",
        decimals=1,
    ),
    *(
        Figure(
            f"stateful_ratio_at_half_point.{split}",
            "training",
            f"the same with memory, 80 rounds, {split}",
            least=least,
            reference="STC 1 % 341, DGC 270-600 on large models",
            decimals=1,
        )
        for split, least in (("iid", 250.0), ("dirichlet", 150.0))
    ),
    *(
        Figure(f"stateful_wire_ratio.{split}", "training", f"the same with Flower's own bytes, {split}", decimals=1)
        for split in ("iid", "dirichlet")
    ),
    Figure("flower_framing_bytes", "training", "Flower's own bytes per message up", most=700.0, decimals=0),
    Figure(
        "roundtrip_ratio",
        "training",
        "float32 over bytes of both directions, first model included",
        least=60.0,
        reference="float32 down caps at 2",
        decimals=1,
    ),
    Figure("leader_lost_points", "training", "accuracy lost where the leader is missing every round", most=0.1),
    Figure("entropy_gap", "entropy", "support and signs over an adaptive code of 16 classes", most=1.05),
    Figure(
        "entropy_saving_over_rice",
        "entropy",
        "share saved of Rice codes",
        least=0.25,
        reference="DeepCABAC 0.27-0.34",
    ),
    Figure("lgc_gradient_loss_points", "gradients", "synchronous SGD: points under dense", most=0.2, reference="0.18"),
    Figure("lgc_gradient_ratio_over_dgc", "gradients", "its ratio over DGC's", least=1.0),
    *(
        Figure(f"{way}_over_memcpy.{name}", "speed", f"{way} {name}: speed over memcpy's", least=0.5)
        for way in ("encode", "decode")
        for name in CODECS
    ),
    Figure("fallback_gb_per_s", "speed", "GB/s of the slowest of these without compiled kernels", least=0.5),
    Figure("sparse_aggregate_speedup", "speed", "100 messages of 1 %: time of whole vectors over it", least=20.0),
    Figure("sparse_aggregate_peak_models", "speed", "its peak memory less one message, in models", most=2.0),
    Figure("lenet_ratio", "lenet", "LeNet on MNIST, 20 clients: float32 over uplink bytes", decimals=1),
    Figure("lenet_loss_points", "lenet", "points under the dense run", most=HALF_POINT),
)


@dataclass(frozen=True)
class _Call:
    """One job for a process: a function of this package, and what it is called with."""

    function: Callable[[Any], Any]
    job: Any
    name: str


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure and print; 0 also when a target is missed, 1 when a part could not be measured."""
    options = _parser().parse_args(arguments)
    asked = options.only or (PARTS[:5] if options.quick or options.mnist is None else PARTS)
    parts = [part for part in PARTS if part in asked]
    return run_parts(options, parts, FIGURES, _measure, _print, ("flower-edge", "flwr", "numpy", "torch", "numba"))


def _parser() -> argparse.ArgumentParser:
    parser = benchmark_parser("encoding", "What encoding saves and what it costs.")
    parser.add_argument(
        "--only", action="append", choices=PARTS, default=[], help="measure this part; may be given again"
    )
    parser.add_argument("--mnist", metavar="DIR", help="folder with MNIST's test files, for the part lenet (full form)")
    parser.add_argument("--seeds", type=int, metavar="N", help="the first N seeds instead of all, to try something out")
    return parser


# -- the parts -------------------------------------------------------------------------------------------------------


def _done(call: _Call) -> Any:
    """One job, in whatever process."""
    logging.getLogger("flwr").setLevel(logging.ERROR)
    return call.function(call.job)


def _named(call: _Call) -> str:
    return call.name


def _run(function: Callable[[Any], Any], jobs: Sequence[Any], name: Callable[[Any], str] = str) -> dict[Any, Any]:
    calls = [_Call(function, job, name(job)) for job in jobs]
    results = run_jobs(_done, calls, workers=min(WORKERS, available_cpus()), name=_named)
    return dict(zip(jobs, results, strict=True))


def _name_of(setting: Setting | GradientSetting) -> str:
    return setting.name


def _measure(parts: Sequence[str], options: argparse.Namespace) -> dict[str, Any]:
    quick = bool(options.quick)
    seeds = (QUICK_SEEDS if quick else FULL_SEEDS)[: options.seeds]
    figures: dict[str, Any] = {}
    if "lenet" in parts:
        load_dataset("mnist", path=options.mnist, size=28)  # a folder without the data is told now
    if "training" in parts:
        settings = training_settings(seeds, quick=quick)
        progress(f"training: {len(settings)} runs ...")
        figures |= training_figures(_run(run_setting, settings, _name_of), seeds, quick=quick)
    if "entropy" in parts:
        jobs = entropy_jobs(seeds, quick=quick)
        progress(f"entropy: {len(jobs)} runs whose updates are coded ...")
        figures |= entropy_figures(_run(entropy_of, jobs))
    if "lgc" in parts:
        settings, tables = lgc_settings(seeds, quick=quick), table_jobs(quick=quick)
        progress(f"lgc: {len(tables)} tables of errors, {len(settings)} runs ...")
        errors = _run(lgc_errors, tables)
        figures |= lgc_figures(_run(run_setting, settings, _name_of), errors)
    if "gradients" in parts:
        steps = gradient_settings(seeds, quick=quick)
        progress(f"gradients: {len(steps)} runs of synchronous SGD ...")
        figures |= gradient_figures(_run(run_gradients, steps, _name_of))
    if "lenet" in parts:
        runs = lenet_settings(options.mnist, seeds)
        progress(f"lenet: {len(runs)} runs ...")
        figures |= lenet_figures(_run(run_lenet, runs))
    if "speed" in parts:
        progress("speed, alone on the machine ...")
        figures |= measure_folding(progress) | measure_speed(progress, quick=quick)
    return figures


# -- tables ----------------------------------------------------------------------------------------------------------


def _print(found: Mapping[str, Any]) -> None:
    if "training" in found:
        _print_training(found["training"])
    if "entropy" in found:
        rows = [[split, *(f"{value:.1f}" for value in of.values())] for split, of in found["entropy"].items()]
        print_table("bytes per message of 1 %", ["split", *next(iter(found["entropy"].values()))], rows)
    if "lgc_table" in found:
        _print_lgc(found["lgc_table"])
    for split, of in found.get("lgc_gradient_mode", {}).items():
        rows = [
            [
                name + (" <" if name == of["chosen"] else ""),
                *(f"{told[key]:.2f}" for key in ("accuracy", "loss_points", "up_ratio", "down_ratio")),
            ]
            for name, told in of["codecs"].items()
        ]
        print_table(f"synchronous SGD, {split}", ["codec", "%", "points under dense", "ratio up", "down"], rows)
    if "speed" in found:
        rows = [[name, f"{value:.2f}"] for name, value in found["speed"].items()]
        print_table("GB/s of float32", ["what", "GB/s"], rows)


def _print_training(training: Mapping[str, Any]) -> None:
    for kind, of in training["candidates"].items():
        for split, choices in of.items():
            best = training["chosen"][kind][split]["name"]
            rows = [
                [
                    choice["name"] + (" <" if choice["name"] == best else ""),
                    f"{choice['ratio']:.1f}",
                    f"{choice['loss']:+.2f}",
                    f"{choice['loss_error']:.2f}",
                ]
                for choice in choices
            ]
            print_table(f"{kind}, {split}", ["codec", "ratio", "points lost", "±"], rows)


def _print_lgc(table: Mapping[str, Any]) -> None:
    for of, rows in table["errors"].items():
        scalars = list(rows[0]["scalar_nmse"])
        told = [
            [
                row["name"],
                f"{row['bytes_per_node']:.0f}",
                f"{row['lgc_nmse']:.3f}",
                *(f"{row['scalar_nmse'][name]:.3f}" for name in scalars),
                "open" if row["gate_open"] else "shut",
            ]
            for row in rows
        ]
        print_table(f"NMSE at equal bytes, {of}", ["way", "bytes", "LGC", *scalars, "gate"], told)
    for split, of in table["accuracies"].items():
        told = [
            [name, f"{row['up_bytes_per_message']:.0f}", f"{row['accuracy']:.2f}", f"{row['loss_points']:+.2f}"]
            for name, row in of.items()
        ]
        print_table(f"accuracy, {split}", ["values", "bytes a message", "%", "points lost"], told)


if __name__ == "__main__":
    sys.exit(main())
