"""A model in pieces on several machines: cut, trained exactly as one or each by itself, and put together again.

order, said           what a piece is told, and what it says
cuts, heads           where a model can be cut; units, orders and arrays of its pieces; heads_torch: a first head
balance               cuts for the machines there are
piece_work_torch      a piece at work: exact_torch, decoupled_torch, and held_torch, which both stand on
running               all pieces of a chain in this process
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..lazy import lazy

if TYPE_CHECKING:
    from .balance import balanced
    from .cuts import check_cuts, piece_orders, pieces_of, recombined
    from .heads import head_positions
    from .heads_torch import make_head
    from .order import Mode, PieceOrder
    from .piece_work_torch import PieceWork
    from .results import PieceResult
    from .running import run_chain
    from .said import Said

__all__ = [
    "Mode",
    "PieceOrder",
    "PieceResult",
    "PieceWork",
    "Said",
    "balanced",
    "check_cuts",
    "head_positions",
    "make_head",
    "piece_orders",
    "pieces_of",
    "recombined",
    "run_chain",
]

_MODULES = {
    "balance": ("balanced",),
    "cuts": ("check_cuts", "piece_orders", "pieces_of", "recombined"),
    "heads": ("head_positions",),
    "heads_torch": ("make_head",),
    "order": ("Mode", "PieceOrder"),
    "piece_work_torch": ("PieceWork",),
    "results": ("PieceResult",),
    "running": ("run_chain",),
    "said": ("Said",),
}

__getattr__, __dir__ = lazy(__name__, __all__, _MODULES)
