"""Twelve attacks, and a Grid on which they happen: the attackers know every honest reply before they send their own.

ByzFL's own classes where it has the attack; what it has not is here, each with its source. An attacker trains as the
others do, and what it sends instead is a function of its own reply, of those of the honest nodes and of the model the
round began with. Between the layers and the nodes `Attacked` puts it in place of the reply. Nothing here defends.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import cache
from types import ModuleType
from typing import Final

import numpy as np
from flwr.app import Array, ArrayRecord, Message, MetricRecord, RecordDict
from flwr.serverapp import Grid
from numpy.typing import NDArray

from flower_edge.runtime.flower_private import clone_message
from flower_edge.runtime.generators import kept_generators
from flower_edge.runtime.wrapped_grid import WrappedGrid

__all__ = ["ATTACKS", "FREE_RIDERS", "HARDER", "Attack", "Attacked", "Known", "min_max", "min_sum"]

Vector = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Known:
    """What an attacker knows when it sends.

    Attributes:
        honest: by what each honest node moves the model, float64 [honest nodes, parameters].
        own: by what the attacker itself has moved it, float64 [parameters].
        own_share: of all examples of the round, which are the attackers'.
        first: the model it sent first, float64 [parameters]; `None` in its first round.
        base: the model the round began with, float64 [parameters].
        before: the model the round before began with, float64 [parameters]; the same as `base` in the first round.
        rng: of this attacker in this round.
        place: which of the attackers it is, from 0.
    """

    honest: Vector
    own: Vector
    own_share: float
    first: Vector | None
    base: Vector
    before: Vector
    rng: np.random.Generator
    place: int


@dataclass(frozen=True)
class Attack:
    """One attack.

    Attributes:
        name: as the command and the tables call it.
        send: by what the attacker says that it has moved the model; `None` is what it has.
        flips: whether it trains on turned labels.
        examples: the `num-examples` it claims; `None` is what it has.
        jitter: noise on top, as a share of the vector's own norm, so that no two colluders send the same.
    """

    name: str
    send: Callable[[Known], Vector] | None = None
    flips: bool = False
    examples: int | None = None
    jitter: float = 0.0


# -- what they send --------------------------------------------------------------------------------------------------


@cache
def _byzfl() -> ModuleType:
    """With all of torchvision and seaborn, so only once an attack is made."""
    # It imports torchvision, which this makes importable beside a torch without CUDA.
    import flower_edge.data.torchvision_torch  # noqa: F401  # isort: skip
    import byzfl  # type: ignore[import-untyped]

    return byzfl  # type: ignore[no-any-return]


def _theirs(name: str, *arguments: float) -> Callable[[Known], Vector]:
    """One of ByzFL's."""
    return lambda known: np.asarray(getattr(_byzfl(), name)(*arguments)(known.honest), np.float64)


def _gaussian(sigma: float | None) -> Callable[[Known], Vector]:
    def send(known: Known) -> Vector:
        spread = sigma or float(np.median(np.linalg.norm(known.honest, axis=1)) / np.sqrt(known.honest.shape[1]))
        with kept_generators():  # ByzFL draws from NumPy's global generator
            np.random.seed(int(known.rng.integers(2**31)))
            return np.asarray(_byzfl().Gaussian(0.0, spread)(known.honest), np.float64)

    return send


def _not_finite(known: Known) -> Vector:
    """NaN and infinity by turns."""
    if known.place % 2:
        return np.asarray(_byzfl().Inf()(known.honest), np.float64)
    return np.full_like(known.own, np.nan)


def _replacement(known: Known) -> Vector:
    """As much of its own update as puts its model in the place of the global one after a mean.

    Source: Bagdasaryan et al., "How to backdoor federated learning", AISTATS 2020, equation 3; shared by the colluders.
    """
    return known.own / known.own_share


def _stale(known: Known) -> Vector:
    """The very model it sent in its first round."""
    return known.own if known.first is None else known.first - known.base


def min_max(honest: Vector) -> Vector:
    """As far against the spread of the honest updates as no honest one is farther from another.

    Source: Shejwalkar, Houmansadr, "Manipulating the Byzantine", NDSS 2021, IV-C, with their inverse standard deviation
    as the direction.
    """
    apart = _squared_distances(honest, honest)
    return _farthest(honest, lambda squared: bool(squared.max() <= apart.max()))


def min_sum(honest: Vector) -> Vector:
    """As far as the sum of its squared distances from the honest updates is no more than any honest one's; as above."""
    apart = _squared_distances(honest, honest)
    return _farthest(honest, lambda squared: bool(squared.sum() <= apart.sum(axis=1).max()))


def _farthest(honest: Vector, allowed: Callable[[Vector], bool]) -> Vector:
    """mean - gamma * std with the largest gamma that is allowed, by halving."""
    mean, std = honest.mean(axis=0), honest.std(axis=0)
    least, most = 0.0, 1.0
    while allowed(_squared_distances((mean - most * std)[None], honest)[0]) and most < 2**20:
        least, most = most, 2 * most
    for _ in range(30):
        middle = (least + most) / 2
        if allowed(_squared_distances((mean - middle * std)[None], honest)[0]):
            least = middle
        else:
            most = middle
    return np.asarray(mean - least * std)


def _squared_distances(one: Vector, other: Vector) -> Vector:
    """Float64 [of one, of other]."""
    return np.stack([np.square(other - vector).sum(axis=1) for vector in one])


