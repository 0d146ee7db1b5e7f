"""Whether credits go to those who were useful: against exact Shapley values, and what a free-rider gets.

Eight nodes with equally many samples, of which 0 to 70 % have another label, ten rounds, everything on: gate, filter,
rewards out of a `RewardBook`. The reference is computed beside it, over all 256 coalitions of what the nodes sent in
every round, also of what was refused. Credits come from sampled Shapley values (`truncated`), so that a method is not
compared with itself; those of the exact method, and the reference on the separate test set, are reported beside them.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Literal

import numpy as np
from flwr.app import ArrayRecord, Message
from flwr.serverapp import strategy as flower
from scipy.stats import spearmanr

from flower_edge.contribution.exact import exact_shapley
from flower_edge.filtering.judging import Evaluate
from flower_edge.rewards.budget import Budget
from flower_edge.rewards.enrolment import Enrolment
from flower_edge.rounds import Round
from flower_edge.runtime.local_grid import LocalGrid
from flower_edge.store.reward_book import RewardBook
from flower_edge.strategies import Layer, Layered
from flower_edge.strategies.layers import Stage
from flower_edge.strategies.rewards.rewarded import Rewarded
from flower_edge.updates.manifest import whole_manifest
from flower_edge.updates.merges import Merges
from flower_edge.updates.update import Update
from flower_edge.wire import model_spec

from .filtering_attacks import FREE_RIDERS, Attacked
from .filtering_gate import Verdicts, gate
from .filtering_task import arrays_of, client_app, equal_shares, first_model, held_out_score, score_on_test
from .harness.figures import mean_and_error

__all__ = ["Rewarding", "correlation_figures", "free_rider_figures", "rewarding_jobs", "run_rewarding"]

NODES: Final = 8
ROUNDS: Final = 10
NOISE: Final = tuple(0.1 * node for node in range(NODES))
_POT: Final = 1_000_000
_RUN: Final = "benchmark"

_SHARES: Final[Mapping[str, str]] = {
    "unchanged": "free_rider_share",
    "little-noise": "free_rider_share_little_noise",
    "last-step": "free_rider_share_last_step",
}

Method = Literal["truncated", "exact"]
_METHODS: Final[tuple[Method, ...]] = ("truncated", "exact")


@dataclass(frozen=True)
class Rewarding:
    """One run in which credits are paid.

    Attributes:
        seed: of everything.
        method: how contributions are measured.
        free_rider: of `FREE_RIDERS`: what node 0 does in place of training; empty for noisy labels in its place.
        rounds: how many.
    """

    seed: int
    method: Method = "truncated"
    free_rider: str = ""
    rounds: int = ROUNDS

    def __str__(self) -> str:
        return f"{self.free_rider or 'label noise'}, {self.method}, seed {self.seed}"


@dataclass(frozen=True)
class Paid:
    """What came of it, by node.

    Attributes:
        credits: micro-credits in all.
        held_out, test: exact Shapley values on the edge's data and on the test set, summed over the rounds, where those
            outside a coalition count as not moved, as credits do.
        left_out: on the edge's data where they are left out of the mean, as in the papers.
    """

    credits: tuple[int, ...]
    held_out: tuple[float, ...]
    test: tuple[float, ...]
    left_out: tuple[float, ...]


class Reference(Layer[None]):
    """Exact Shapley values of all that nodes send, nearest to the wire; changes nothing.

    Args:
        scores: by name, what a model is scored by, and whether those outside a coalition count as not moved.
    """

    stage = Stage.COUNT

    def __init__(self, scores: Mapping[str, tuple[Evaluate, bool]]) -> None:
        self._scores = scores
        self._sent: dict[int, tuple[ArrayRecord, float]] = {}
        self.values = {name: np.zeros(NODES) for name in scores}

    def inbound(self, state: None, round: Round, replies: list[Message]) -> tuple[list[Message], None]:
        """The replies as they are, noted."""
        for reply in replies:
            if not reply.has_error():
                content = reply.content
                weight = float(content["metrics"]["num-examples"])  # type: ignore[arg-type]
                # Some strategies empty the reply's own record.
                record = ArrayRecord(dict(content["arrays"].items()))
                self._sent[reply.metadata.src_node_id] = (record, weight)
        return replies, None

    def merged(self, state: None, round: Round, before: ArrayRecord, after: ArrayRecord) -> tuple[ArrayRecord, None]:
        """Adds this round's values."""
        base, manifest = arrays_of(before), whole_manifest(model_spec(before))
        updates = [
            Update(str(node), arrays_of(record), base, weight, manifest)
            for node, (record, weight) in sorted(self._sent.items())
        ]
        self._sent = {}
        merges = Merges(base, updates)
        for name, (score, idle) in self._scores.items():
            everybody = range(len(updates)) if idle else ()
            self.values[name] += exact_shapley(_worth(score, merges, everybody), len(updates)).values
        return after, None


