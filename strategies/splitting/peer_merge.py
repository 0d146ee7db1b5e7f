"""`PeerMerge`: the server's end of merging units among devices: `Split(merge="peers")`. It computes no mean.

What every device of a merge has trained itself, the units below the least cut and the tail, is averaged among them:

    train      as ever; who is done holds its arrays of those units back
    post, add, gather      see runtime/splitting/peers.py; the server gets each shard's mean, and so the merged units
    the next round         begins without those units in the message: devices have kept them

All other units, and with a kept optimiser its state, go through the server as ever. Where the devices cannot merge (one
is lost, a packet does not arrive, somebody of this merge is not there), everybody left sends what it held back (`give`)
and the server averages: the model is the same. Who has lost the merged units, or has others, gets them in the message.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from flwr.app import Array, ArrayRecord
from flwr.serverapp import Grid
from flwr.serverapp.strategy import FedAvg, Strategy

from flower_edge.errors import ConfigError, ProtocolError
from flower_edge.runtime.splitting.messages import HALF_RECORD, SplitOrder
from flower_edge.runtime.splitting.peers import PeerOrder

from ..gossip.post import Post
from .peer_talk import Arrays, MakeMessage, Ring, Talk
from .plane import Exchanges, Task

if TYPE_CHECKING:
    from flower_edge.splitting.cutting_torch import CutModel

__all__ = ["MailboxName", "MergeForm", "PeerMerge"]

MergeForm = Literal["server", "peers"]
MailboxName = Literal["relay", "shared-memory"]


@dataclass
class PeerMerge:
    """Of one run.

    Args:
        mailbox: how packets get from device to device.
        keep_optimiser: as of `Split`.

    Attributes:
        mean: of the units that were merged last, until `overlaid` has taken it.
        events: what, and in words; since they were taken.
    """

    mailbox: MailboxName
    keep_optimiser: bool
    mean: Arrays | None = None
    events: list[tuple[str, str]] = field(default_factory=list)
    _ring: Ring | None = None
    #: What devices begin from besides the message, in the coming round only: digests by number, and the arrays.
    _kept: dict[int, str] = field(default_factory=dict)
    _merged: Arrays = field(default_factory=dict)
    _orders: dict[int, PeerOrder] = field(default_factory=dict)
    _left_out: dict[int, set[str]] = field(default_factory=dict)
    _figures: dict[str, float] = field(default_factory=dict)
    _post: Post | None = None

    @classmethod
    def of(cls, merge: MergeForm, mailbox: MailboxName, merging: Strategy, *, keep_optimiser: bool) -> PeerMerge | None:
        """None where the server merges.

        Raises:
            ConfigError: another word, or a strategy that is not FedAvg.
        """
        for name, value, choices in (
            ("merge", merge, ("server", "peers")),
            ("mailbox", mailbox, ("relay", "shared-memory")),
        ):
            if value not in choices:
                raise ConfigError(f"{name} = {value!r}: expected one of {', '.join(map(repr, choices))}")
        if merge == "server":
            return None
        if type(merging) is not FedAvg:
            raise ConfigError(
                f"merge='peers' with strategy={type(merging).__name__}: devices average by samples, as FedAvg does; "
                "leave strategy out, or choose merge='server'"
            )
        return cls(mailbox, keep_optimiser)

    def anew(self) -> PeerMerge:
        """Told the same, before its first round."""
        return PeerMerge(self.mailbox, self.keep_optimiser)

    def close(self) -> None:
        """Remove what the mailbox has left on this host."""
        if self._post is not None:
            self._post.close()
            self._post = None

    # -- around a round of training ----------------------------------------------------------------------------------

    def begin(
        self,
        server_round: int,
        tasks: Mapping[int, Task],
        model: CutModel,
        weights: Mapping[int, int] | None,
        trained: frozenset[int],
        tail: int,
    ) -> None:
        """A round begins.

        Args:
            server_round: Flower's number.
            tasks: by number.
            model: says which arrays are of which units.
            weights: where the round ends with a merge: of the tasks, in the order in which FedAvg adds; else None.
            trained: who has trained since the last merge.
            tail: so many last units are every device's.
        """
        self._figures, self._orders, self._left_out, self._ring, self.mean = {}, {}, {}, None, None
        cut = 0
        names: tuple[str, ...] = ()
        if weights is not None and len(tasks) > 1 and trained <= set(tasks):
            cut = min(task.order.work.cut for task in tasks.values())
            last = len(model.units)
            names = tuple(dict.fromkeys((*model.names(0, cut), *model.names(last - tail, last))))
        if names and weights is not None:
            self._ring = Ring(server_round, cut, tail, names, weights, trained)
        for number, task in tasks.items():
            kept = self._begins_without(number, task)
            task.held_back = frozenset(names)
            if names or kept:
                at = (cut, tail) if names else (0, 0)
                self._orders[number] = PeerOrder(
                    cut=at[0], tail=at[1], keeps_optimiser=self.keep_optimiser, kept=self._kept[number] if kept else ""
                )
        self._kept, self._merged = {}, {}

    def _begins_without(self, number: int, task: Task) -> bool:
        """Whether it has arrays of its half already; they need not travel."""
        if number not in self._kept:
            return False
        names = self._merged.keys() & task.half.keys()
        # The loop may have gone on from another model than the merged one.
        if not names or not all(np.array_equal(self._merged[name], task.half[name]) for name in names):
            return False
        self._left_out[number] = set(names)
        bits = 8 * sum(task.half[name].nbytes for name in names)
        task.count(spared_bits=bits)
        self._count(peer_spared_bits=bits)
        return True

    def addressed(self, order: SplitOrder, records: Mapping[str, Any]) -> tuple[SplitOrder, Mapping[str, Any]]:
        """An order and its records as they go out to a device in training."""
        number = order.work.number
        if number not in self._orders or order.peers:  # told already what to do in the merge
            return order, records
        order = order.model_copy(update={"peers": self._orders[number].text()})
        gone = self._left_out.get(number)
        if order.begin and gone:
            half = {name: array for name, array in records[HALF_RECORD].items() if name not in gone}
            records = {**records, HALF_RECORD: ArrayRecord(half)}
        return order, records

    def around(
        self,
        exchanges: Exchanges,
        tasks: Mapping[int, Task],
        message: MakeMessage,
        grid: Grid,
        settle: Callable[[Task], object],
    ) -> Exchanges:
        """A plane's round, and the merge after it where there is one.

        Args:
            exchanges: the plane's.
            tasks: by number.
            message: makes messages for them.
            grid: where devices are.
            settle: looks at what the cloud trained for a device; may lose it.

        Raises:
            ProtocolError: the plane's round goes on after its last exchange.
        """
        try:
            messages, last = next(exchanges)
            while not last:
                messages, last = exchanges.send((yield messages, False))
            # Nobody left: there is nothing to send, and nothing to merge.
            replies = yield messages, self._ring is None or not messages
            try:
                exchanges.send(replies)
            except StopIteration:
                pass
            else:
                raise ProtocolError("a plane's round went on after its last messages")
        finally:
            exchanges.close()
        if self._ring is not None and messages:
            for task in tasks.values():
                settle(task)
            yield from self._merge(self._ring, tasks, message, grid)

    def overlaid(self, arrays: ArrayRecord) -> ArrayRecord:
        """A merged model with what the devices have merged in it."""
        mean, self.mean = self.mean, None
        if mean is None:
            return arrays
        return ArrayRecord({name: Array(mean[name]) if name in mean else array for name, array in arrays.items()})

    def take_events(self) -> list[tuple[str, str]]:
        """What happened since the last call, each with its kind."""
        told, self.events = self.events, []
        return told

    def metrics(self) -> dict[str, float]:
        """Of the round: `peer_bits` among devices, each packet once per receiver; `peer_server_bits` of them that the
        server sends or gets, and of the means; `peer_spared_bits` of halves' arrays that did not travel to or from it;
        `peers`, how many merged so. Empty where no device was told to."""
        return dict(self._figures)

    # -- the merge ---------------------------------------------------------------------------------------------------

    def _merge(self, ring: Ring, tasks: Mapping[int, Task], message: MakeMessage, grid: Grid) -> Exchanges:
        there = {number: tasks[number] for number in ring.weights if number in tasks and not tasks[number].lost}
        self._post = self._post or Post(self.mailbox)
        talk = Talk(ring, there, message, dict(self._post.config(grid)), self._figures)
        self._count(peers=0, peer_bits=0, peer_server_bits=0)
        why = yield from talk.means()
        if why:
            self.events.append(("peers", f"round {ring.round}: the server averages all units: {why}"))
            yield from talk.give()
            return
        self.mean, self._merged, self._kept = talk.mean, talk.merged, talk.kept
        bits = 8 * sum(array.nbytes for array in self._merged.values())
        self._count(peers=len(there), peer_spared_bits=len(there) * bits)
        for number in sorted(there.keys() - self._kept.keys()):
            self.events.append(("peers", f"device {number} has not kept the merged units, and gets them again"))

    def _count(self, **amounts: float) -> None:
        for name, amount in amounts.items():
            self._figures[name] = self._figures.get(name, 0.0) + amount
