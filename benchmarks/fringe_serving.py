"""What a served pipeline takes before and after compression, and while its version is swapped: real processes, real
sockets, TLS, and links that a relay between the processes makes as slow as they are meant to be.

    python -m benchmarks.fringe_serving [--quick] [--json]

`benchmarks.fringe` takes these figures in. Everything that is compared takes turns within one run, because what else a
machine does meanwhile changes milliseconds: trust the figures of a machine that does nothing else. Frames are delayed,
the way back is not, as in the model that reductions are computed with; both ways delayed is told beside it.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from statistics import median
from typing import Any, Final

import numpy as np
import torch
from numpy.typing import NDArray

from flower_edge.fringe.links import Link
from flower_edge.fringe.pipeline_torch import Pipeline
from flower_edge.runtime.fringe.modelled import modelled

from .fringe_serving_hosts import Hosts
from .fringe_serving_models import BEFORE, COMPRESSED, HEALED, Served, served_versions
from .fringe_serving_swaps import Windows, swapping
from .fringe_task import LINKS, parts
from .harness.printing import benchmark_parser, print_json, print_table, progress
from .harness.targets import Figure

__all__ = ["FIGURES", "main", "measure"]

FIGURES: Final = (
    Figure("swap_lost", "serving", "requests without an answer, of all", most=0, decimals=0),
    Figure("swap_mixed", "serving", "answers that are not their version's, bit for bit", most=0, decimals=0),
    Figure("swap_p99_ratio", "serving", "p99 of requests during swaps, over that of the same without", most=1.2),
    Figure("latency_model_error", "serving", "worst version: |measured - modelled| / measured p50", most=0.1),
    Figure("pipeline_speedup", "serving", "p50 at 32 bits over p50 with the pair", least=4.0),
)
#: Inputs that are asked about.
_SAMPLES: Final = 16
#: Links are those that this version's frames measured; its own latency is modelled with those of `BEFORE`.
_MEASURES_LINKS: Final = "16 bits"


@dataclass(frozen=True)
class _Plan:
    """How much is measured."""

    rounds: int
    requests: int
    windows: Windows


_PLANS: Final = {
    True: _Plan(8, 10, Windows(pairs=20, seconds_s=3.0)),
    False: _Plan(20, 15, Windows(pairs=60, seconds_s=3.0)),
}


class Answers:
    """Whether answers are those of the version that they name.

    Args:
        samples: inputs [samples, ...] that are asked about.
    """

    def __init__(self, samples: NDArray[np.float32]) -> None:
        self._samples = samples
        self._expected: dict[int, list[NDArray[Any]]] = {}
        self._known: dict[int, list[NDArray[Any]]] = {}
        self.asked = self.lost = self.mixed = 0

    def serves(self, version: int, pipeline: Pipeline) -> None:
        """What a version gives, computed here."""
        if id(pipeline) not in self._known:
            inputs = torch.from_numpy(self._samples)
            self._known[id(pipeline)] = [pipeline.run(one[None]).numpy() for one in inputs]
        self._expected[version] = self._known[id(pipeline)]

    def check(self, answers: list[dict[str, Any]]) -> None:
        """Count them."""
        for one in answers:
            self.asked += 1
            if "lost" in one:
                self.lost += 1
                progress(f"lost: {one['lost']}")
                continue
            expected = self._expected.get(one["version"])
            given = np.array(one["output"], np.float32)
            if expected is None or not np.array_equal(given, expected[one["sample"]]):
                self.mixed += 1


def measure(
    quick: bool,
    *,
    seed: int = 0,
    folder: str | None = None,
    served: Served | None = None,
    links: tuple[Link, ...] = LINKS,
    plan: _Plan | None = None,
    told: Callable[[str], None] = progress,
) -> dict[str, Any]:
    """All figures.

    Args:
        quick: fewer requests, and a pair that was trained for a shorter time.
        seed: of pictures and base model.
        folder: of kept models, see `fringe_base.cache_folder`.
        served: what is served; None: see `served_versions`.
        links: between the machines.
        plan: how much is measured; None: as `quick` says.
        told: what is said meanwhile.

    Returns:
        Plain values: the keys of `FIGURES`, and what they are made of.
    """
    torch.set_num_threads(1)
    plan = plan or _PLANS[quick]
    served = served or served_versions(quick, seed=seed, folder=folder)
    samples = parts(seed).test.x[:_SAMPLES]
    answers = Answers(samples)
    told("serving: starting stages, links and traffic")
    with Hosts(served.pipelines[BEFORE], links, samples) as hosts:
        versions = _loaded(hosts, served, answers)
        one_way = _latencies(hosts, versions, plan, answers, told)
        hosts.delay_back(True)
        told("serving: both ways delayed")
        both_ways = _alternating(hosts, {name: versions[name] for name in (BEFORE, COMPRESSED)}, plan, answers)
        hosts.delay_back(False)
        pair = {name: served.pipelines[name] for name in (COMPRESSED, HEALED)}
        swaps = swapping(hosts, pair, plan.windows, answers.serves, answers.check, told)
    table = one_way["versions"]
    errors = [row["error"] for row in table.values()]
    return {
        "swap_lost": answers.lost,
        "swap_mixed": answers.mixed,
        "swap_p99_ratio": swaps["ratio"],
        "latency_model_error": max(errors),
        "pipeline_speedup": table[BEFORE]["p50_ms"] / table[COMPRESSED]["p50_ms"],
        "latency_model_error_median": median(errors),
        "pipeline_speedup_limit": table[BEFORE]["p50_ms"] / (1e3 * sum(link.delay_s for link in links)),
        "pipeline_speedup_both_ways": both_ways[BEFORE] / both_ways[COMPRESSED],
        "serving": {
            "requests": answers.asked,
            "test_percent": list(served.test_percent),
            "latency": one_way,
            "both_ways_p50_ms": {name: 1e3 * p50_s for name, p50_s in both_ways.items()},
            "swaps": swaps,
        },
    }


def _loaded(hosts: Hosts, served: Served, answers: Answers) -> dict[str, int]:
    """All versions on all machines at once, so that to change between them is a flip."""
    numbers = {BEFORE: hosts.deployment.version or 0}
    for name, pipeline in served.pipelines.items():
        if name not in (BEFORE, HEALED):
            numbers[name] = hosts.deployment.swap(pipeline).version
    for name, number in numbers.items():
        answers.serves(number, served.pipelines[name])
    return numbers


def _alternating(
    hosts: Hosts,
    versions: Mapping[str, int],
    plan: _Plan,
    answers: Answers,
    after: Callable[[str], None] = lambda _: None,
) -> dict[str, float]:
    """Median seconds of each version's requests, one after the other; versions take turns."""
    taken: dict[str, list[float]] = {name: [] for name in versions}
    for _ in range(plan.rounds):
        for name, number in versions.items():
            if hosts.deployment.version != number:
                hosts.deployment.roll_back(number)
            answers.check(hosts.each(2))  # what comes first after a change finds nothing warm
            found = hosts.each(plan.requests)
            answers.check(found)
            taken[name] += [one["seconds_s"] for one in found if "lost" not in one]
            after(name)
    return {name: median(each) for name, each in taken.items()}


