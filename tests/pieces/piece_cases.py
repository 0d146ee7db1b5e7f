"""Chains of small models in this process: their works, what they have together, and the whole model to compare with."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from typing import Any

from split_cases import CASES, SGD, Case, Whole, make_order, pick

from flower_edge.models.zoo_torch import make_model
from flower_edge.pieces import Mode, PieceWork, Said, piece_orders, recombined, run_chain
from flower_edge.splitting import CutModel, OptimiserSpec
from flower_edge.splitting.frame import Kind

MLP = Case(
    "mlp", lambda: make_model("mlp", input_shape=(12,), num_classes=3, seed=0, hidden=(16, 16, 16, 16)), (12,), 3
)


EVERY = {**CASES, "mlp": MLP}


@cache
def cut_of(name: str) -> CutModel:
    """Cut once in a process: it is never written to."""
    return EVERY[name].cut_model()


def even(units: int, pieces: int) -> tuple[int, ...]:
    """Cuts into pieces of about as many units."""
    return tuple(units * place // pieces for place in range(1, pieces))


def works_of(
    case: Case,
    model: CutModel,
    whole: Whole,
    cuts: Sequence[int],
    *,
    mode: Mode = "exact",
    optimiser: OptimiserSpec = SGD,
    **changes: Any,
) -> list[PieceWork]:
    """One for each place, on the case's data."""
    x, y = case.data()
    work = make_order(1, optimiser=optimiser, **changes)
    found = []
    for order in piece_orders(work, len(model.units), cuts, mode=mode):
        part = pick(model, whole, (order.start, order.stop))
        data: dict[str, Any] = {"x": x, "y": y} if order.first else {}
        found.append(PieceWork(order, model, part.arrays, part.optimiser, **data))
    return found


def joined(model: CutModel, works: Sequence[PieceWork]) -> Whole:
    """What the pieces have together."""
    results = [work.result() for work in works]
    optimiser = {name: array for result in results for name, array in result.optimiser.items()}
    return Whole(recombined([result.arrays for result in results], model.model.state_dict()), optimiser)


def frames_of(works: Sequence[PieceWork]) -> list[tuple[int, Said]]:
    """Run a chain; all that was said, and the place that said it."""
    found: list[tuple[int, Said]] = []
    run_chain(works, heard=lambda place, said: found.append((place, said)))
    return found


def sent_bytes(frames: Sequence[tuple[int, Said]], kind: Kind) -> int:
    """Of the tensors of one kind."""
    return sum(tensor.nbytes for _, said in frames if said.frame.kind is kind for tensor in said.frame.tensors)
