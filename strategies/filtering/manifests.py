"""What nodes are to send back: the model as they are sent it, or what the user's function says. Nothing is compared."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from flwr.app import ArrayRecord, Message

from flower_edge.rounds import Round
from flower_edge.runtime.steps.messages import renewed_of
from flower_edge.updates.manifest import Manifest, Spec, whole_manifest

__all__ = ["ManifestOf", "manifest_like", "manifest_now"]

#: What a node with this key is to send back, given what it is sent in this round.
ManifestOf = Callable[[Round, str, ArrayRecord], Manifest]


def manifest_like(spec: Spec, first: Spec | None) -> Manifest:
    """The whole model, in its dtypes or those of the run's first model.

    A strategy makes floats of whole numbers and float64 of float32; a node may keep to what it began with.

    Args:
        spec: of what is sent.
        first: of the first model that was sent; one of other names or shapes says nothing.

    >>> first = {"steps": ((), "int64")}
    >>> manifest_like({"steps": ((), "float64")}, first).arrays["steps"].dtypes
    ('float64', 'int64')
    """
    same = first is not None and {n: s for n, (s, _) in first.items()} == {n: s for n, (s, _) in spec.items()}
    return whole_manifest(spec, first if same else None)


def manifest_now(manifest_of: ManifestOf | None, round: Round, key: str, reply: Message, given: Manifest) -> Manifest:
    """What this reply has to be: what its node was given, or for work it began in mid-round what it was given then.

    Args:
        manifest_of: what the user gave; it is shown the reply, and says which part of the node's work has such arrays.
        round: of the exchange.
        key: of the node that was sent the message.
        reply: to it.
        given: what the node was given with the message.
    """
    if manifest_of is None or renewed_of(reply) is None:
        return given
    records = list(reply.content.array_records.values())
    return replace(manifest_of(round, key, records[0]), most_steps=given.most_steps) if len(records) == 1 else given
