"""`Admitted`: the admission gate around any strategy: what comes back is one reply to one assignment, or it is refused.

`Layered(FedAvg(), Admitted(most_examples=600))`. A layer for the centre, for an edge, and for a flat federation; what
it asks of a reply is `flower_edge.admission.Gate`. A refused reply goes on as an error, so the strategy counts it as
failed and the round goes on with the others. Nothing here compares what nodes have learned: see `Filtered`.

Source: the promises of a public edge: no input of a client crashes a process, grows memory without bound, or changes
what another node earns; [4] ¶67-68: what comes back is looked at before it is merged.
"""

from __future__ import annotations

import hashlib
import secrets
from collections.abc import Mapping
from dataclasses import replace
from logging import getLogger
from typing import Any, Literal

from flwr.app import ArrayRecord, ConfigRecord, Message, RecordDict
from flwr.serverapp import Grid
from flwr.serverapp.strategy import Strategy

from flower_edge.admission.assignment import Assignment, needed_bytes, stamp
from flower_edge.admission.gate import Gate, Offer
from flower_edge.admission.refusal import Refusal
from flower_edge.errors import ConfigError, NestingError, WireError
from flower_edge.events import Event
from flower_edge.rounds import Round
from flower_edge.runtime.assignment_record import ASSIGNMENT_RECORD
from flower_edge.runtime.codec_messages import FOLDED_RECORD
from flower_edge.runtime.edge_messages import EDGE_RECORD, WEIGHT_KEY
from flower_edge.runtime.error_codes import REFUSED
from flower_edge.runtime.flower_private import error_in_place
from flower_edge.runtime.steps.grid import SteppedGrid
from flower_edge.runtime.steps.messages import total_steps
from flower_edge.runtime.wrapped_grid import find
from flower_edge.updates.manifest import Manifest
from flower_edge.wire import model_spec

from ..gossip.gossip import Gossip
from ..gradients.exchange import GradientExchange
from ..layers import Layer, Stage
from ..node_rows import key_of
from ..splitting.split import Split
from .admitted_state import AdmittedState
from .alike import unlike_the_others
from .assignments import Given, Lookup, kind_of, remembered
from .manifests import ManifestOf, manifest_like, manifest_now
from .most_examples import MostExamples, check_most_examples, most_of
from .prints import Printer, is_replay, with_prints
from .refused_event import refused_event
from .reply_offers import offer_of
from .weighing import check_weighted_by

__all__ = ["Admitted"]

log = getLogger("flwr.edge")

#: Room for what an edge tells of its terminals.
_EDGE_ROOM_BYTES = 16 * 1024 * 1024
_UNTOLD = 1000
_BRINGS = {
    Gossip: "its terminals send each other packets and check them there; it takes faulty= and codec= itself",
    GradientExchange: "its replies are gradients in a wire form of its own, which it checks itself",
    Split: "its messages are activations and halves of a model, which its session checks",
}


