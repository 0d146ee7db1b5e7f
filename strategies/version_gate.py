"""`VersionGate`: a merged model becomes the next version only if it is at least as good as a reference.

A layer for the centre or for an edge: `Layered(Hierarchical(...), VersionGate(accuracy))`, or inside
`Hierarchical(edge=lambda cell: Layered(FedAvg(), VersionGate(accuracy)), ...)`. A candidate that is not good enough is
refused, and the model from before the merge stays. Nothing here trains, and nothing is evaluated twice.

What a strategy remembers of a refused round it goes on remembering: see docs/version_gate.md for FedAvgM and FedAdam.

Source: [4] ¶30-31: versions, and an update only where the evaluation result equals or exceeds a reference value.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any, Literal

from flwr.app import ArrayRecord, RecordDict

from flower_edge.errors import ConfigError
from flower_edge.events import Event
from flower_edge.rounds import Round
from flower_edge.wire import records_from_tree, records_to_tree

from .layers import Layer
from .model_digest import model_digest

__all__ = ["GateState", "Version", "VersionGate", "refused_models", "versions"]

#: How a version came to be: the first model the gate saw, a candidate that passed, one from elsewhere (the centre, a
#: layer behind the gate), a candidate that did not pass.
Origin = Literal["first", "published", "given", "refused"]


@dataclass(frozen=True)
class Version:
    """A model that was judged.

    Attributes:
        number: counts from 1 through all models that were in force; 0 for a refused one, which never was.
        arrays: the model.
        score: what `evaluate` said of it.
        origin: how it came to be.
        round: the cloud round, from 1.
        edge_round: the edge round inside it, from 1; 0 at the centre.
    """

    number: int
    arrays: ArrayRecord
    score: float
    origin: Origin
    round: int
    edge_round: int = 0


@dataclass(frozen=True)
class GateState:
    """State of a `VersionGate`: plain values and models.

    Attributes:
        kept: the last versions that were in force, oldest first; the last is in force now.
        refused: the last refused candidates, where they are kept.
        count: number of the newest version.
        refusals: how many candidates were refused so far.
        best: the best score of any version so far.
        scores: what is known of models by their digest, newest last, so that none is evaluated twice.
        judged: the newest candidate's score, its reference, and whether it was refused.
        untold: events not yet taken.
    """

    kept: tuple[Version, ...] = ()
    refused: tuple[Version, ...] = ()
    count: int = 0
    refusals: int = 0
    best: float = math.nan
    scores: tuple[tuple[str, float], ...] = ()
    judged: tuple[float, float, bool] | None = None
    untold: tuple[Event, ...] = ()


def versions(state: GateState) -> tuple[Version, ...]:
    """The last versions that were in force, oldest first; the last one is in force."""
    return state.kept


def refused_models(state: GateState) -> tuple[Version, ...]:
    """The last refused candidates, oldest first; empty with `refused="drop"`."""
    return state.refused


class VersionGate(Layer[GateState]):
    """Publishes a merged model only if it is at least as good as the reference.

    Args:
        evaluate: a model's score, on data of the centre's or the edge's own; called once for every model. An exception
            ends the round.
        name: put before the names of its metrics, `<name>_version` …; for two gates in one run.
        higher_is_better: an accuracy; `False` for a loss.
        margin: by how much a candidate must be better than the reference. 0 lets through what is equal; below 0, what
            is worse by at most that much (for noisy evaluations).
        reference: the version in force, the best version so far, or a number that never changes. Before the first
            merge the version in force is the model the run began with.
        keep: how many versions stay retrievable, at least 1; they are part of every checkpoint.
        refused: what becomes of the arrays of a refused candidate: `drop` forgets them, `keep` keeps the last `keep`.

    Version 1 is the first model the gate sees: the one the run began with. Every published candidate gets the next
    number, and so does a model that is in force without having come through this gate: at an edge, what the centre
    sends. A score that is not a finite number is never published; where the reference is none, any finite score is.

    Raises:
        ConfigError: an argument out of its range.
    """

    def __init__(
        self,
        evaluate: Callable[[ArrayRecord], float],
        *,
        name: str = "",
        higher_is_better: bool = True,
        margin: float = 0.0,
        reference: Literal["last", "best"] | float = "last",
        keep: int = 3,
        refused: Literal["drop", "keep"] = "drop",
    ) -> None:
        if not callable(evaluate):
            raise ConfigError(f"evaluate = {evaluate!r}: expected a function from a model (ArrayRecord) to a number")
        if not math.isfinite(margin):
            raise ConfigError(f"margin = {margin}: expected a finite number")
        if reference not in ("last", "best") and not (
            isinstance(reference, int | float) and not isinstance(reference, bool) and math.isfinite(reference)
        ):
            raise ConfigError(f"reference = {reference!r}: expected 'last', 'best' or a finite number")
        if type(keep) is not int or keep < 1:
            raise ConfigError(f"keep = {keep!r}: a whole number, at least the version in force is kept")
        if refused not in ("drop", "keep"):
            raise ConfigError(f"refused = {refused!r}: expected 'drop' or 'keep'")
        self.evaluate = evaluate
        self.name = name
        self.higher_is_better = higher_is_better
        self.margin = margin
        self.reference = reference
        self.keep = keep
        self.refused = refused

    def init(self) -> GateState:
        """No version yet."""
        return GateState()

    def merged(
        self, state: GateState, round: Round, before: ArrayRecord, after: ArrayRecord
    ) -> tuple[ArrayRecord, GateState]:
        """The candidate if it is good enough, else the model from before the merge."""
        state = self._in_force(state, round, before)
        current = state.kept[-1]
        score, state = self._score(state, after)
        reference = {"last": current.score, "best": state.best}.get(str(self.reference), self.reference)
        assert isinstance(reference, int | float)
        if self._passes(score, float(reference)):
            state = self._publish(state, Version(0, after, score, "published", round.cloud, round.edge))
            words = f"version {state.count} published: score {score:g}, reference {reference:g}"
            what, chosen = "published", after
        else:
            gone = Version(0, after, score, "refused", round.cloud, round.edge)
            kept = (*state.refused, gone)[-self.keep :] if self.refused == "keep" else ()
            state = replace(state, refused=kept, refusals=state.refusals + 1)
            fate = "kept aside" if self.refused == "keep" else "dropped"
            words = (
                f"candidate refused: score {score:g}, reference {reference:g}, margin {self.margin:g}; "
                f"version {current.number} stays, the candidate is {fate}"
            )
            what, chosen = "refused-version", before
        event = Event(
            what,
            f"{self.name}: {words}" if self.name else words,
            cell=round.cell,
            edge_round=round.edge,
            values={"version": state.count, "score": score, "reference": float(reference)},
        )
        judged = (score, float(reference), what != "published")
        return chosen, replace(state, judged=judged, untold=(*state.untold, event))

    def events(self, state: GateState) -> tuple[list[Event], GateState]:
        """What was published and refused since the last call."""
        return list(state.untold), replace(state, untold=())

    def metrics(self, state: GateState) -> Mapping[str, float]:
        """The number in force, the newest candidate's score and its reference, and how many were refused so far."""
        if state.judged is None:
            return {}
        score, reference, _ = state.judged
        prefix = f"{self.name}_" if self.name else ""
        values = {"version": state.count, "score": score, "reference": reference, "refused": state.refusals}
        return {prefix + name: value for name, value in values.items()}

    def dump(self, state: GateState) -> Any:
        """The state with its models, as plain values."""
        return {
            "kept": [_version_tree(version) for version in state.kept],
            "refused": [_version_tree(version) for version in state.refused],
            "count": state.count,
            "refusals": state.refusals,
            "best": state.best,
            "scores": [list(known) for known in state.scores],
            "judged": None if state.judged is None else list(state.judged),
            "untold": [event.to_json() for event in state.untold],
        }

    def load(self, saved: Any) -> GateState:
        """Inverse of `dump`."""
        return GateState(
            kept=tuple(_version_of(tree) for tree in saved["kept"]),
            refused=tuple(_version_of(tree) for tree in saved["refused"]),
            count=saved["count"],
            refusals=saved["refusals"],
            best=saved["best"],
            scores=tuple((digest, score) for digest, score in saved["scores"]),
            judged=None if saved["judged"] is None else tuple(saved["judged"]),
            untold=tuple(Event.from_json(text) for text in saved["untold"]),
        )

    def _in_force(self, state: GateState, round: Round, before: ArrayRecord) -> GateState:
        """Take in the model from before the merge, where it is none of this gate's."""
        if state.kept and (
            state.kept[-1].arrays is before or model_digest(state.kept[-1].arrays) == model_digest(before)
        ):
            return state
        score, state = self._score(state, before)
        origin: Origin = "given" if state.kept else "first"
        return self._publish(state, Version(0, before, score, origin, round.cloud, round.edge))

    def _publish(self, state: GateState, version: Version) -> GateState:
        number = state.count + 1
        best = version.score if self._better(version.score, state.best) else state.best
        kept = (*state.kept, replace(version, number=number))[-self.keep :]
        return replace(state, kept=kept, count=number, best=best)

    def _score(self, state: GateState, arrays: ArrayRecord) -> tuple[float, GateState]:
        digest = model_digest(arrays)
        known = dict(state.scores)
        known[digest] = known.pop(digest) if digest in known else self._ask(arrays)
        # The versions kept, a candidate, and the model it is compared with.
        return known[digest], replace(state, scores=tuple(known.items())[-(2 * self.keep + 2) :])

    def _ask(self, arrays: ArrayRecord) -> float:
        score: object = self.evaluate(arrays)
        try:
            return float(score)  # type: ignore[arg-type]
        except (TypeError, ValueError):
            raise ConfigError(
                f"{self!r}: evaluate returned {score!r}; expected one number, such as an accuracy"
            ) from None

    def _better(self, score: float, than: float) -> bool:
        if not (math.isfinite(score) and math.isfinite(than)):
            return math.isfinite(score)
        return score > than if self.higher_is_better else score < than

    def _passes(self, score: float, reference: float) -> bool:
        if not (math.isfinite(score) and math.isfinite(reference)):
            return math.isfinite(score)
        if self.higher_is_better:
            return score >= reference + self.margin
        return score <= reference - self.margin

    def __repr__(self) -> str:
        return f"VersionGate({getattr(self.evaluate, '__name__', repr(self.evaluate))}, reference={self.reference!r})"


def _version_tree(version: Version) -> dict[str, Any]:
    return {**vars(version), "arrays": records_to_tree(RecordDict({"arrays": version.arrays}))}


def _version_of(tree: Mapping[str, Any]) -> Version:
    arrays = records_from_tree(tree["arrays"])["arrays"]
    assert isinstance(arrays, ArrayRecord)
    return Version(**{**tree, "arrays": arrays})
