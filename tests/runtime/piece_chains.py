"""Chains without models over real channels: orders, pieces that say frames in turn, and terminals in threads."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from flower_edge.clients.pieces_stream import Figures, converse
from flower_edge.pieces.order import PieceOrder
from flower_edge.pieces.said import Said
from flower_edge.runtime.pieces.channel import PURPOSE, turns
from flower_edge.runtime.pieces.job import ChainJob
from flower_edge.runtime.pieces.messages import PieceCall
from flower_edge.runtime.pieces.service import Patience, PieceService
from flower_edge.splitting.frame import Frame, Kind
from flower_edge.splitting.order import ArchitectureSpec, WorkOrder
from flower_edge.splitting.profile import CutProfile, ModelProfile, UnitProfile
from flower_edge.transport.credentials import Insecure
from flower_edge.transport.grpc_transport import GrpcTransport
from flower_edge.transport.transport import Connection, Hello

SESSION, ROUND, STEPS = "a-session", 2, 3
MODEL = ArchitectureSpec(name="none", input_shape=(6,), num_classes=3)
WIDTHS = (6, 4, 5, 7, 3)
PROFILE = ModelProfile(
    tuple(UnitProfile(str(i), 0.0, 0.0) for i in range(len(WIDTHS) - 1)),
    tuple(CutProfile(i, ((width,),), (True,)) for i, width in enumerate(WIDTHS)),
)
PATIENCE = Patience(silence_s=60.0, dial_s=60.0)


def chain(pieces: int = 3, *, number: int = 0, mode: Any = "exact", steps: int = STEPS) -> tuple[PieceOrder, ...]:
    """Orders by place; the last piece has the units that are left."""
    ends = [*range(1, pieces), len(WIDTHS) - 1]
    work = WorkOrder(
        round=ROUND, number=number, architecture=MODEL, cut=1, first_step=5, steps=steps, batch_size=2, seed=1
    )
    return tuple(
        PieceOrder(
            work=work.model_copy(update={"cut": stop}),
            start=start,
            stop=stop,
            place=place,
            pieces=pieces,
            mode=mode,
        )
        for place, (start, stop) in enumerate(zip([0, *ends], ends, strict=False))
    )


def frame_of(order: PieceOrder, kind: Kind, step: int, to: str) -> Frame:
    """What a piece says: numbers that tell who said them."""
    width = WIDTHS[order.stop if to == "next" else order.start]
    x = np.full((2, width), 100 * order.place + step, np.float32)
    if kind is Kind.ACTIVATIONS:
        return Frame(kind, step, (x,), np.array([0, 1]))
    return Frame(kind, step, (x,), loss=0.5)


class Piece:
    """Says frames in turn, keeps those it hears. `slow_s` seconds for each that it takes; `stops` after so many."""

    def __init__(self, order: PieceOrder, *, slow_s: float = 0.0, stops: int | None = None) -> None:
        self.order, self.script, self.heard = order, list(turns(order)), []
        self.slow_s, self.stops, self.said = slow_s, stops, 0

    def take(self, frame: Frame | None) -> Sequence[Said]:
        time.sleep(self.slow_s)
        if frame is not None:
            self.heard.append(frame)
            assert not self.script.pop(0).says
        if self.stops is not None and len(self.heard) == self.stops:
            raise RuntimeError("out of memory")
        out = []
        while self.script and self.script[0].says:
            turn = self.script.pop(0)
            out.append(Said(turn.side, frame_of(self.order, turn.kind, turn.step, turn.side)))
            self.said += 1
            if frame is None:
                break
        return out


def call_of(service: PieceService, order: PieceOrder, token: str, **changes: Any) -> PieceCall:
    address = f"127.0.0.1:{service.port}"
    told = {"session": SESSION, "piece": order, "plane": "stream", "address": address, "token": token}
    return PieceCall(**{**told, **changes})


Made = Callable[[PieceOrder], Piece]


def run(
    service: PieceService,
    chains: Sequence[tuple[PieceOrder, ...]],
    tokens: dict[tuple[int, int], str],
    make: Made = Piece,
    within_s: float = 20.0,
    **changes: Any,
) -> dict[tuple[int, int], tuple[Piece, Figures] | Exception]:
    """All terminals of some chains in threads of their own; what came of each."""
    found: dict[tuple[int, int], tuple[Piece, Figures] | Exception] = {}

    def terminal(order: PieceOrder) -> None:
        key = (order.work.number, order.place)
        try:
            found[key] = converse(call_of(service, order, tokens[key], **changes), lambda: (make(order), PROFILE))
        except Exception as error:
            found[key] = error

    threads = [threading.Thread(target=terminal, args=(order,)) for orders in chains for order in orders]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(within_s)
    assert not any(thread.is_alive() for thread in threads)
    return found


def begun(service: PieceService, *chains: tuple[PieceOrder, ...]) -> dict[tuple[int, int], str]:
    return service.begin(SESSION, ROUND, {orders[0].work.number: ChainJob(orders, PROFILE) for orders in chains})


def dial(service: PieceService, order: PieceOrder, shown: str, **changes: Any) -> Connection:
    data = {"round": ROUND, "place": order.place}
    says = {"purpose": PURPOSE, "run": SESSION, "node": order.work.number, "token": shown, "data": data}
    return GrpcTransport(Insecure()).dial(f"127.0.0.1:{service.port}", Hello(**(says | changes)))


def settled_threads(most: int) -> int:
    """Threads there are, as soon as they are no more than `most`; those of gRPC end a little later than their calls."""
    until_s = time.monotonic() + 60.0
    while threading.active_count() > most and time.monotonic() < until_s:
        time.sleep(0.02)
    return threading.active_count()