def _latencies(
    hosts: Hosts, versions: Mapping[str, int], plan: _Plan, answers: Answers, told: Callable[[str], None]
) -> dict[str, Any]:
    """Measured and modelled. No term of the model is fitted to these latencies.

    Goodput is that of another version's frames, what is neither links nor computing that of requests which carry
    nothing; both are measured in turn with what they are to explain.
    """
    told("serving: one request at a time")
    links: dict[str, list[tuple[Link, ...]]] = {BEFORE: [], _MEASURES_LINKS: []}
    null_s: list[float] = []
    models: dict[str, Any] = {}

    def after(name: str) -> None:
        if name in links:
            links[name].append(tuple(one.link for one in hosts.deployment.links()))
        null_s.extend(one["seconds_s"] for one in hosts.each(plan.requests, null=True))

    measured_s = _alternating(hosts, versions, plan, answers, after)
    for name, number in versions.items():
        hosts.deployment.roll_back(number)
        of = links[BEFORE if name == _MEASURES_LINKS else _MEASURES_LINKS]
        ways = [
            Link(median(x.goodput_bps for x in each), median(x.delay_s for x in each)) for each in zip(*of, strict=True)
        ]
        one = modelled(hosts.deployment, links=ways, null_s=median(null_s))
        measured, said = 1e3 * measured_s[name], 1e3 * one.latency_s
        models[name] = {
            "bytes": [connection.size_bytes for connection in hosts.deployment.pipeline.connections],
            "p50_ms": measured,
            "modelled_ms": said,
            "error": abs(measured - said) / measured,
            "compute_ms": [1e3 * each for each in one.compute_s],
            "rest_ms": 1e3 * one.rest_s,
            "goodput_mbps": [each.goodput_bps / 1e6 for each in ways],
        }
    return {"versions": models, "null_ms": 1e3 * median(null_s), "requests": plan.rounds * plan.requests}


def _show(found: Mapping[str, Any]) -> None:
    serving = found["serving"]
    print_table(
        f"One request at a time, {serving['latency']['requests']} of each version in turn",
        ["version", "bytes", "p50 ms", "model ms", "off", "computing ms"],
        [
            [
                name,
                str(sum(row["bytes"])),
                f"{row['p50_ms']:.1f}",
                f"{row['modelled_ms']:.1f}",
                f"{100 * row['error']:.1f} %",
                f"{sum(row['compute_ms']):.1f}",
            ]
            for name, row in serving["latency"]["versions"].items()
        ],
    )
    print_table(
        "Figures",
        ["figure", "value", "wanted"],
        [[figure.key, figure.shown(found[figure.key]), figure.target] for figure in FIGURES],
    )
    swaps = serving["swaps"]
    print(
        f"{swaps['swaps']} swaps, {swaps['during']} requests during one: p50 {swaps['during_p50_ms']:.1f} ms and p99 "
        f"{swaps['during_p99_ms']:.1f} ms; the same requests without {swaps['steady_p50_ms']:.1f} and "
        f"{swaps['steady_p99_ms']:.1f} ms. Ratio {swaps['ratio']:.2f}, 95 % within "
        f"{swaps['interval'][0]:.2f} to {swaps['interval'][1]:.2f}."
    )


def main(arguments: list[str] | None = None) -> int:
    """Measure and print; the last line is one JSON object with `--json`."""
    parser = benchmark_parser("benchmarks.fringe_serving", "Figures of a served pipeline.")
    options = parser.parse_args(arguments)
    began_s = time.monotonic()
    found = measure(options.quick)
    if options.json:
        print_json({**found, "took_s": time.monotonic() - began_s})
    else:
        _show(found)
    return 0


if __name__ == "__main__":
    sys.exit(main())
