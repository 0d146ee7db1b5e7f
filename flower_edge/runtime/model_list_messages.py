"""What travels when an edge shows a terminal its model list: the question `query.model_list`, and the answer.

No code and no numbers of a model travel: of each variant its size and the shapes of its arrays. What comes back is
read within bounds and never raises: seconds that cannot be true, and a choice that is not on the list, are left out by
name. Nothing here times, asks or assigns.

Source: [4] ¶37, ¶48: the terminal is told the model list and chooses from it.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from ..conditions import Conditions
from ..errors import ConfigError, EdgeError, WireError
from ..submodels.catalogue import Catalogue
from ..submodels.step_times import believed_s
from .node_properties import Property

__all__ = ["MODEL_LIST", "ListAnswer", "ListQuestion"]

#: Name of the question, and of the record of its answer. (A Flower type takes no hyphen.)
MODEL_LIST: Final = "model_list"
#: Before the name of a variant: the seconds of a step of it. The terminal's choice.
_STEP_S, _CHOSEN = "step-s.", "chosen"
#: The most that is read of a list; one of 32 variants of a hundred arrays is a tenth of it.
_LONGEST: Final = 2_000_000


@dataclass(frozen=True)
class ListQuestion:
    """What a terminal is shown, and asked.

    Attributes:
        catalogue: the list.
        batch: samples in a step.
        steps: of each variant that are timed, after one that is not; 0 asks for its choice and conditions only.
        budget_s: seconds the timing may take; what does not fit is not tried.

    Raises:
        ConfigError: a number out of its range.
    """

    catalogue: Catalogue
    batch: int = 32
    steps: int = 3
    budget_s: float = 10.0

    def __post_init__(self) -> None:
        for name, least in (("batch", 1), ("steps", 0)):
            if type(value := getattr(self, name)) is not int or not least <= value <= 1_000_000:
                raise ConfigError(f"{name} = {value!r}: expected a whole number from {least}")
        if isinstance(self.budget_s, bool) or not 0.0 <= self.budget_s <= 86_400.0:
            raise ConfigError(f"budget_s = {self.budget_s!r}: expected seconds, from 0 to a day")

    def request(self) -> dict[str, Property]:
        """The entries of the question's record."""
        return {
            "catalogue": json.dumps(self.catalogue.to_tree(), separators=(",", ":")),
            "batch": self.batch,
            "steps": self.steps,
            "budget-s": float(self.budget_s),
        }

    @classmethod
    def read(cls, record: Mapping[str, Any]) -> ListQuestion:
        """Inverse of `request`.

        Raises:
            WireError: an entry is missing or is not what it should be.
        """
        text = record.get("catalogue")
        if not isinstance(text, str) or len(text) > _LONGEST:
            raise WireError("query.model_list without a list; install the same flower-edge version on both sides")
        try:
            numbers = (record.get("batch", 0), record.get("steps", -1), record.get("budget-s", -1.0))
            return cls(Catalogue.from_tree(json.loads(text)), *numbers)
        except (EdgeError, TypeError, ValueError, KeyError, AttributeError, RecursionError) as error:
            raise WireError(f"query.model_list cannot be read: {type(error).__name__}: {error}") from None


@dataclass(frozen=True)
class ListAnswer:
    """What a terminal says to it.

    Attributes:
        step_s: seconds of a step by variant, of those it tried.
        chosen: the variant it wants; "" leaves it to the edge.
        conditions: load, memory and whatever else it tells of itself.
        odd: what of the answer was not believed, in words; only `read` sets it.
    """

    step_s: Mapping[str, float] = field(default_factory=dict)
    chosen: str = ""
    conditions: Conditions = field(default_factory=Conditions)
    odd: tuple[str, ...] = ()

    def entries(self) -> dict[str, Property]:
        """Of the record `model_list` in the answer.

        >>> ListAnswer({"a": 0.5}, "a", Conditions(load=0.25)).entries()
        {'load': 0.25, 'step-s.a': 0.5, 'chosen': 'a'}
        """
        told: dict[str, Property] = dict(self.conditions.to_mapping())
        told |= {f"{_STEP_S}{name}": seconds for name, seconds in self.step_s.items()}
        return {**told, _CHOSEN: self.chosen} if self.chosen else told

    @classmethod
    def read(cls, told: Mapping[str, Any], question: ListQuestion) -> ListAnswer:
        """What can be believed of an answer; never raises.

        >>> from flower_edge.submodels.catalogue import mlp_catalogue
        >>> asked = ListQuestion(mlp_catalogue([4, 8, 2], {"a": 1.0, "b": 0.5}))
        >>> answer = ListAnswer.read({"step-s.a": -3.0, "step-s.b": 0.1, "chosen": "z", "load": 0.5}, asked)
        >>> answer.step_s, answer.chosen, answer.conditions.load
        ({'b': 0.1}, '', 0.5)
        >>> answer.odd
        ('step-s.a = -3.0', "it chose 'z', and the list has a, b")
        """
        models = question.catalogue
        step_s: dict[str, float] = {}
        odd: list[str] = []
        rest: dict[str, Any] = {}
        chosen = ""
        for name, value in told.items():
            variant = name.removeprefix(_STEP_S)
            if name == _CHOSEN:
                if isinstance(value, str) and (value in models or not value):
                    chosen = value
                else:
                    odd.append(f"it chose {value!r:.60}, and the list has {', '.join(models.names)}")
            elif name.startswith(_STEP_S):
                seconds = None
                if variant in models:
                    seconds = believed_s(value, models[variant].train_flops * question.batch)
                if seconds is None:
                    odd.append(f"{name:.60} = {value!r:.60}")
                else:
                    step_s[variant] = seconds
            else:
                rest[name] = value
        conditions = Conditions.read(rest)
        odd += [f"{name:.60}" for name in conditions.dropped]
        return cls(step_s, chosen, conditions, tuple(odd[:8]))
