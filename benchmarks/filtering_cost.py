"""What gate and cheap tests cost per reply, over one `x.max()` of the same array; deserialising is in neither.

Ten million numbers, twenty replies, as they lie in the messages: NumPy's own bytes, looked at in place. Measured is the
gate's whole answer (labels, counts, bytes, every number finite), and `Norm` and `Cosine` as the filter asks them, which
looks once more whether every number is finite. The least of several repetitions counts, since others may use the
machine.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any, Final

import numpy as np
from flwr.app import Array

from flower_edge.admission.assignment import Assignment
from flower_edge.admission.gate import Gate, Offer
from flower_edge.errors import EdgeError
from flower_edge.filtering.cosine import Cosine
from flower_edge.filtering.held_out import WithAndWithout
from flower_edge.filtering.judging import Judge
from flower_edge.filtering.norm import Norm
from flower_edge.filtering.trial import try_updates
from flower_edge.updates.manifest import Manifest, whole_manifest
from flower_edge.updates.npy import npy_view
from flower_edge.updates.update import Update

from .filtering_task import arrays_of, first_model, held_out_score, uneven_shares

__all__ = ["PARAMS", "REPLIES", "cost_figures"]

PARAMS: Final = 10_000_000
REPLIES: Final = 20
_NAME: Final = "weight"


def cost_figures(*, params: int = PARAMS, replies: int = REPLIES, repetitions: int = 5) -> dict[str, Any]:
    """`gate_cost_ratio`, its parts under `gate_cost`, and what an evaluation on held-out data takes."""
    rng = np.random.default_rng(0)
    base = rng.standard_normal(params, dtype=np.float32)
    spec = {_NAME: ((params,), "float32")}
    manifest = whole_manifest(spec)
    sent = [Array(base + 0.01 * rng.standard_normal(params, dtype=np.float32)) for _ in range(replies)]
    views = [npy_view(array.data, "float32", (params,)) for array in sent]
    updates = [Update(str(node), {_NAME: view}, {_NAME: base}, 10.0, manifest) for node, view in enumerate(views)]

    def gate() -> None:
        for node, array in enumerate(sent):
            _admitted(node, array, manifest)

    def judged(*judges: Judge) -> Callable[[], None]:
        def ask() -> None:
            said = try_updates(judges, updates, np.random.default_rng(1))
            if said.refused:
                raise EdgeError(f"an honest reply was refused: {said.refused}")

        return ask

    def largest() -> None:
        for view in views:
            view.max()

    measured = {
        "x_max": largest,
        "gate": gate,
        "norm": judged(Norm()),
        "cosine": judged(Cosine()),
        "norm_and_cosine": judged(Norm(), Cosine()),
    }
    least_s = dict.fromkeys(measured, float("inf"))
    for _ in range(repetitions):
        for name, ask in measured.items():
            least_s[name] = min(least_s[name], _took_s(ask))
    per_reply_ms = {name: 1e3 * took_s / replies for name, took_s in least_s.items()}
    whole = per_reply_ms["gate"] + per_reply_ms["norm_and_cosine"]
    return {
        "gate_cost_ratio": whole / per_reply_ms["x_max"],
        "gate_cost": {
            "params": params,
            "replies": replies,
            "ms_per_reply": per_reply_ms,
            "over_x_max": {name: took / per_reply_ms["x_max"] for name, took in per_reply_ms.items()},
        },
        "held_out": _held_out(repetitions),
    }


def _admitted(node: int, array: Array, manifest: Manifest) -> None:
    offer = Offer({"arrays": {_NAME: array}}, {"metrics": {"num-examples": 10}}, size_bytes=len(array.data), run_id=1)
    refusal = Gate().refusal(offer, Assignment(str(node), manifest, run_id=1, most_examples=10))
    if refusal is not None:
        raise EdgeError(f"an honest reply was refused: {refusal}")


def _held_out(repetitions: int) -> dict[str, float]:
    """Of the benchmark's own model: one evaluation, and how many a round of twenty replies takes."""
    shares = uneven_shares(0.5, 0)
    model = arrays_of(first_model(0))
    rng = np.random.default_rng(2)
    manifest = whole_manifest({name: (array.shape, str(array.dtype)) for name, array in model.items()})
    updates = [
        Update(
            str(node),
            {name: array + 0.01 * rng.standard_normal(array.shape, dtype=np.float32) for name, array in model.items()},
            model,
            10.0,
            manifest,
        )
        for node in range(REPLIES)
    ]
    judge = WithAndWithout(lambda arrays: held_out_score(shares, arrays))
    cost = judge.judge(updates, rng).cost
    return {
        "seconds_per_evaluation": min(_took_s(lambda: held_out_score(shares, model)) for _ in range(4 * repetitions)),
        "evaluations_per_reply": cost["evaluations"] / REPLIES,
        "seconds_per_round": min(_took_s(lambda: judge.judge(updates, rng)) for _ in range(repetitions)),
    }


def _took_s(ask: Callable[[], object]) -> float:
    began_s = time.perf_counter()
    ask()
    return time.perf_counter() - began_s