def _worth(score: Evaluate, merges: Merges, idle: Iterable[int]) -> Callable[[frozenset[int]], float]:
    return lambda coalition: -score(merges.of(coalition, idle)).loss


def rewarding_jobs(seeds: Sequence[int]) -> list[Rewarding]:
    """Noisy labels by both methods, and each kind of free-rider, per seed."""
    return [
        *(Rewarding(seed, method) for seed in seeds for method in _METHODS),
        *(Rewarding(seed, free_rider=kind) for seed in seeds for kind in FREE_RIDERS),
    ]


def run_rewarding(job: Rewarding) -> Paid:
    """Run it, and read what was paid out of the book."""
    noise = (0.0,) * NODES if job.free_rider else NOISE
    shares = equal_shares(noise, job.seed)
    reference = Reference(
        {
            "held_out": (lambda arrays: held_out_score(shares, arrays), True),
            "test": (lambda arrays: score_on_test(shares, arrays), True),
            "left_out": (lambda arrays: held_out_score(shares, arrays), False),
        }
    )
    with tempfile.TemporaryDirectory() as folder, RewardBook(Path(folder) / "rewards.sqlite") as book:
        rewarded = Rewarded(
            lambda arrays: held_out_score(shares, arrays),
            budget=Budget(per_round=_POT),
            book=book,
            run=_RUN,
            enrolled={node: Enrolment(most_examples=size) for node, size in shares.sizes.items()},
            method=job.method,
            seed=job.seed,
        )
        with LocalGrid(client_app(shares), NODES, seed=job.seed) as local:
            riders = list(local.get_node_ids())[:1] if job.free_rider else []
            grid = Attacked(local, FREE_RIDERS[job.free_rider], riders, job.seed) if riders else local
            layers = (rewarded, *gate(shares, Verdicts()), reference)
            Layered(flower.FedAvg(fraction_evaluate=0.0), *layers).start(grid, first_model(job.seed), job.rounds)
        balances = book.balances(_RUN)
    return Paid(
        tuple(balances.get(str(node), 0) for node in range(NODES)),
        tuple(reference.values["held_out"].tolist()),
        tuple(reference.values["test"].tolist()),
        tuple(reference.values["left_out"].tolist()),
    )


def correlation_figures(outcomes: Mapping[Rewarding, Paid]) -> dict[str, Any]:
    """`reward_rank_correlation`, mean over the draws, and under `correlations` what it is compared with."""
    told: dict[str, Any] = {}
    for method in _METHODS:
        chosen = [of for job, of in outcomes.items() if job.method == method and not job.free_rider]
        for against in ("held_out", "test", "left_out"):
            found = [float(spearmanr(of.credits, getattr(of, against)).statistic) for of in chosen]
            mean, error = mean_and_error(found)
            told[f"{method}_{against}"] = {"mean": mean, "se": error, "by_draw": found}
        credits = np.mean([np.array(of.credits) / max(sum(of.credits), 1) for of in chosen], axis=0)
        told[f"{method}_share_by_noise"] = {
            f"{noise:.0%}": float(share) for noise, share in zip(NOISE, credits, strict=True)
        }
    return {
        "reward_rank_correlation": told["truncated_held_out"]["mean"],
        "reward_rank_correlation_se": told["truncated_held_out"]["se"],
        "correlations": told,
    }


def free_rider_figures(outcomes: Mapping[Rewarding, Paid]) -> dict[str, Any]:
    """What free-riders are paid over the mean of the honest nodes.

    `free_rider_share` is one that sends the model back as it came; those that take more care are beside it.
    """
    found: dict[str, Any] = {}
    for kind, key in _SHARES.items():
        chosen = [of.credits for job, of in outcomes.items() if job.free_rider == kind]
        shares = [credits[0] / max(float(np.mean(credits[1:])), 1.0) for credits in chosen]
        found[key], found[f"{key}_se"] = mean_and_error(shares)
    return found