class Admitted(Layer[AdmittedState]):
    """Lets replies through that are what their assignment asks for, and refuses the others, each with a reason.

    Args:
        most_examples: how many examples a node can have: one number, a mapping from its key (a key that is not there is
            not enrolled, and refused), or a function of the key. Numbers or `Enrolment`s; `None` is no limit but 2^53.
            The key is the node's `partition-id` as text where the Grid can tell it, else its id; at the centre the
            cell's name, and the number is that of all its terminals together.
        most_bytes: of a whole reply; `None` is what its assignment can need, 1 % and 64 KiB.
        manifest: where nodes send back other arrays than they were sent: a function of the round, the node's key and
            what it is sent. By default they send back what they were sent.
        finite: whether NaN and infinity are refused.
        replays: whether the same arrays once more, from another model, are refused. Turn it off for clients whose
            result does not depend on the model they are sent, such as one that solves its problem in closed form.
        weighted_by: the metric by which the strategy weighs, its `weighted_by_key`.
        echo: `none` leaves messages as they are. `required` stamps each, and refuses replies that do not bring their
            own stamp back (`flower_edge.clients.assignment_mod` does it); `if there` lets replies without one pass.
        seed: for the secret by which prints are taken; `None` draws one that nobody can know.

    Raises:
        ConfigError: an argument out of its range.
    """

    stage = Stage.ADMIT
    singly = True

    def __init__(
        self,
        *,
        most_examples: MostExamples | None = None,
        most_bytes: int | None = None,
        manifest: ManifestOf | None = None,
        finite: bool = True,
        replays: bool = True,
        weighted_by: str = WEIGHT_KEY,
        echo: Literal["none", "if there", "required"] = "none",
        seed: int | None = None,
    ) -> None:
        if most_bytes is not None and (type(most_bytes) is not int or most_bytes < 1):
            raise ConfigError(f"most_bytes = {most_bytes!r}: expected a whole number of bytes, at least 1, or None")
        check_most_examples(most_examples)
        if manifest is not None and not callable(manifest):
            raise ConfigError(f"manifest = {manifest!r}: expected a function of round, key and what was sent")
        if seed is not None and type(seed) is not int:
            raise ConfigError(f"seed = {seed!r}: expected a whole number or None")
        self.gate = Gate(weighted_by=weighted_by, finite=finite, echo=echo)
        self.most_examples, self.most_bytes, self.manifest = most_examples, most_bytes, manifest
        self.replays, self.seed = replays, seed

    def init(self) -> AdmittedState:
        """Nothing was sent yet."""
        return AdmittedState()

    def check(self, strategy: Strategy) -> None:
        """Refuse strategies whose nodes send back something else than models, and one that weighs by another metric.

        Raises:
            NestingError: names the strategy, and what to do.
        """
        for kind, why in _BRINGS.items():
            if isinstance(strategy, kind):
                raise NestingError(f"Admitted around {kind.__name__}: {why}; leave Admitted out")
        check_weighted_by("Admitted", strategy, self.gate.weighted_by)

    def opened(self, state: AdmittedState, grid: Grid) -> AdmittedState:
        """The Grid, by which nodes are known, and a secret."""
        secret = state.secret
        if not secret:
            secret = secrets.token_hex(16) if self.seed is None else _hash(b"", f"gate {self.seed}")
        return replace(state, grid=grid, secret=secret)

    # -- out ---------------------------------------------------------------------------------------------------------

    def outbound(
        self, state: AdmittedState, round: Round, messages: list[Message]
    ) -> tuple[list[Message], AdmittedState]:
        """Messages as they are, or with a stamp; what each asks for is noted."""
        state = _begun(state, round)
        known: dict[int, tuple[Manifest, str, str]] = {}
        new: list[Given] = []
        for message in messages:
            kind = kind_of(message)
            if kind not in ("train", "evaluate") or not message.has_content():
                continue
            given, state = self._given(state, round, message, kind, known)
            new.append(given)
        return messages, replace(state, given=remembered(state.given, new)) if new else state

    def _given(
        self,
        state: AdmittedState,
        round: Round,
        message: Message,
        kind: str,
        known: dict[int, tuple[Manifest, str, str]],
    ) -> tuple[Given, AdmittedState]:
        content, node = message.content, message.metadata.dst_node_id
        order = content.config_records.get(EDGE_RECORD)
        key = self._key(state, node) if order is None else str(order.get("cell", node))
        records = list(content.array_records.values())
        if len(records) != 1 or any(array.stype != "numpy.ndarray" for array in records[0].values()):
            # No model, several, or one in a wire form of the strategy's own: nothing to compare a reply with.
            return Given(message.metadata, kind, None), state
        (sent,) = records
        if id(sent) not in known:
            if state.first is None and kind == "train":
                state = replace(state, first=model_spec(sent))
            known[id(sent)] = self._known(state, content, sent)
        manifest, base, version = known[id(sent)]
        if self.manifest is not None and kind == "train":
            manifest = replace(self.manifest(round, key, sent), most_steps=manifest.most_steps)
        most_bytes = self.most_bytes
        if most_bytes is None and order is not None:
            most_bytes = needed_bytes(manifest, _EDGE_ROOM_BYTES)
        told: dict[str, str] | None = None
        if self.gate.echo != "none" and order is None:
            number = f"{round.cloud}.{round.edge}" if round.edge else f"{round.cloud}"
            nonce = _hash(bytes.fromhex(state.secret), f"{number} {kind} {node} {len(state.given)}")
            told = stamp(message.metadata.run_id, number, version, nonce)
            stamped = RecordDict(dict(content.items()))
            stamped[ASSIGNMENT_RECORD] = ConfigRecord(dict(told))
            message.content = stamped
        assignment = Assignment(
            key, manifest, kind == "train", order is not None, None, most_of(self.most_examples, key), most_bytes, told
        )
        return Given(message.metadata, kind, assignment, base), state

    def _known(self, state: AdmittedState, content: RecordDict, sent: ArrayRecord) -> tuple[Manifest, str, str]:
        """What all nodes that are sent this model share: the manifest, its print, and its digest for the stamp."""
        manifest = manifest_like(model_spec(sent), state.first)
        try:
            found = total_steps(content)
        except ConfigError:
            found = None  # the application's own key, and none of steps
        manifest = replace(manifest, most_steps=found[1] if found is not None and found[1] > 0 else None)
        base = self._print(Printer(bytes.fromhex(state.secret)), sent)
        version = "" if self.gate.echo == "none" else _hash(b"", *(array.data for array in sent.values()))
        return manifest, base, version

    # -- in ----------------------------------------------------------------------------------------------------------

    def inbound(
        self, state: AdmittedState, round: Round, replies: list[Message]
    ) -> tuple[list[Message], AdmittedState]:
        """What is good as it came, and an error in place of what is refused."""
        state = _begun(state, round)
        lookup = Lookup(state.given, substitutes=_substitutes(state.grid))
        printer = Printer(bytes.fromhex(state.secret))
        refused: dict[int, Refusal] = {}
        passed: dict[int, tuple[Given, Offer]] = {}
        keys: dict[int, str] = {}
        prints: dict[int, str] = {}
        for i, reply in enumerate(replies):
            if reply.has_error() or kind_of(reply) not in ("train", "evaluate"):
                continue
            found, keys[i] = self._answered(state, round, lookup, reply)
            if isinstance(found, Refusal):
                refused[i] = found
            elif found.assignment is not None:
                offer = offer_of(reply, edge=found.assignment.edge)
                why, prints[i] = self._judge(state, printer, reply, offer, found)
                if why is not None:
                    refused[i] = why
                elif not found.assignment.edge:
                    passed[i] = (found, offer)
        for kind in ("train", "evaluate"):
            offers = {i: offer for i, (given, offer) in passed.items() if given.kind == kind}
            refused |= unlike_the_others(offers, keys, training=kind == "train")
        new = [(keys[i], given.base, prints[i]) for i, (given, _) in passed.items() if i not in refused and prints[i]]
        sent = with_prints(state.sent, new)
        state = replace(state, given=tuple(lookup.given), sent=sent)
        out = list(replies)
        for i, refusal in sorted(refused.items()):
            out[i] = error_in_place(replies[i], REFUSED, str(refusal))
            state = self._told(state, round, keys[i], refusal)
        return out, state

    def _answered(
        self, state: AdmittedState, round: Round, lookup: Lookup, reply: Message
    ) -> tuple[Given | Refusal, str]:
        source = reply.metadata.src_node_id
        found = lookup.find(reply)
        if found.place is None:
            key = self._key(state, source)
            return Refusal("unasked", f"node {key} replied to nothing it was asked in this round"), key
        given = lookup.given[found.place]
        assignment = given.assignment
        own = assignment is not None and source == given.node_id and found.exact
        key = assignment.node if own and assignment is not None else self._key(state, source)
        if found.code:
            return Refusal(found.code, f"node {key} has answered this assignment already; the first reply counts"), key
        lookup.answered(found, reply)
        if assignment is None:
            return given, key
        now = manifest_now(self.manifest, round, assignment.node, reply, assignment.manifest)
        assignment = replace(assignment, manifest=now)
        if own:
            return replace(given, assignment=assignment), key
        # A substitute, or a task of before: its own limits, and the arrays of the assignment.
        known = assignment.stamp if found.exact else None
        taken_over = replace(assignment, node=key, most_examples=most_of(self.most_examples, key), stamp=known)
        return replace(given, assignment=taken_over, base=given.base if found.exact else ""), key

    def _judge(
        self, state: AdmittedState, printer: Printer, reply: Message, offer: Offer, given: Given
    ) -> tuple[Refusal | None, str]:
        assert given.assignment is not None
        if FOLDED_RECORD in reply.content:
            text = "it says that it stands for several replies, and each is judged alone"
            return Refusal("no-arrays", text), ""
        asked = replace(given.assignment, run_id=given.metadata.run_id or None)
        why = self.gate.refusal(offer, asked)
        if why is not None or not given.base or not asked.training or asked.edge:
            return why, ""
        ((record, _),) = offer.arrays.items()
        came = self._print(printer, reply.content.array_records[record])
        if is_replay(state.sent, asked.node, given.base, came):
            text = f"node {asked.node} has sent these very arrays before, and the model it was given has changed since"
            return Refusal("replayed", f"{text}; where a client's result does not depend on it, replays=False"), came
        return None, came

    def _told(self, state: AdmittedState, round: Round, key: str, refusal: Refusal) -> AdmittedState:
        event = refused_event(log, round, key, refusal, state.grid)
        counts = {**state.counts, refusal.code: state.counts.get(refusal.code, 0) + 1}
        return replace(state, counts=counts, now=state.now + 1, untold=(*state.untold, event)[-_UNTOLD:])

    # -- records -----------------------------------------------------------------------------------------------------

    def events(self, state: AdmittedState) -> tuple[list[Event], AdmittedState]:
        """What was refused since the last call, with the reason."""
        return list(state.untold), replace(state, untold=())

    def metrics(self, state: AdmittedState) -> Mapping[str, float]:
        """Refused in this round (`gate_refused`), in the run so far (`gate_refused_run`), and in the run by code."""
        told: dict[str, float] = {"gate_refused": state.now, "gate_refused_run": sum(state.counts.values())}
        return told | {f"refused_{code.replace('-', '_')}": count for code, count in sorted(state.counts.items())}

    def dump(self, state: AdmittedState) -> Any:
        """As plain values, without assignments: what was under way when a run ended is asked again."""
        return state.to_tree()

    def load(self, saved: Any) -> AdmittedState:
        """Inverse of `dump`."""
        return AdmittedState.from_tree(saved)

    def __repr__(self) -> str:
        return f"Admitted(most_examples={self.most_examples!r}, echo={self.gate.echo!r})"

    @staticmethod
    def _key(state: AdmittedState, node_id: int) -> str:
        try:
            return str(node_id) if state.grid is None else key_of(state.grid, node_id)
        except ConfigError:
            return str(node_id)  # whoever replied is not on the Grid

    def _print(self, printer: Printer, record: ArrayRecord) -> str:
        try:
            return printer.of(record) if self.replays else ""
        except WireError:
            return ""  # the server's own model, in a dtype that has no print


def _begun(state: AdmittedState, round: Round) -> AdmittedState:
    number = (round.cloud, round.edge)
    return state if state.round == number else replace(state, round=number, now=0)


def _substitutes(grid: Grid | None) -> bool:
    return grid is not None and find(grid, SteppedGrid) is not None


def _hash(key: bytes, *parts: str | bytes) -> str:
    state = hashlib.blake2b(key=key, digest_size=16)
    for part in parts:
        state.update(part.encode() if isinstance(part, str) else part)
    return state.hexdigest()
