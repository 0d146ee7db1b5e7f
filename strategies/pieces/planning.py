"""Where a round's chains are cut: by who holds the pieces, or as the caller said. Nothing here sends.

With edges all chains are cut alike, so that each edge has the same part of every chain: for the slowest machine at each
place. Without, every chain is cut for its own machines.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from logging import getLogger

from flower_edge.errors import ConfigError, SplitError
from flower_edge.pieces.balance import balanced
from flower_edge.pieces.cuts import check_cuts, pieces_of
from flower_edge.pieces.order import Mode
from flower_edge.splitting.chain import Machine
from flower_edge.splitting.costs import Job
from flower_edge.splitting.profile import ModelProfile

from .seating import Chain, slowest

__all__ = ["Cutter", "PiecePlanner", "spans_by_edge"]

#: From a model's profile and the machines of a chain, by place, to cuts: one fewer, rising.
PiecePlanner = Callable[[ModelProfile, Sequence[Machine]], Sequence[int]]


log = getLogger("flwr.edge")


def spans_by_edge(places: Mapping[str, int], chain: Chain) -> dict[str, tuple[int, int]]:
    """By edge, the units of its part; all chains are cut like this one.

    >>> spans_by_edge({"a": 1, "b": 2}, Chain(0, (), spans=((0, 2), (2, 5), (5, 6))))
    {'a': (0, 2), 'b': (2, 6)}
    """
    found, at = {}, 0
    for edge, count in places.items():
        spans = chain.spans[at : at + count]
        found[edge], at = (spans[0][0], spans[-1][1]), at + count
    return found


@dataclass(frozen=True)
class Cutter:
    """How chains are cut.

    Attributes:
        cuts: the same for all, in every round; None: `planner`'s.
        planner: None: `balanced`.
        mode, job: of the run.
    """

    cuts: tuple[int, ...] | None
    planner: PiecePlanner | None
    mode: Mode
    job: Job

    def __post_init__(self) -> None:
        if self.cuts is not None and self.planner is not None:
            raise ConfigError(f"cuts = {list(self.cuts)} and a planner: give one of them, the other would not be asked")

    def cut(
        self, chains: Sequence[Chain], profile: ModelProfile, *, alike: bool, tell: Callable[[str, str], None]
    ) -> list[Chain]:
        """Chains with spans.

        Args:
            chains: without.
            profile: of the model.
            alike: all the same, as edges need it; else each for its own machines.
            tell: of each chain that sits out, as no cuts fit its machines.

        Raises:
            SplitError: no cuts fit any chain's machines, or, alike, those of all.
        """
        if alike:
            return self.together(chains, profile)
        found: list[Chain] = []
        for chain in chains:
            try:
                found.append(self.one(chain, profile))
            except SplitError as error:
                if not found and chain is chains[-1]:
                    raise
                tell("chain-dropped", f"chain {chain.number} sits out: {error}")
                log.warning("\tchain %d sits out: %s", chain.number, error)
        return found

    def together(self, chains: Sequence[Chain], profile: ModelProfile) -> list[Chain]:
        """All chains cut alike.

        Raises:
            SplitError: no cuts fit the slowest and smallest machines.
        """
        spans = self._spans(profile, slowest(chains))
        return [replace(chain, spans=spans) for chain in chains]

    def one(self, chain: Chain, profile: ModelProfile) -> Chain:
        """A chain cut for its own machines.

        Raises:
            SplitError: no cuts fit them.
        """
        return replace(chain, spans=self._spans(profile, [one.machine for one in chain.terminals]))

    def _spans(self, profile: ModelProfile, machines: Sequence[Machine]) -> tuple[tuple[int, int], ...]:
        if self.cuts is not None:
            cuts: Sequence[int] = self.cuts
        elif self.planner is not None:
            cuts = tuple(self.planner(profile, machines))
        else:
            cuts = balanced(profile, machines, job=self.job, mode=self.mode)
        try:
            return pieces_of(profile.last, check_cuts(profile, cuts, pieces=len(machines), mode=self.mode))
        except SplitError as error:
            if self.planner is None:
                raise
            raise SplitError(f"the planner gave cuts {list(cuts)} for {len(machines)} machines: {error}") from None
