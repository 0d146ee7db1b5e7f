"""`RingForm`: nodes pass encoded gradients round until everybody has all; the server only says whose turn it is.

    begin      everybody computes, encodes, posts to the next
    hop        n - 1 times: everybody takes what the one before posted, and passes it on
    commit     with the begin of the next step: everybody decodes all, in one order, and updates its own model

A step counts if every node of the ring has confirmed every packet; else all drop it, and the next goes without the
node that did not answer, or whose packet did not arrive. It comes back with the next round, with a copy of the model. A
round ends with a commit that brings such a copy from one node, for the round loop and for who comes later; all others
confirm it.
"""

from __future__ import annotations

import zlib
from collections import Counter
from collections.abc import Callable, Generator, Mapping, Sequence
from dataclasses import dataclass, replace
from logging import getLogger
from typing import Any, Literal

from flwr.app import ArrayRecord, ConfigRecord, Message
from flwr.serverapp import Grid

from flower_edge.errors import EdgeError, NobodyContributed, WireError
from flower_edge.events import Event
from flower_edge.runtime.abilities import now_s
from flower_edge.runtime.gradient_messages import REPLICA_RECORD, Order, Report, bytes_in
from flower_edge.runtime.gradient_replica import Replica
from flower_edge.runtime.gradient_setup import Setup
from flower_edge.store.tree import tree_from_bytes
from flower_edge.wire import arrays_of, check_model, model_spec, record_of

from ..gossip.post import Post
from .form import Exchanges, Form
from .ring_talk import Answers, Talk

__all__ = ["RingForm"]

log = getLogger("flwr.edge")


@dataclass(frozen=True)
class Commit:
    """Whose packets make the last step, nobody's where it does not count; and the learning rate of that update."""

    of: tuple[int, ...] = ()
    rate: float = 0.0


