"""Which variant of a model list each terminal is given: by group, or as it chose; by load is in `by_load`.

Values that decide for all terminals of a round at once, from what is known of them. Nothing here asks a terminal, keeps
anything or slices a model: `ModelList` asks and keeps, `SubModels` slices.

Source: [4] ¶41, ¶49 (by group), ¶48 (the terminal chooses from the list).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

from flower_edge.conditions import columns_of
from flower_edge.errors import ConfigError
from flower_edge.grouping import Grouping
from flower_edge.submodels.catalogue import Catalogue
from flower_edge.submodels.sizes import Size
from flower_edge.submodels.step_times import StepTimes

__all__ = ["AsChosen", "ByGroup", "Choice", "Decision", "Terminal"]


@dataclass(frozen=True)
class Terminal:
    """What is known of a terminal when its model is chosen.

    Attributes:
        row: properties and conditions by name.
        steps: of its last round; `None` where no reply has told.
        up_bps, down_bps: rates of its link, as measured; `None` takes what it tells.
        chosen: the variant it wants; "" where it has not said.
        before: the variant it has now; "" in its first round.
    """

    row: Mapping[str, Any] = field(default_factory=dict)
    steps: float | None = None
    up_bps: float | None = None
    down_bps: float | None = None
    chosen: str = ""
    before: str = ""


@dataclass(frozen=True)
class Decision:
    """The variant that a terminal is given, why, and the seconds of a round that were predicted for it."""

    variant: str
    why: str
    round_s: float | None = None


class Choice(Protocol):
    """Decides what each terminal of a round is given."""

    def decide(
        self, catalogue: Catalogue, times: StepTimes, terminals: Mapping[str, Terminal]
    ) -> Mapping[str, Decision]:
        """A decision for every terminal, by its key."""
        ...

    def check(self, catalogue: Catalogue) -> None:
        """Refuse a list that lacks a variant which may have to be given.

        Raises:
            ConfigError: names it.
        """
        ...


@dataclass(frozen=True)
class ByGroup:
    """One variant for each group of terminals: of one kind of device, region, application, level of load.

    Args:
        grouping: `by_value`, `by_levels`, `by_similarity` of `flower_edge.grouping`, or a function of your own from
            columns and the number of terminals to names.
        sizes: by group, the name of a variant, or a size or rate of the list.
        other: for groups that are not named; `None` refuses them.

    Raises:
        ConfigError: no sizes; (when decided) a group without one.
    """

    grouping: Grouping
    sizes: Mapping[str, str | Size | float]
    other: str | None = None

    def __post_init__(self) -> None:
        if not callable(self.grouping) or not self.sizes:
            raise ConfigError("ByGroup: expected a grouping and sizes: ByGroup(by_value('device'), {'phone': 'c'})")

    def check(self, catalogue: Catalogue) -> None:
        """Refuse a list that lacks one of the sizes."""
        for group in self.sizes:
            self._variant(catalogue, group)
        if self.other is not None:
            catalogue[self.other]

    def decide(
        self, catalogue: Catalogue, times: StepTimes, terminals: Mapping[str, Terminal]
    ) -> Mapping[str, Decision]:
        """A decision for every terminal.

        >>> from flower_edge.grouping import by_value
        >>> from flower_edge.submodels.catalogue import mlp_catalogue
        >>> models = mlp_catalogue([64, 32, 10], {"a": 1.0, "b": 0.25})
        >>> terminals = {"1": Terminal({"device": "phone"}), "2": Terminal({"device": "server"})}
        >>> ByGroup(by_value("device"), {"phone": 0.25}, other="a").decide(models, StepTimes(), terminals)["1"]
        Decision(variant='b', why="of group 'phone'", round_s=None)
        """
        groups = list(self.grouping(columns_of([one.row for one in terminals.values()]), len(terminals)))
        if len(groups) != len(terminals):
            raise ConfigError(f"the grouping returned {len(groups)} names for {len(terminals)} terminals")
        return {
            key: Decision(self._variant(catalogue, group), f"of group {group!r}")
            for key, group in zip(terminals, groups, strict=True)
        }

    def _variant(self, catalogue: Catalogue, group: str) -> str:
        wanted = self.sizes.get(group, self.other)
        if wanted is None:
            raise ConfigError(f"group {group!r} has no size; there are some for {list(self.sizes)}; or give other=")
        if isinstance(wanted, str):
            return catalogue[wanted].name
        if (found := catalogue.of_size(wanted)) is None:
            raise ConfigError(f"group {group!r}: size {wanted} is not in the model list, {', '.join(catalogue.names)}")
        return found.name


@dataclass(frozen=True)
class AsChosen:
    """What each terminal chose from the list.

    Args:
        default: for those that have not chosen, or chose what is not listed.

    >>> from flower_edge.submodels.catalogue import mlp_catalogue
    >>> models = mlp_catalogue([64, 32, 10], {"a": 1.0, "b": 0.25})
    >>> AsChosen("b").decide(models, StepTimes(), {"1": Terminal(chosen="a"), "2": Terminal()})["2"].variant
    'b'
    """

    default: str

    def check(self, catalogue: Catalogue) -> None:
        """Refuse a list without the default."""
        catalogue[self.default]

    def decide(
        self, catalogue: Catalogue, times: StepTimes, terminals: Mapping[str, Terminal]
    ) -> Mapping[str, Decision]:
        """A decision for every terminal."""
        return {
            key: Decision(one.chosen, "its own choice")
            if one.chosen in catalogue
            else Decision(self.default, "default")
            for key, one in terminals.items()
        }
