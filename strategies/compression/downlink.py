"""The way down: which version of the model a message carries, and as what.

    x_v   the model the strategy sends      r_v   what nodes hold of it, their replica
    coded downlink:  version v carries  C(x_v − r_{v−1}),  r_v = r_{v−1} + decoded     (`Delta`)

What the coding of one version leaves out is in the difference that the next one codes, so the server keeps no error
feedback of its own. There is one such stream per version and not per node. A node that holds version b gets the streams
b + 1 … v, one that holds none or too old a one gets all of r_v. Nothing here reads a reply.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from dataclasses import dataclass, replace
from typing import Any

from flwr.app import ArrayRecord, ConfigRecord, Message

from flower_edge.codecs.delta import Delta
from flower_edge.codecs.envelope import SERVER, Kind, codebook_epoch, codec_hash, digest_of
from flower_edge.codecs.identity import Identity
from flower_edge.codecs.model_form import gather, layout_of, scatter
from flower_edge.codecs.moment import Moment
from flower_edge.codecs.vector_codec import VectorCodec
from flower_edge.runtime.codec_messages import (
    BESIDE_RECORD,
    BLOB_KEY,
    Order,
    blob_record,
    model_in,
    replaced,
    write_places,
)
from flower_edge.wire import arrays_of, cast_like

from .measured import form_as_told, plain_bits
from .state import CompressedState, NodeRecord, Version

__all__ = ["Downlink"]


@dataclass(frozen=True)
class Downlink:
    """How models go down.

    Attributes:
        up: the codec for replies.
        down: the codec of the main line, an exact one for whole models as one blob, `None` for plain models.
        keep: how many versions nodes may be behind.
        aggregates: how many of `Public.aggregates` there are at most.
        config: JSON of the codecs, for nodes that do not know them.
    """

    up: VectorCodec
    down: Delta | VectorCodec | None
    keep: int
    aggregates: int
    config: str

    def send(
        self, state: CompressedState, messages: list[Message], *, training: bool
    ) -> tuple[list[Message], CompressedState]:
        """Messages with orders in place of their models, or beside them."""
        found = {i: model for i, message in enumerate(messages) if (model := model_in(message.content)) is not None}
        if not found:
            return messages, state
        found, state = self._in_first_dtypes(found, state)
        if self.down is None and not training:
            sizes = [plain_bits(record) for _, record in found.values()]
            bits, plain = sum(size[0] for size in sizes), sum(size[1] for size in sizes)
            return messages, state.counted(down_bits=bits, down_plain_bits=plain, plain_sent=len(found))
        # Messages of one exchange share one record, as a rule.
        contents = {key: _content(record) for key, record in _distinct(found).items()}
        counts = Counter(contents[id(record)] for _, record in found.values())
        (main, _), *others = counts.most_common()
        records = {contents[id(record)]: record for _, record in found.values()}
        if training:
            state = self._begun(state, records[main])
        state = self._advanced(state, main, records[main])
        for content, _ in others:
            state = self._beside(state, content, records[content])
        state = self._forgotten(state)
        # What is sent beside the main line is never one of its older versions: nobody can be given those any more.
        versions = {version.content: version for version in state.versions if version.aside}
        if (newest := self._newest(state)) is not None:
            versions[main] = newest
        sender = _Sender(self, state, training)
        for i, (name, record) in found.items():
            sender.address(messages[i], name, record, versions[contents[id(record)]])
        return messages, sender.state

    def _in_first_dtypes(
        self, found: dict[int, tuple[str, ArrayRecord]], state: CompressedState
    ) -> tuple[dict[int, tuple[str, ArrayRecord]], CompressedState]:
        """Models in the dtypes of the run's first one, where something is coded.

        Flower's strategies turn counts, and some float32, into float64. A count is no float to be coded with others,
        and a model of another form would have to go down whole.
        """
        if self.up.exact and not isinstance(self.down, Delta):
            return found, state
        first = state.form or form_as_told(next(iter(found.values()))[1])
        shapes = dict(zip(first["names"], map(tuple, first["shapes"]), strict=True))
        spec = {n: (shapes[n], dtype) for n, dtype in zip(first["names"], first["dtypes"], strict=True)}
        cast: dict[int, ArrayRecord] = {}
        for record in _distinct(found).values():
            same = {name: tuple(array.shape) for name, array in record.items()} == shapes
            differs = same and any(array.dtype != spec[name][1] for name, array in record.items())
            cast[id(record)] = cast_like(record, spec) if differs else record
        return {i: (name, cast[id(record)]) for i, (name, record) in found.items()}, replace(state, form=first)

    # -- versions ----------------------------------------------------------------------------------------------------

    def _begun(self, state: CompressedState, record: ArrayRecord) -> CompressedState:
        """A training exchange begins: what its teacher tells."""
        state = replace(state, round=state.round + 1)
        teacher = self.up.teacher()
        if teacher is None:
            return state
        memory = teacher.init(layout_of(form_as_told(record))) if state.teacher is None else state.teacher
        told, memory = teacher.tell(memory, state.round - 1)
        leaders = {number: data for number, data in state.leaders.items() if number > state.round - self.keep}
        if told.leader is not None:
            leaders[state.round] = write_places(told.leader)
        codebook = state.codebook if told.codebook is None else told.codebook
        return replace(state, teacher=memory, leaders=leaders, codebook=codebook)

    def _advanced(self, state: CompressedState, content: bytes, record: ArrayRecord) -> CompressedState:
        """The main line, with a new version where the model is another than the one before."""
        before = self._newest(state)
        if before is not None and before.content == content:
            return state
        form, model = form_as_told(record), {} if self._needs_no_models else arrays_of(record)
        number, digest = state.newest[0] + 1, int.from_bytes(content[:4], "little")
        move, stream = None, None
        same = before is not None and before.form == form
        if isinstance(self.down, Delta):
            old = state.delta if same else None
            begin = {**self.down.init(model), "sequence": state.newest[0]} if old is None else old
            payload, after = self.down.encode(model, begin, Moment(number, SERVER))
            state, digest = replace(state, delta=after), after["digest"]
            if old is not None:
                stream = payload
                move = after["replica"] - old["replica"] if self.aggregates else None
        elif self.down is not None:
            digest = digest_of(model)
        if not isinstance(self.down, Delta) and self.aggregates and same and before is not None:
            layout = layout_of(form)
            move = gather(model, layout) - gather(before.model, layout)
        version = Version(number, digest, content, form, model, state.round, stream, move)
        return replace(state, versions=(*state.versions, version), newest=(number, state.newest[1]))

    def _beside(self, state: CompressedState, content: bytes, record: ArrayRecord) -> CompressedState:
        """A version beside the main line, where there is none of this model yet."""
        if any(version.aside and version.content == content for version in state.versions):
            return state
        model, number = {} if self._needs_no_models else arrays_of(record), state.newest[1] + 1
        digest = int.from_bytes(content[:4], "little") if self.down is None else digest_of(model)
        version = Version(number, digest, content, form_as_told(record), model, state.round)
        return replace(state, versions=(*state.versions, version), newest=(state.newest[0], number))

    @property
    def _needs_no_models(self) -> bool:
        """Plain models go down and whole ones come up: nothing is added to anything."""
        return self.down is None and self.up.exact

    def _forgotten(self, state: CompressedState) -> CompressedState:
        """Without versions that nobody may hold any more; how the model moved is known for as long as somebody asks."""
        oldest, kept = state.newest[0] - self.keep, []
        for version in state.versions:
            if version.round >= state.round - self.keep if version.aside else version.number >= oldest:
                kept.append(version)
            elif not version.aside and version.number >= oldest - self.aggregates:
                kept.append(replace(version, model={}, stream=None, kept=False))
        return replace(state, versions=tuple(kept))

    def _newest(self, state: CompressedState) -> Version | None:
        main = (version for version in reversed(state.versions) if not version.aside)
        return next(main, None)


class _Sender:
    """Addresses messages of one exchange; blobs that several nodes get are made once."""

    def __init__(self, downlink: Downlink, state: CompressedState, training: bool) -> None:
        self._downlink, self._training = downlink, training
        self._state = state
        self._codec = codec_hash(downlink.up)
        self._epoch = codebook_epoch(state.codebook)
        self._takes_back = hasattr(downlink.up, "give_back")
        self._known: dict[int, NodeRecord] = {}
        self._wholes: dict[int, tuple[Kind, bytes]] = {}
        self._blobs: dict[Any, bytes] = {}
        self._counts: Counter[str] = Counter()

    @property
    def state(self) -> CompressedState:
        """With what was sent."""
        return self._state.with_nodes(self._known).counted(**self._counts)

    def address(self, message: Message, name: str, record: ArrayRecord, version: Version) -> None:
        """Put an order into a message, for the node it goes to."""
        node_id = message.metadata.dst_node_id
        node = self._known.get(node_id, self._state.node(node_id))
        kind, first = self._kind(node, version)
        heard = node.heard if self._takes_back and node.asked > node.heard else None
        key = (kind, first, version.number, node.knows, heard, node.epoch == self._epoch)
        if key not in self._blobs:
            self._blobs[key] = self._order(kind, first, version, node, heard).to_bytes()
        blob = self._blobs[key]
        if kind is Kind.BESIDE:
            content = replaced(message.content, name, record)
            message.content = replaced(content, BESIDE_RECORD, ConfigRecord({BLOB_KEY: blob}))
        else:
            message.content = replaced(message.content, name, blob_record(blob))
        bits, float32_bits = plain_bits(record)
        self._counts["down_bits"] += 8 * len(blob) + (bits if kind is Kind.BESIDE else 0)
        self._counts["down_plain_bits"] += 0 if kind is Kind.HELD else float32_bits
        self._counts["plain_sent"] += kind not in (Kind.HELD, Kind.STREAMS)
        self._known[node_id] = replace(
            node,
            sent=version.number,
            sent_digest=version.digest,
            asked=self._state.round if self._training else node.asked,
            void=node.asked if heard is not None else node.void,
        )

    def _kind(self, node: NodeRecord, version: Version) -> tuple[Kind, int]:
        """How a model goes to a node, and the first of the streams it is sent."""
        if self._downlink.down is None:
            return Kind.BESIDE, 0
        if (node.held, node.digest) == (version.number, version.digest):
            return Kind.HELD, 0
        whole, payload = self._whole(version)
        if self._state.version(node.held, node.digest) is None or not node.held < version.number or version.aside:
            return whole, 0
        streams = self._streams(node.held + 1, version.number)
        if streams is None or sum(map(len, streams)) >= len(payload):
            return whole, 0
        return Kind.STREAMS, node.held + 1

    def _before(self, version: Version) -> int | None:
        """Digest of the version before one."""
        found = (one.digest for one in self._state.versions if one.number == version.number - 1)
        return None if version.aside else next(found, None)

    def _streams(self, first: int, last: int) -> tuple[bytes, ...] | None:
        by_number = {version.number: version.stream for version in self._state.versions}
        streams = [by_number.get(number) for number in range(first, last + 1)]
        found = tuple(stream for stream in streams if stream is not None)
        return found if len(found) == len(streams) else None

    def _whole(self, version: Version) -> tuple[Kind, bytes]:
        """All of what nodes hold of a version: by the codec of first models where that changes nothing in it."""
        if version.number not in self._wholes:
            self._wholes[version.number] = self._made(version)
        return self._wholes[version.number]

    def _made(self, version: Version) -> tuple[Kind, bytes]:
        down, state = self._downlink.down, self._state.delta
        if version.aside or not isinstance(down, Delta):
            return Kind.WHOLE, Identity().encode(version.model, Identity().init(version.model))[0]
        assert state is not None
        again = {**state, "replica": None, "sequence": version.number - 1}
        model = scatter(state["replica"], version.model, state, layout_of(state))
        at = Moment(version.number, SERVER)
        payload, after = down.encode(model, again, at)
        if after["digest"] == version.digest:
            return Kind.FIRST, payload
        exactly = {**again, "first": Identity().init(model)}
        payload, after = replace(down, first=Identity()).encode(model, exactly, at)
        assert after["digest"] == version.digest
        return Kind.WHOLE, payload

    def _order(self, kind: Kind, first: int, version: Version, node: NodeRecord, heard: int | None) -> Order:
        whole = kind in (Kind.WHOLE, Kind.FIRST)
        return Order(
            kind,
            round=self._state.round,
            version=version.number,
            digest=version.digest,
            codec=self._codec,
            epoch=self._epoch,
            # With a plain model beside it a config weighs nothing, and the node need not remember one.
            config="" if node.knows and kind is not Kind.BESIDE else self._downlink.config,
            heard=heard,
            before=self._before(version) if kind is Kind.BESIDE and self._downlink.aggregates else None,
            leader=self._state.leaders.get(self._state.round) if self._training else None,
            codebook=self._state.codebook if node.epoch != self._epoch else None,
            form=version.form if whole else None,
            model=self._whole(version)[1] if whole else b"",
            streams=(self._streams(first, version.number) or ()) if kind is Kind.STREAMS else (),
        )


def _distinct(found: dict[int, tuple[str, ArrayRecord]]) -> dict[int, ArrayRecord]:
    return {id(record): record for _, record in found.values()}


def _content(record: ArrayRecord) -> bytes:
    """Digest of a model as it was given."""
    found = hashlib.blake2b(digest_size=16)
    for name, array in record.items():
        found.update(f"{name}\x1f{array.dtype}\x1f{tuple(array.shape)}\x1f".encode())
        found.update(array.data)
    return found.digest()