#: The twelve.
ATTACKS: Final[Mapping[str, Attack]] = {
    attack.name: attack
    for attack in (
        Attack("label-flip", flips=True),
        Attack("sign-flip", _theirs("SignFlipping")),
        Attack("gaussian", _gaussian(1.0)),
        Attack("alie", _theirs("ALittleIsEnough", 1.5)),
        Attack("ipm", _theirs("InnerProductManipulation", 2.0)),
        Attack("min-max", lambda known: min_max(known.honest)),
        Attack("min-sum", lambda known: min_sum(known.honest)),
        Attack("mimic", _theirs("Mimic", 0)),
        Attack("replacement", _replacement, flips=True),
        Attack("not-finite", _not_finite),
        Attack("inflated", flips=True, examples=10**9),
        Attack("stale", _stale),
    )
}

_JITTER: Final = 0.3

#: The same again where colluders take care that no two of them send the same, and quieter forms of some; beside them.
HARDER: Final[Mapping[str, Attack]] = {
    attack.name: attack
    for attack in (
        *(
            Attack(f"{name}~", ATTACKS[name].send, ATTACKS[name].flips, ATTACKS[name].examples, _JITTER)
            for name in ("sign-flip", "alie", "ipm", "min-max", "min-sum", "mimic", "stale")
        ),
        Attack("gaussian-quiet", _gaussian(None)),
        Attack("ipm-quiet~", _theirs("InnerProductManipulation", 0.5), jitter=_JITTER),
    )
}

#: What nodes send that do not train, and want to be paid: the model as it came, a little noise, the last global step.
FREE_RIDERS: Final[Mapping[str, Attack]] = {
    attack.name: attack
    for attack in (
        Attack("unchanged", lambda known: np.zeros_like(known.own)),
        Attack("little-noise", lambda known: 0.1 * _gaussian(None)(known)),
        Attack("last-step", lambda known: known.base - known.before),
    )
}


# -- where they send it ----------------------------------------------------------------------------------------------


class Attacked(WrappedGrid):
    """A Grid some of whose nodes attack in every training round.

    Args:
        inner: where the nodes are.
        attack: what the attackers do beside turning labels, which their ClientApp does.
        attackers: their node ids.
        seed: of what they draw.
    """

    def __init__(self, inner: Grid, attack: Attack, attackers: Iterable[int], seed: int) -> None:
        super().__init__(inner)
        self._attack = attack
        self._attackers = tuple(sorted(attackers))
        self._seed = seed
        self._exchanges = 0
        self._first: dict[int, Vector] = {}
        self._before: Vector | None = None

    def send_and_receive(self, messages: Iterable[Message], *, timeout: float | None = None) -> Iterable[Message]:
        """Send messages, and hand back the replies with the attackers' own in their place."""
        asked = list(messages)
        replies = list(self.inner.send_and_receive(asked, timeout=timeout))
        self._exchanges += 1
        if not asked or asked[0].metadata.message_type != "train":
            return replies
        base = _vector(asked[0].content["arrays"])  # type: ignore[arg-type]
        moved = {
            reply.metadata.src_node_id: _vector(reply.content["arrays"]) - base  # type: ignore[arg-type]
            for reply in replies
            if not reply.has_error()
        }
        honest = np.stack([vector for node, vector in moved.items() if node not in self._attackers])
        counts = {reply.metadata.src_node_id: _examples(reply) for reply in replies if not reply.has_error()}
        share = sum(counts[node] for node in self._attackers if node in counts) / sum(counts.values())
        before = base if self._before is None else self._before
        self._before = base
        return [
            self._rewritten(reply, base, before, moved[node], honest, share)
            if (node := reply.metadata.src_node_id) in self._attackers and node in moved
            else reply
            for reply in replies
        ]

    def _rewritten(
        self, reply: Message, base: Vector, before: Vector, own: Vector, honest: Vector, share: float
    ) -> Message:
        node, attack = reply.metadata.src_node_id, self._attack
        rng = np.random.default_rng([self._seed, self._exchanges, node])
        content = RecordDict(dict(reply.content.items()))
        if attack.send is not None:
            place = self._attackers.index(node)
            known = Known(honest, own, share, self._first.get(node), base, before, rng, place)
            vector = attack.send(known)
            if attack.jitter:
                noise = rng.normal(size=vector.size)
                vector = vector + attack.jitter * np.linalg.norm(vector) / np.linalg.norm(noise) * noise
            self._first.setdefault(node, base + vector)
            content["arrays"] = _record(base + vector, reply.content["arrays"])  # type: ignore[arg-type]
        if attack.examples is not None:
            told: MetricRecord = reply.content["metrics"]  # type: ignore[assignment]
            content["metrics"] = MetricRecord({**told, "num-examples": attack.examples})
        return clone_message(reply, content)


def _examples(reply: Message) -> int:
    return int(reply.content["metrics"]["num-examples"])  # type: ignore[arg-type]


def _vector(record: ArrayRecord) -> Vector:
    return np.concatenate([array.numpy().ravel().astype(np.float64) for array in record.values()])


def _record(vector: Vector, like: ArrayRecord) -> ArrayRecord:
    """A vector as arrays of the names, shapes and dtypes of others."""
    arrays, at = {}, 0
    with np.errstate(over="ignore", invalid="ignore"):
        for name, array in like.items():
            shape, size = array.shape, int(np.prod(array.shape))
            arrays[name] = Array(vector[at : at + size].reshape(shape).astype(array.dtype))
            at += size
    return ArrayRecord(arrays)
