"""The way up: replies with a blob in place of their model become ordinary replies, or error replies that say why not.

    model = x_v + decoded        v the version the reply names, x_v the exact model the strategy sent as it

What a node says of itself is compared with what the server knows before anything is decoded. Nothing here sends.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from flwr.app import Message

from flower_edge.codecs.envelope import Envelope, Kind, codebook_epoch, codec_hash
from flower_edge.codecs.identity import Identity
from flower_edge.codecs.layout import Floats
from flower_edge.codecs.model_form import layout_of
from flower_edge.codecs.model_update import Model, moved, update_like
from flower_edge.codecs.moment import Moment, Public
from flower_edge.codecs.sparse import Update
from flower_edge.codecs.vector_codec import State, VectorCodec
from flower_edge.errors import CodecError, WireError
from flower_edge.events import Event
from flower_edge.rounds import Round
from flower_edge.runtime.codec_messages import BESIDE_RECORD, FOLDED_RECORD, blob_in, model_in, read_places, replaced
from flower_edge.runtime.error_codes import CLIENT_RAISED
from flower_edge.runtime.flower_private import error_in_place
from flower_edge.wire import record_of

from .measured import form_bits, plain_bits
from .state import CompressedState, NodeRecord, Version

__all__ = ["Read", "Uplink", "by_number"]


@dataclass(frozen=True)
class Read:
    """A reply that was read, and is taken.

    Attributes:
        reply: as it came; where its model is as it is to go on, without the blob.
        name: of the record that the model goes into; empty where there is nothing to put there.
        node: the number the node gave itself.
        base: the version that the update is against.
        rest, update: what is no float, and by how much the floats move.
        whole: a model that came as a whole, instead of the three.
    """

    reply: Message
    name: str = ""
    node: int = 0
    base: Version | None = None
    rest: Model | None = None
    update: Update | None = None
    whole: Model | None = None

    def ordinary(self) -> Message:
        """The reply as the strategy knows it."""
        if self.name:
            self.reply.content = replaced(self.reply.content, self.name, record_of(self._model()))
        return self.reply

    def _model(self) -> Model:
        if self.whole is not None:
            return self.whole
        assert self.base is not None
        assert self.rest is not None
        assert self.update is not None
        return moved(self.base.model, self.rest, self.update)


class _Refused(Exception):
    """Why a reply is not taken: one word by which it is counted, and a sentence."""

    def __init__(self, what: str, why: str) -> None:
        super().__init__(why)
        self.what = what


class Uplink:
    """Reads the replies of one batch.

    Args:
        up: the codec for replies.
        state: of the layer.
        round: which exchange it is, for events.
        aggregates: how many of `Public.aggregates` there are at most.
    """

    def __init__(self, up: VectorCodec, state: CompressedState, round: Round, aggregates: int) -> None:
        self._state = state
        self._known: dict[int, NodeRecord] = {}
        self._up, self._round, self._hash, self._aggregates = up, round, codec_hash(up), aggregates
        self._epoch = codebook_epoch(state.codebook)
        self._takes_back = hasattr(up, "give_back")
        self._readers: dict[int, State] = {}
        self._publics: dict[tuple[int, int, int, int], Public] = {}

    @property
    def state(self) -> CompressedState:
        """With what was read."""
        return self._state.with_nodes(self._known)

    def read(self, reply: Message) -> Read | Message:
        """A reply that is taken, an error reply in its place, or the reply itself where there is no code in it."""
        node_id = reply.metadata.src_node_id
        if reply.has_error():
            return self._perhaps_without_mod(node_id, reply)
        try:
            if FOLDED_RECORD in reply.content:  # only this layer says whom a reply stands for
                reply.content = replaced(reply.content, FOLDED_RECORD, None)
            found = blob_in(reply.content, sender=f"node {node_id}")
            if found is None:
                return self._plain(node_id, reply)
            envelope = Envelope.from_bytes(found[1], sender=f"node {node_id}")
            if envelope.kind is Kind.LOST:
                raise _Refused("node-lost", envelope.payload.decode("utf-8", "replace")[:300])
            node = self._checked(envelope, self._node(node_id))
            read = self._decoded(reply, found[0], envelope)
        except (CodecError, WireError) as error:
            return self._refuse(node_id, reply, "reply-refused", str(error))
        except _Refused as error:
            return self._refuse(node_id, reply, error.what, str(error))
        self._count(len(found[1]), read)
        self._known[node_id] = node
        return read

    def _node(self, node_id: int) -> NodeRecord:
        return self._known.get(node_id, self._state.node(node_id))

    # -- what is not read

    def _plain(self, node_id: int, reply: Message) -> Message:
        """A reply without a blob: nothing of ours where there is no model in it either."""
        found = model_in(reply.content) if reply.metadata.message_type.partition(".")[0] == "train" else None
        if found is not None:
            names = ", ".join(list(found[1])[:3])
            raise WireError(
                f"node {node_id} sent plain arrays ({names}) but this run sends codes; "
                "add the mod on the client: ClientApp(mods=[codec_mod])"
            )
        node = self._node(node_id)
        holds = replace(node, held=node.sent, digest=node.sent_digest, knows=True, epoch=self._epoch)
        self._known[node_id] = holds
        return reply

    def _refuse(self, node_id: int, reply: Message, what: str, why: str) -> Message:
        """An error reply; the node gets a plain model next, and all it needs to read and answer it."""
        lost = what == "node-lost"
        text = f"node {node_id} could not go on: {why}" if lost else f"a reply of node {node_id} is refused: {why}"
        event = Event(what, text, node=str(node_id), cell=self._round.cell, edge_round=self._round.edge)
        self._known[node_id] = replace(self._node(node_id), held=0, digest=0, knows=False, epoch=0)
        self._state = self._state.counted(refused=1).told([event])
        return error_in_place(reply, CLIENT_RAISED, text)

    def _perhaps_without_mod(self, node_id: int, reply: Message) -> Message:
        """An error reply, with a question where a code may be what it failed on."""
        node = self._node(node_id)
        if reply.error.code != CLIENT_RAISED or node.knows or not node.sent:
            return reply
        text = (
            f"node {node_id} failed on a message that carries a code ({(reply.error.reason or '')[:100]}); "
            "has its ClientApp mods=[codec_mod]?"
        )
        event = Event("codec-unread", text, node=str(node_id), cell=self._round.cell, edge_round=self._round.edge)
        self._state = self._state.told([event])
        return error_in_place(reply, CLIENT_RAISED, text)

    # -- what is read

    def _checked(self, envelope: Envelope, node: NodeRecord) -> NodeRecord:
        """What is known of the node after its reply."""
        if envelope.kind not in (Kind.UPDATE, Kind.WHOLE, Kind.BESIDE):
            raise CodecError(f"an envelope of kind {envelope.kind.name}, which no node sends; it was altered")
        if envelope.codec != self._hash:
            raise _Refused("reply-refused", "it was made by another codec than this run's")
        if not 0 < envelope.round <= self._state.round:
            raise _Refused("reply-refused", f"it is of round {envelope.round}, and there were {self._state.round}")
        if self._takes_back and envelope.round <= node.void:
            raise _Refused("reply-refused", f"it is of round {envelope.round} and came after it was given up")
        if envelope.epoch != (self._epoch if envelope.epoch else 0):
            raise _Refused("reply-refused", "it was made with another codebook than the one in force")
        return replace(
            node,
            held=envelope.version,
            digest=envelope.digest,
            knows=True,
            epoch=envelope.epoch or node.epoch,
            heard=max(node.heard, envelope.round),
            number=envelope.node if node.number < 0 else node.number,
        )

    def _decoded(self, reply: Message, name: str, envelope: Envelope) -> Read:
        if envelope.kind is Kind.BESIDE:
            if name != BESIDE_RECORD:
                raise CodecError("a blob in place of a model that says the model is beside it")
            reply.content = replaced(reply.content, BESIDE_RECORD, None)
            return Read(reply, node=envelope.node)
        base = self._state.version(envelope.version, envelope.digest)
        if base is None:
            kept = ", ".join(str(version.number) for version in self._state.versions)
            raise _Refused(
                "reply-refused", f"it is against version {envelope.version}; kept are {kept}, of this server"
            )
        if envelope.kind is Kind.WHOLE:
            if not self._up.exact:
                raise _Refused("reply-refused", "it brings a whole model where an update was asked for")
            whole, _ = Identity().decode(envelope.payload, dict(base.form))
            return Read(reply, name, envelope.node, base, whole=whole)
        if self._up.exact:
            raise _Refused("reply-refused", "it brings an update where a whole model was asked for")
        reader = self._reader(base)
        at = Moment(envelope.round - 1, envelope.node, self._public(envelope, base, reader))
        rest, update, _ = self._up.decode_update(envelope.payload, reader, at)
        return Read(reply, name, envelope.node, base, rest, update)

    def _reader(self, base: Version) -> State:
        """State of the decoder for updates of a version; the same for every reply."""
        if base.number not in self._readers:
            self._readers[base.number] = self._up.init(update_like(base.form))
        return self._readers[base.number]

    def _public(self, envelope: Envelope, base: Version, form: State) -> Public:
        """One for all replies that have it in common, so that codecs look at it once."""
        key = base.number, envelope.aggregates, envelope.round, envelope.epoch
        if key not in self._publics:
            moves = self._moves(envelope.aggregates, base)
            told = self._state.leaders.get(envelope.round)
            leader = None if told is None else read_places(told, layout_of(form).size)
            self._publics[key] = Public(moves, leader, self._state.codebook if envelope.epoch else None)
        return self._publics[key]

    def _moves(self, count: int, base: Version) -> tuple[Floats, ...]:
        """By how much the model moved up to that version, newest first."""
        by_number = {version.number: version.move for version in self._state.versions}
        moves = [by_number.get(base.number - back) for back in range(min(count, self._aggregates + 1))]
        found = tuple(move for move in moves if move is not None)
        if len(found) != count:
            raise _Refused(
                "reply-refused", f"it was made with {count} public aggregates, of which {len(found)} are kept"
            )
        return found

    def _count(self, blob_bytes: int, read: Read) -> None:
        found = None if read.name else model_in(read.reply.content)
        beside, float32 = (0, 0) if found is None else plain_bits(found[1])
        if read.base is not None:
            float32 = form_bits(read.base.form)[1]
        self._state = self._state.counted(up_bits=8 * blob_bytes + beside, up_plain_bits=float32)


def by_number(taken: Sequence[Read], state: CompressedState) -> dict[int, Update]:
    """Updates by the numbers that nodes gave themselves, for a teacher.

    Of several nodes with one number it is the update of the one that used it first: nobody speaks for another.
    """
    found: dict[int, Read] = {}
    for one in taken:
        if one.update is not None and (one.node not in found or _owns(one, state) > _owns(found[one.node], state)):
            found[one.node] = one
    return {node: one.update for node, one in found.items() if one.update is not None}


def _owns(read: Read, state: CompressedState) -> bool:
    return state.node(read.reply.metadata.src_node_id).number == read.node