class RingForm(Form):
    """The decentralised form.

    Args:
        setup, rate, arrays_key: as of `Form`.
        mailbox: how packets get from a node to the next.
    """

    def __init__(
        self, setup: Setup, rate: Callable[[int], Any], arrays_key: str, mailbox: Literal["relay", "shared-memory"]
    ) -> None:
        super().__init__(setup, rate, arrays_key)
        self._post = Post(mailbox)
        #: The newest model that came to the server.
        self._copy: Replica | None = None
        #: How many updates the nodes' models have seen.
        self._version = 0
        #: Check sum of what they have beside it, as most told at the end of the round.
        self._beside = 0
        #: Number of the next post.
        self._posts = 1
        self._size = 0

    def begin_from(self, arrays: ArrayRecord) -> None:
        """All begin from this model; codecs remember what they did."""
        self._copy, self._version = Replica.of(arrays_of(arrays), self.setup), 0
        self._nobody_has_it()

    def model(self) -> ArrayRecord | None:
        """The copy that a node sent at the end of the round; None where it did not come."""
        return record_of(self._copy.model()) if self._copy is not None and self._is_current else None

    def metrics(self) -> Mapping[str, float]:
        """How many nodes the ring had in its last step."""
        return {"ring_nodes": float(self._size)}

    def close(self) -> None:
        """Remove what a mailbox has left on this host."""
        self._post.close()

    @property
    def dense_bits(self) -> int:
        """Of a gradient."""
        return 0 if self._copy is None else 8 * self._copy.x.nbytes

    # -- a round -----------------------------------------------------------------------------------------------------

    def round(self, grid: Grid, steps: int, config: Mapping[str, ConfigRecord]) -> Exchanges:
        """Begin and hops of every step, and the last commit."""
        asked = self.members.present(grid)
        talk = Talk(self, grid, asked, config, self._whole, self._post.config(grid))
        if not self._is_current:
            yield from self._fetch(talk)
        ring, commit = list(asked), Commit()
        for _ in range(steps):
            if not commit.of:
                # Who has not this model gets it, where the server has it.
                ring = [n for n in ring if self._is_current or self._has(n)]
            self._check(ring, asked)
            self._size = len(ring)
            self.figures.count(steps=1)
            orders = {n: self._begin(ring, n, commit) for n in ring}
            answers = yield from talk.exchange(orders)
            self._settle(talk, orders, answers, commit)
            complete, commit = all(self._has(n) for n in ring), Commit()
            for hop in range(1, len(ring)):
                self._posts += 1
                if complete:
                    answers = yield from talk.exchange({n: self._hop(ring, n, hop) for n in ring})
                    complete = self._collected(talk, ring, answers)
            self._posts += 1
            if complete:
                commit = self._counted(ring)
            else:
                self._dropped(talk)
                ring = [n for n in ring if n not in talk.out]
            self.step += 1
        self._check(ring, asked)
        orders = {n: replace(self._order(n, commit), returns=n == ring[0]) for n in ring}
        answers = yield from talk.exchange(orders, last=True)
        self._settle(talk, orders, answers, commit)
        # No gradient was made in this exchange, so its number is left to the next one: codecs count by it.
        self._keep_copy(ring[0], answers)

    def _fetch(self, talk: Talk) -> Generator[tuple[list[Message], bool], Sequence[Message], None]:
        """The node that was to send its model did not: another does. Where nobody can, all go back to the last."""
        for n in [n for n in talk.asked if self._has(n)]:
            answers = yield from talk.exchange({n: replace(self._order(n, Commit()), returns=True)})
            self._keep_copy(n, answers)
            if self._is_current:
                return
        if self._copy is not None and not self._is_current:
            self._happened(talk, "went-back", f"all go back to the model of update {self._copy.version}")
            self._version = self._copy.version
            self._nobody_has_it()

    def _check(self, ring: Sequence[int], asked: Mapping[int, int]) -> None:
        if not ring:
            raise NobodyContributed(f"step {self.step}: no node of the ring is left", frozenset(asked.values()))

    @property
    def _is_current(self) -> bool:
        return self._copy is not None and self._copy.version == self._version

    def _has(self, number: int) -> bool:
        """Whether a node has the model of now."""
        return self.members.known[number].version == self._version

    def _nobody_has_it(self) -> None:
        for member in self.members.known.values():
            member.version = -1

    # -- orders ------------------------------------------------------------------------------------------------------

    def _order(self, number: int, commit: Commit) -> Order:
        heard = self.members.known[number].heard
        of, rate = list(commit.of), commit.rate
        return Order(self.step, self._version, number, begin=False, heard=heard, commit=of, rate=rate)

    def _begin(self, ring: Sequence[int], number: int, commit: Commit) -> Order:
        # A node of the step that is committed has its packets, and the model before it.
        whole = not commit.of and not self._has(number)
        return replace(
            self._order(number, commit),
            begin=True,
            whole=whole,
            fresh=self.members.known[number].fresh,
            setup=self.setup.text() if whole else "",
            after=_place(ring, number, 1),
            post=self._posts if len(ring) > 1 else 0,
        )

    def _hop(self, ring: Sequence[int], number: int, hop: int) -> Order:
        """What comes at the k-th hop was made k places before."""
        return replace(
            self._order(number, Commit()),
            collect=self._posts - 1,
            origin=_place(ring, number, -hop),
            before=_place(ring, number, -1),
            after=_place(ring, number, 1),
            post=self._posts if hop < len(ring) - 1 else 0,
        )

    def _whole(self) -> dict[str, Any]:
        assert self._copy is not None
        return self.whole(self._copy)

    # -- what came of it ---------------------------------------------------------------------------------------------

    def _settle(self, talk: Talk, orders: Mapping[int, Order], answers: Answers, commit: Commit) -> None:
        """What most have counts as the model; who has another, or did not answer, gets it when it can."""
        for n in orders:
            self.members.known[n].version = -1
        agreed = self._agreed([report for report, _ in answers.values()], commit)
        if agreed is None:
            return
        self._version, self._beside = agreed.version, agreed.beside
        for n, (report, reply) in answers.items():
            member = self.members.known[n]
            member.fresh = False
            if _state(report) != _state(agreed):
                self.let_go(talk.grid, n, "other-model", "has another model than most of the ring and gets theirs")
                if orders[n].whole:  # it was just sent it: it would be so again
                    talk.out.add(n)
                continue
            member.version = self._version
            self.figures.note(reply)
        for n in agreed.refused:
            self.figures.count(refused=1)
            self.tell(talk.grid, "refused", n, "sent a gradient that nobody in the ring could use")

    def _agreed(self, reports: Sequence[Report], commit: Commit) -> Report | None:
        """A report of what counts as the model: what the server knows, else what most have. None where nobody can tell.

        A step of which nothing could be read moves no model.
        """
        possible = [one for one in reports if one.version in (self._version, self._version - bool(commit.of))]
        if not commit.of and self._copy is not None and self._is_current:
            digest = self._copy.digest()
            possible = [one for one in possible if one.digest == digest]
        votes = Counter(map(_state, possible))
        # Of as many, what the lowest number has: answers are in their order.
        return max(possible, key=lambda one: votes[_state(one)], default=None)

    def _collected(self, talk: Talk, ring: Sequence[int], answers: Answers) -> bool:
        """Whether the hop went well. Whose packet did not arrive has no place in this round's ring any more.

        The server sees no packet, so it may be the other one that lies: once a round a node is believed.
        """
        for n in ring:
            before = _place(ring, n, -1)
            if n not in answers:
                self.members.known[n].version = -1
            elif answers[n][0].missing and before in answers:
                at_fault, text = before, f"posted nothing that node {n} could take"
                if n in talk.believed:
                    at_fault, text = n, f"could take nothing that node {before} posted, nor what another had before"
                talk.believed.add(n)
                talk.out.add(at_fault)
                self.figures.count(refused=1)
                self.tell(talk.grid, "missing", at_fault, text)
        return len(answers) == len(ring) and not any(report.missing for report, _ in answers.values())

    def _counted(self, ring: Sequence[int]) -> Commit:
        """Everybody has everything."""
        rate = self.rate(self._version)
        self._version += 1
        for n in ring:
            self.members.known[n].heard = self.step + 1
        return Commit(tuple(ring), rate)

    def _dropped(self, talk: Talk) -> None:
        self.figures.count(dropped_steps=1)
        self._happened(talk, "dropped-step", f"step {self.step} does not count: not everybody has all packets")

    def _happened(self, talk: Talk, what: str, text: str) -> None:
        log.warning("\t%s", text)
        self.events.append(Event(what, text, time_s=now_s(talk.grid)))

    def _keep_copy(self, number: int, answers: Answers) -> None:
        """The model that a node sent, where it is the one that most have."""
        if number not in answers or not self._has(number) or self._copy is None:
            return
        report, reply = answers[number]
        records, sender = reply.content.array_records, f"node {number}"
        try:
            blob = bytes_in(reply.content, REPLICA_RECORD, sender=sender)
            if self.arrays_key not in records or blob is None:
                raise WireError(f"{sender} sent no model")
            if zlib.crc32(blob) != self._beside:
                raise WireError(f"what {sender} sent beside its model is not what most have")
            check_model(records[self.arrays_key], model_spec(record_of(self._copy.model())), sender=sender)
            tree = tree_from_bytes(blob, source=f"the replica of {sender}")
            found = Replica.of(arrays_of(records[self.arrays_key]), self.setup, tree)
            if (found.version, found.digest()) != (report.version, report.digest):
                raise WireError(f"{sender} sent another model than it said")
        except (EdgeError, AttributeError, KeyError, TypeError, ValueError) as error:
            log.warning("\tthe model of node %d is not used: %s", number, error)
            self.members.known[number].version = -1
            return
        self._copy = found
        self.figures.count(model_bits=8 * (found.x.nbytes + len(blob)))

    # -- checkpoints -------------------------------------------------------------------------------------------------

    def state_dict(self) -> dict[str, Any]:
        """For a checkpoint, between two rounds: no packet is on its way."""
        copy = None if self._copy is None else self._copy.tree()
        own = {"copy": copy, "version": self._version, "beside": self._beside, "posts": self._posts}
        return {**super().state_dict(), **own}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Inverse of `state_dict`."""
        super().load_state_dict(state)
        self._copy = None if state["copy"] is None else Replica.from_tree(state["copy"], setup=self.setup)
        self._version, self._beside, self._posts = int(state["version"]), int(state["beside"]), int(state["posts"])


def _state(report: Report) -> tuple[int, int, int]:
    """What a node has, in three numbers."""
    return report.version, report.digest, report.beside


def _place(ring: Sequence[int], number: int, onwards: int) -> int:
    """Who is so many places further round."""
    return ring[(ring.index(number) + onwards) % len(ring)]
