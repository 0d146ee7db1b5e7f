"""`Replicas`: who can follow whom, where a codec tells changes (`Delta`); asks for whole models where somebody cannot.

A change means something to those only who hold what it changes. The server decodes every worker's packets, too, and
knows over which links they went. So it sees most gaps coming: a link that was at rest, a worker that begins afresh. The
others it is told of. It answers with an order to post one plain packet, the same for all neighbours; packets of a few
rounds are kept for those who were away. With a codec that tells whole models there is nothing to do.

Numbers only; nothing here decodes, sends or knows a topology.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Set
from dataclasses import dataclass, field
from typing import Any, Final

__all__ = ["CATCH_UP", "Replicas"]

#: For how many rounds packets are kept for those who missed some.
CATCH_UP: Final = 4
#: Packets of more rounds than these are never sent at once.
MOST_MISSED: Final = 16

#: Receiver and sender, by number.
Pair = tuple[int, int]


@dataclass
class Replicas:
    """What a server keeps of it between two rounds.

    Attributes:
        used: whether the codec tells changes.
        direct: whether packets reach neighbours without passing through the server.
        wanted: workers whose next packet is to be a plain one.
        read_in: the round of the packet of each worker that could be read last.
        plain_in: the round in which each worker posted a plain packet last.
        told: the round of the newest packet that each receiver has dealt with, by pair.
        telling: the same, of those that it is told of in this round.
        granted: the last round in which a receiver's wish was granted, by pair.
        asked: workers that were asked in the last round, or are in this one, and have not answered.
        carried: links over which packets went in the last round; None before any.
        greeted: workers that begin afresh, whose neighbours have been asked already.
    """

    used: bool
    direct: bool = False
    wanted: set[int] = field(default_factory=set)
    read_in: dict[int, int] = field(default_factory=dict)
    plain_in: dict[int, int] = field(default_factory=dict)
    told: dict[Pair, int] = field(default_factory=dict)
    telling: dict[Pair, int] = field(default_factory=dict)
    granted: dict[Pair, int] = field(default_factory=dict)
    asked: set[int] = field(default_factory=set)
    carried: set[Pair] | None = None
    greeted: set[int] = field(default_factory=set)

    @property
    def catch_up(self) -> int:
        """For how many rounds more than without packets are kept."""
        return CATCH_UP if self.used else 0

    # -- before a round ----------------------------------------------------------------------------------------------

    def begin(self) -> None:
        """Everybody begins from one model, which all have: nothing that was before matters."""
        self.wanted, self.read_in, self.told, self.carried, self.greeted = set(), {}, {}, None, set()

    def plan(self, links: Iterable[Pair], there: Set[int], fresh: Set[int], everybody: bool) -> None:
        """Find the senders whose changes somebody will not be able to follow.

        Args:
            links: over which packets go in the round that begins.
            there: workers that take part in it.
            fresh: those among them that begin afresh.
            everybody: all do, from the same model.
        """
        if not self.used:
            return
        carries, self.telling = set(links), {}
        if self.direct:
            # Neighbours may have what a worker posted that did not answer, and it may not know itself any more.
            self.wanted |= self.asked
        if not everybody:
            before, newcomers = self.carried, fresh - self.greeted
            self.wanted |= {
                sender
                for receiver, sender in carries
                if receiver in newcomers or (before is not None and (receiver, sender) not in before)
            }
        self.asked, self.carried, self.greeted = set(there), carries, set(fresh)

    def missed(self, receiver: int, senders: Iterable[int], sent_in: Iterable[int]) -> list[Pair]:
        """Rounds and senders of packets that this receiver has not dealt with, before those that it is told of now."""
        if not self.used:
            return []
        found: list[Pair] = []
        for sender, newest in zip(senders, sent_in, strict=True):
            last = max(self.told.get((receiver, sender), 0), newest - MOST_MISSED)
            if (plain := self.plain_in.get(sender, 0)) <= newest:
                last = max(last, plain - 1)
            found += [(number, sender) for number in range(last + 1, newest)]
            self.telling[receiver, sender] = newest
        return found

    # -- after a round -----------------------------------------------------------------------------------------------

    def read(self, number: int, round: int) -> None:
        """The server could read this worker's packet."""
        self.read_in[number] = round

    def lost(self, number: int) -> None:
        """A worker has no model any more, and knows nobody's."""
        self.read_in.pop(number, None)
        self.greeted.discard(number)

    def heard(self, round: int, wishes: Mapping[int, Iterable[int]], plain: Iterable[int]) -> None:
        """What workers told in a round.

        Args:
            round: its number.
            wishes: by worker that answered, whose whole model it wants. One's wishes are granted every few rounds only.
            plain: workers that posted their whole model.
        """
        if not self.used:
            return
        for number in plain:
            self.plain_in[number] = round
            self.wanted.discard(number)
        for pair, newest in self.telling.items():
            if pair[0] in wishes:
                self.told[pair] = newest
        for receiver, senders in wishes.items():
            for pair in ((receiver, sender) for sender in senders):
                # Nobody asks for those of which it was told nothing; and what it wants may be on its way.
                if pair not in self.telling or self.plain_in.get(pair[1], -1) > self.telling[pair]:
                    continue
                if round - self.granted.get(pair, -CATCH_UP) >= CATCH_UP:
                    self.granted[pair] = round
                    self.wanted.add(pair[1])
        self.asked -= wishes.keys()

    def keep(self, numbers: Iterable[int]) -> None:
        """Only these workers are left."""
        left = set(numbers)
        self.wanted &= left
        self.greeted &= left
        self.asked &= left
        for of_one in (self.read_in, self.plain_in):
            for number in of_one.keys() - left:
                del of_one[number]
        for of_two in (self.told, self.granted):
            for pair in [pair for pair in of_two if not left.issuperset(pair)]:
                del of_two[pair]

    # -- checkpoints -------------------------------------------------------------------------------------------------

    def state_dict(self) -> dict[str, Any]:
        """For a checkpoint."""
        return {
            "wanted": sorted(self.wanted),
            "greeted": sorted(self.greeted),
            "read_in": [list(entry) for entry in self.read_in.items()],
            "plain_in": [list(entry) for entry in self.plain_in.items()],
            "told": [[*pair, number] for pair, number in self.told.items()],
            "granted": [[*pair, number] for pair, number in self.granted.items()],
            "asked": sorted(self.asked),
            "carried": None if self.carried is None else [list(pair) for pair in sorted(self.carried)],
        }

    def load_state_dict(self, saved: Mapping[str, Any]) -> None:
        """Inverse of `state_dict`."""
        self.wanted, self.greeted, self.asked = set(saved["wanted"]), set(saved["greeted"]), set(saved["asked"])
        self.read_in, self.plain_in = dict(saved["read_in"]), dict(saved["plain_in"])
        self.told = {(receiver, sender): number for receiver, sender, number in saved["told"]}
        self.granted = {(receiver, sender): number for receiver, sender, number in saved["granted"]}
        carried = saved["carried"]
        self.carried = None if carried is None else {(receiver, sender) for receiver, sender in carried}
