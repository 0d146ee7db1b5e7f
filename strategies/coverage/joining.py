"""Who of the terminals in coverage takes part: automatically, when asked, or because it has asked by itself.

The three ways of [4] ¶44-46. Answers as arrays over the terminals, with their age. Nothing here sends a question;
`Coverage` does, and a terminal answers with `answer_availability` of `flower_edge.clients`.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, Literal, get_args

import numpy as np
import numpy.typing as npt

from flower_edge.errors import ConfigError

__all__ = ["Join", "Joining"]

Join = Literal["automatic", "ask", "request"]

#: Values of an answer.
NOT_ASKED, NO, YES = -1, 0, 1


class Joining:
    """What every terminal last answered, and when it is asked again.

    Args:
        nodes: how many terminals.
        how: `automatic`: whoever is in coverage takes part. `ask`: whoever says it is available. `request`: whoever
            has a standing request of its own; a Flower node cannot send first, so the edge looks whether there is one.
        again_s: an answer, yes or no, is good for so long; after that, and in every new cell, it is asked again.

    Raises:
        ConfigError: an argument that cannot be used.
    """

    def __init__(self, nodes: int, how: Join, again_s: float) -> None:
        if how not in get_args(Join):
            raise ConfigError(f"join = {how!r}: expected one of {', '.join(map(repr, get_args(Join)))}")
        if math.isnan(again_s) or again_s < 0:
            raise ConfigError(f"ask_again_s = {again_s}: expected 0 or more seconds; math.inf asks once per cell")
        self.how, self.again_s = how, again_s
        self._answer = np.full(nodes, NOT_ASKED, np.int8)
        self._asked_s = np.full(nodes, -math.inf)
        self._under_way = np.zeros(nodes, np.bool_)

    def taken(self, present: npt.NDArray[np.bool_]) -> npt.NDArray[np.bool_]:
        """Who of those in coverage takes part, bool [nodes]."""
        return present if self.how == "automatic" else present & (self._answer == YES)

    def due(self, present: npt.NDArray[np.bool_], time_s: float) -> npt.NDArray[np.int64]:
        """Who is to be asked now: never asked in this cell, or too long ago; not those whose answer is under way."""
        if self.how == "automatic":
            return np.empty(0, np.int64)
        old = (self._answer == NOT_ASKED) | (time_s - self._asked_s >= self.again_s)
        return np.flatnonzero(present & old & ~self._under_way)

    def asking(self, who: npt.NDArray[np.int64], *, ends: bool = False) -> None:
        """A question to these terminals begins or ends; in between nobody else asks them."""
        self._under_way[who] = not ends

    def answered(
        self, told: Mapping[int, Mapping[str, Any]], who: npt.NDArray[np.int64], time_s: float
    ) -> list[tuple[str, str, list[int]]]:
        """Take what these terminals told, by their index; one that told nothing has said no.

        Returns:
            What changed: `joined` or `declined`, a sentence about `{terminal}` and `{cell}`, and the terminals.
        """
        changed: dict[tuple[str, str], list[int]] = {}
        for index in who.tolist():
            answer = told.get(index)
            yes = answer is not None and self._yes(answer)
            if yes != (self._answer[index] == YES) or self._answer[index] == NOT_ASKED:
                changed.setdefault(self._words(yes, answer is not None), []).append(index)
            self._answer[index], self._asked_s[index] = (YES if yes else NO), time_s
        return [(what, text, indices) for (what, text), indices in changed.items()]

    def _yes(self, answer: Mapping[str, Any]) -> bool:
        if self.how == "ask":
            return answer.get("available") is True
        return answer.get("requests") is True and answer.get("available", True) is True

    def _words(self, yes: bool, answered: bool) -> tuple[str, str]:
        if yes:
            why = "at its own request" if self.how == "request" else "it is available"
            return "joined", f"terminal {{terminal}} takes part in {{cell}}: {why}"
        why = "it has not asked to" if self.how == "request" else "it is not available"
        return (
            "declined",
            f"terminal {{terminal}} takes no part in {{cell}}: {why if answered else 'it did not answer'}",
        )

    def forget(self, who: npt.NDArray[np.int64]) -> None:
        """These have left their cell; in the next they are asked anew."""
        self._answer[who], self._asked_s[who] = NOT_ASKED, -math.inf

    def state_dict(self) -> dict[str, Any]:
        """The answers and when they were given."""
        return {"answer": self._answer.copy(), "asked_s": self._asked_s.copy()}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Inverse of `state_dict`."""
        self._answer, self._asked_s = state["answer"].copy(), state["asked_s"].copy()
        self._under_way = np.zeros(len(self._answer), np.bool_)
