"""`PieceRound`: a round of pieces, attempt by attempt, until every chain has ended it or is dropped.

A chain that loses a terminal begins its round again with another one in its place, from where the round began; the
other chains need not wait for it. It is a generator of messages; nothing here sends or merges.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from logging import getLogger

from flwr.app import Message

from flower_edge.errors import NobodyContributed

from .merging import samples_of
from .plane import Carried, ChainTask, PiecePlane, PieceTask
from .records import PieceRecords
from .reseating import Room, reseated
from .seating import Chain, DataFrom, Terminal
from .tasks import TaskMaker

__all__ = ["PieceRound"]

log = getLogger("flwr.edge")


@dataclass
class PieceRound:
    """Of one round.

    Attributes:
        chains: with their spans.
        spares: terminals that are there and have no place.
        maker: of tasks and messages.
        room: who can hold which units.
        data: who has samples.
        records: are told.
        finished: chains that have ended the round, in the order of their numbers, once it is over.
        dropped: why chains have not, by number.
    """

    chains: Sequence[Chain]
    spares: Sequence[Terminal]
    maker: TaskMaker
    room: Room
    data: DataFrom
    records: PieceRecords
    finished: list[ChainTask] = field(default_factory=list)
    dropped: dict[int, str] = field(default_factory=dict)
    _asked: dict[int, PieceTask] = field(default_factory=dict)

    def exchanges(self, plane: PiecePlane) -> Carried:
        """Messages of one exchange after the other; replies come back.

        Raises:
            NobodyContributed: every chain was dropped.
        """
        left, attempts = list(self.chains), dict.fromkeys((chain.number for chain in self.chains), 0)
        while left:
            tasks = [self.maker.chain(chain, attempts[chain.number]) for chain in left]
            self._asked |= {task.node: task for chain in tasks for task in chain.tasks}
            yield from plane.carry(tasks, self.maker.message)
            again: list[Chain] = []
            for chain, task in zip(left, tasks, strict=True):
                self.records.attempted(self.maker.round, chain, task)
                if task.done and not task.lost:
                    self.finished.append(task)
                elif (seated := self._again(chain, task)) is not None:
                    attempts[chain.number] += 1
                    again.append(seated)
            left = again
        self.finished.sort(key=lambda chain: chain.number)
        if not self.finished:
            first = next(iter(self.dropped.items()))
            raise NobodyContributed(
                f"round {self.maker.round}: all {len(self.dropped)} chains were dropped; the first, chain {first[0]}: "
                f"{first[1]}",
                frozenset(self._asked),
            )

    def last(self) -> list[Message]:
        """Messages of the last exchange: whoever was asked and is there may forget the round.

        Each terminal of a chain replies with its share of the samples behind it, so that what the round weighs does not
        hang on one that has left meanwhile: what its chain made is here.
        """
        shares = dict.fromkeys(self._asked, 0)
        for chain in self.finished:
            samples, pieces = samples_of(chain), len(chain.tasks)
            for place, task in enumerate(chain.tasks):
                shares[task.node] = samples * (place + 1) // pieces - samples * place // pieces
        return [self.maker.ending(task, shares[node]) for node, task in self._asked.items() if not task.lost]

    def _again(self, chain: Chain, task: ChainTask) -> Chain | None:
        """The chain with others in place of those that are gone; None: it is dropped."""
        round, lost = self.maker.round, task.lost
        found = reseated(chain, lost, self.spares, self.room, self.data)
        self.spares = found.spares
        why = "; ".join(dict.fromkeys(task.tasks[place].lost for place in lost))
        for text, values in found.told:
            what = "piece-reassigned" if found.chain is not None else "chain-dropped"
            self.records.tell(what, f"round {round}: {text} ({why})", str(values.get("to", "")), **values)
            log.warning("\tround %d: %s", round, text)
        if found.chain is None:
            self.dropped[chain.number] = f"{found.told[-1][0]} ({why})"
            self.spares = (*self.spares, *(one for place, one in enumerate(chain.terminals) if place not in lost))
        return found.chain
