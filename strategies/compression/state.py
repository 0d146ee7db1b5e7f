"""What a `Compressed` layer carries from one exchange to the next: frozen values, and how they lie in a checkpoint.

Nothing here encodes, decodes or counts.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field, fields, replace
from typing import Any

from flower_edge.codecs.layout import Floats
from flower_edge.codecs.model_update import Form, Model
from flower_edge.events import Event
from flower_edge.runtime.codec_messages import ASIDE

__all__ = ["CompressedState", "NodeRecord", "Tally", "Version"]


@dataclass(frozen=True)
class Version:
    """A model that was sent.

    Attributes:
        number: counts from 1; beside the main model of an exchange from `ASIDE`.
        digest: of the bytes that nodes hold of it.
        content: digest of the exact model.
        form: its names, shapes and dtypes.
        model: the exact model, to which replies are added; empty where replies bring whole models.
        round: of the exchange in which it was sent first.
        stream: payload that leads to it from the version before; `None` where only a whole model does.
        move: by how much nodes' models moved with it, float32 [params]; `None` where nobody asks, or nobody knows.
        kept: whether nodes may still hold it; afterwards only its move is known for a while.
    """

    number: int
    digest: int
    content: bytes
    form: Form
    model: Model
    round: int
    stream: bytes | None = None
    move: Floats | None = None
    kept: bool = True

    @property
    def aside(self) -> bool:
        """Whether it was sent beside the main model of an exchange."""
        return self.number >= ASIDE


@dataclass(frozen=True)
class NodeRecord:
    """What is known of a node.

    Attributes:
        held, digest: the version it has said it holds, 0 for none.
        sent, sent_digest: the version it was sent last.
        knows: whether it has the configs of the codecs.
        epoch: of the codebook it has, 0 for none.
        asked: the last round it was asked to train in.
        heard: the last round from which its update arrived.
        void: updates up to this round are not taken any more: it was told to send what they carried again.
        number: that it gave itself first, -1 before it answered.
    """

    held: int = 0
    digest: int = 0
    sent: int = 0
    sent_digest: int = 0
    knows: bool = False
    epoch: int = 0
    asked: int = 0
    heard: int = 0
    void: int = 0
    number: int = -1


@dataclass(frozen=True)
class Tally:
    """What was sent, in bits, and what it would have been as float32.

    Attributes:
        down_bits, up_bits: of blobs with their headers, and of models that travel plainly.
        down_plain_bits, up_plain_bits: of the same models as float32. A model that a node held already counts nothing.
        plain_sent: whole models that went down.
        refused: replies that were not taken.
    """

    down_bits: int = 0
    up_bits: int = 0
    down_plain_bits: int = 0
    up_plain_bits: int = 0
    plain_sent: int = 0
    refused: int = 0

    def __add__(self, other: Tally) -> Tally:
        return Tally(*(getattr(self, one.name) + getattr(other, one.name) for one in fields(self)))


@dataclass(frozen=True)
class CompressedState:
    """State of a `Compressed` layer.

    Attributes:
        form: names, shapes and dtypes of the first model; `None` before it, and where nothing is coded.
        versions: oldest first, those that nodes may still hold.
        newest: number of the newest version of the main line, and of the newest beside it.
        round: training exchanges so far.
        delta: encoder of the coded downlink, the replica in it; `None` before the first model.
        nodes: by node id.
        leaders: bytes of what was told of a leader, by round, for replies that are still to come.
        codebook: the one in force.
        teacher: state of the codec's teacher, `None` before the first model.
        now, before: what this round and all rounds before it sent.
        untold: events not yet taken.
    """

    form: Form | None = None
    versions: tuple[Version, ...] = ()
    newest: tuple[int, int] = (0, ASIDE - 1)
    round: int = 0
    delta: dict[str, Any] | None = None
    nodes: Mapping[int, NodeRecord] = field(default_factory=dict)
    leaders: Mapping[int, bytes] = field(default_factory=dict)
    codebook: bytes | None = None
    teacher: dict[str, Any] | None = None
    now: Tally = Tally()
    before: Tally = Tally()
    untold: tuple[Event, ...] = ()

    def version(self, number: int, digest: int) -> Version | None:
        """The version of that number, if it is kept and the same one."""
        found = (one for one in self.versions if one.kept and (one.number, one.digest) == (number, digest))
        return next(found, None)

    def node(self, node_id: int) -> NodeRecord:
        """What is known of a node."""
        return self.nodes.get(node_id, NodeRecord())

    def with_nodes(self, known: Mapping[int, NodeRecord]) -> CompressedState:
        """The same state, with all that known of nodes."""
        return replace(self, nodes={**self.nodes, **known})

    def without_node(self, node_id: int) -> CompressedState:
        """The same state, with nothing known of a node."""
        return replace(self, nodes={key: value for key, value in self.nodes.items() if key != node_id})

    def counted(self, **more: int) -> CompressedState:
        """The same state, with more sent in this round."""
        return replace(self, now=self.now + Tally(**more))

    def told(self, events: Iterable[Event]) -> CompressedState:
        """The same state, with more to tell."""
        return replace(self, untold=(*self.untold, *events))

    def to_tree(self) -> dict[str, Any]:
        """As nested plain values and arrays."""
        return {
            "form": None if self.form is None else dict(self.form),
            "versions": [{**vars(version), "form": dict(version.form)} for version in self.versions],
            "newest": list(self.newest),
            "round": self.round,
            "delta": self.delta,
            "nodes": [[node, asdict(record)] for node, record in self.nodes.items()],
            "leaders": [list(entry) for entry in self.leaders.items()],
            "codebook": self.codebook,
            "teacher": self.teacher,
            "now": asdict(self.now),
            "before": asdict(self.before),
            "untold": [event.to_json() for event in self.untold],
        }

    @classmethod
    def from_tree(cls, tree: Mapping[str, Any]) -> CompressedState:
        """Inverse of `to_tree`."""
        return cls(
            form=tree["form"],
            versions=tuple(Version(**version) for version in tree["versions"]),
            newest=(tree["newest"][0], tree["newest"][1]),
            round=tree["round"],
            delta=tree["delta"],
            nodes={node: NodeRecord(**record) for node, record in tree["nodes"]},
            leaders=dict(tree["leaders"]),
            codebook=tree["codebook"],
            teacher=tree["teacher"],
            now=Tally(**tree["now"]),
            before=Tally(**tree["before"]),
            untold=tuple(Event.from_json(text) for text in tree["untold"]),
        )
