"""Tests on data that the edge holds out: the merge with a reply against the merge without it, or the reply itself.

`WithAndWithout` asks what a reply does to the others, `AtLeastReference` whether it is good alone, as [4] has it. A
terminal with one-sided data is worse than the reference alone and still makes the merge better, so the first is the
default. Each evaluation is a call of a function that is handed in; nothing here has data.

Letters:
    L(S)    loss of the base moved by the weighted mean of the replies S; L(none) is the base's
    L(i)    of reply i alone

Source: [4] ¶31, ¶69; C. Xie, S. Koyejo, I. Gupta, "Zeno", ICML 2019, for ranking by held-out loss.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ..errors import ConfigError
from ..updates.merges import Merges, Running
from ..updates.update import Arrays, Update
from .judging import Evaluate, Judgement

__all__ = ["AtLeastReference", "WithAndWithout"]


@dataclass(frozen=True)
class WithAndWithout:
    """Refuses a reply with which the merge is worse than without it.

    A reply with which alone the model is no worse than it was passes: L(i) <= L(none). It may slow the others down, but
    harms nobody. The others have to prove themselves in a merge S. Replies are put in order, the best alone first, and
    those up to the place where their merge's loss is least are S. Not the single best: among one-sided nodes that is
    one that has hardly moved, next to which every other looks bad.

    Then, the worst alone first, a member i of S is refused where L(S) > (1 + margin) L(S without i). Those after S are
    put in one by one, and refused where L(S with i) > (1 + margin) L*, the least loss so far; not the last one, so that
    the harm of many small ones cannot add up. For n replies it takes at most 3 n evaluations.

    Where even what has passed is worse than `collapse` times the base, all are refused: there was nothing good among
    them. Losses that are no numbers are worse than any, and so is a model at which `evaluate` raises.

    Args:
        evaluate: a model's loss and accuracy on data of the edge's own, that no node has seen. What it raises at the
            model that was sent out goes up.
        margin: how much worse the merge may become, as a share of the loss it is compared with.
        accuracy_margin: how much accuracy the merge may lose in the same comparisons, 0 to 1; 1 does not look at it. In
            early rounds accuracy jumps: with 0.05 one honest reply in ten was refused.
        collapse: how many times the base's loss the merge may have; `inf` for no bound.
        least_loss: a loss to compare with that is less counts as this much. Where a model makes hardly a mistake any
            more, a share of its loss is nothing, and every honest reply would be too much.

    Does not help against a backdoor that the held-out data do not show, against more attackers than honest replies
    that agree with the held-out data, and not where the held-out data are other than the terminals' on purpose.

    Raises:
        ConfigError: an argument out of its range.
    """

    evaluate: Evaluate
    margin: float = 0.06
    accuracy_margin: float = 0.2
    collapse: float = 2.0
    least_loss: float = 0.01

    def __post_init__(self) -> None:
        _check(self, self.evaluate, {"margin": self.margin, "least_loss": self.least_loss})
        if not 0.0 <= self.accuracy_margin <= 1.0:
            raise ConfigError(f"WithAndWithout(accuracy_margin={self.accuracy_margin}): a share of the samples, 0 to 1")
        if not self.collapse >= 1.0:
            raise ConfigError(f"WithAndWithout(collapse={self.collapse}): expected 1 or more, times the base's loss")

    def judge(self, updates: Sequence[Update], rng: np.random.Generator) -> Judgement:
        """As `Judge.judge`; measures `loss` and `accuracy` alone, and `merged_loss` of the merge that decided."""
        if not updates:
            return Judgement()
        merges = Merges(updates[0].base, updates)
        scores = _Scores(self.evaluate)
        base = scores.of_base(merges)
        alone = [scores.of(merges, place) for place in range(len(updates))]
        measured = {place: {"loss": score.loss, "accuracy": score.accuracy} for place, score in enumerate(alone)}
        refused = {place: score.trouble for place, score in enumerate(alone) if score.trouble}
        order = sorted(set(range(len(updates))) - refused.keys(), key=lambda i: (alone[i].loss, updates[i].node))
        harmless = sum(alone[place].loss <= base.loss for place in order)

        # S: of all beginnings of the order that have the harmless ones in them, the one whose merge is best.
        chain: dict[int, _Score] = {}
        together = merges.running()
        for length, place in enumerate(order, 1):
            together.add(place)
            if length >= harmless:
                chain[length] = alone[place] if length == 1 else scores.score(together.model())
        first = min(chain, key=lambda length: chain[length].loss, default=0)
        passed, now = order[:first], chain.get(first, base)
        for place in passed:
            measured[place]["merged_loss"] = now.loss

        together = _merge_of(merges, passed)
        for place in reversed(order[harmless:first]):
            if len(passed) == 1:
                break  # the best of all; whether it is good enough is asked at the end
            together.without(place)
            without = scores.score(together.model())
            measured[place]["merged_loss"] = now.loss
            if worse := self._worse(now, without):
                refused[place], now = worse, without
                passed.remove(place)
            else:
                together.add(place)

        # Where nobody was taken out, the first one after S has been looked at already.
        known = chain.get(first + 1) if len(passed) == first else None
        for place in order[first:]:
            together.add(place)
            score, known = known or scores.score(together.model()), None
            measured[place]["merged_loss"] = score.loss
            if worse := self._worse(score, now):
                refused[place] = worse
                # Not taken out again: what is 1e30 times as long has rounded the others away.
                together = _merge_of(merges, passed)
            else:
                passed.append(place)
                now = _Score(min(now.loss, score.loss), max(now.accuracy, score.accuracy))

        if passed and now.loss > self.collapse * max(base.loss, self.least_loss):
            text = f"held-out loss {now.loss:.4g} with the best of all replies and {base.loss:.4g} without any"
            refused |= dict.fromkeys(passed, f"{text}; at most {self.collapse:g} times that")
        said = {place: ("held-out", refused[place]) for place in sorted(refused)}
        return Judgement(said, measured, cost={"evaluations": float(scores.count)})

    def _worse(self, score: _Score, without: _Score) -> str:
        """Why a merge is worse than the one without a reply; empty where it is not."""
        if score.trouble:
            return score.trouble
        if score.loss > (1.0 + self.margin) * max(without.loss, self.least_loss):
            return f"held-out loss {score.loss:.4g} with it and {without.loss:.4g} without it; margin {self.margin:.0%}"
        if score.accuracy < without.accuracy - self.accuracy_margin:
            found = f"held-out accuracy {score.accuracy:.1%} with it and {without.accuracy:.1%} without it"
            return f"{found}; margin {self.accuracy_margin:.0%}"
        return ""


@dataclass(frozen=True)
class AtLeastReference:
    """Refuses a reply that is not itself at least as good as the reference: the strict form of [4] ¶31 and ¶69.

    Its accuracy alone has to be at least the base's, less `margin`. It refuses honest terminals with one-sided data,
    most of them in late rounds, since their own training alone makes the model better for them and worse for others:
    docs/filtering.md has the figures. n + 1 evaluations.

    Args:
        evaluate: a model's loss and accuracy on data of the edge's own.
        margin: how much accuracy it may lose, 0 to 1.
        reference: the accuracy to compare with; `None` is that of the model it was given.

    Raises:
        ConfigError: an argument out of its range.
    """

    evaluate: Evaluate
    margin: float = 0.0
    reference: float | None = None

    def __post_init__(self) -> None:
        _check(self, self.evaluate, {"margin": self.margin})
        if self.reference is not None and not 0.0 <= self.reference <= 1.0:
            raise ConfigError(f"AtLeastReference(reference={self.reference}): an accuracy, 0 to 1, or None")

    def judge(self, updates: Sequence[Update], rng: np.random.Generator) -> Judgement:
        """As `Judge.judge`; measures `loss` and `accuracy` alone."""
        if not updates:
            return Judgement()
        merges = Merges(updates[0].base, updates)
        scores = _Scores(self.evaluate)
        reference = scores.of_base(merges).accuracy if self.reference is None else self.reference
        refused: dict[int, tuple[str, str]] = {}
        measured: dict[int, dict[str, float]] = {}
        for place in range(len(updates)):
            score = scores.of(merges, place)
            measured[place] = {"loss": score.loss, "accuracy": score.accuracy}
            if score.trouble:
                refused[place] = ("reference", score.trouble)
            elif score.accuracy < reference - self.margin:
                text = f"held-out accuracy {score.accuracy:.1%} alone, the reference has {reference:.1%}"
                refused[place] = ("reference", f"{text}; margin {self.margin:.0%}")
        return Judgement(refused, measured, cost={"evaluations": float(scores.count)})


@dataclass(frozen=True)
class _Score:
    """Of one model; `trouble` says why it has none, and then the loss is infinite and the accuracy 0."""

    loss: float
    accuracy: float
    trouble: str = ""


class _Scores:
    """Evaluations of merges, counted."""

    def __init__(self, evaluate: Evaluate) -> None:
        self._evaluate = evaluate
        self.count = 0

    def of_base(self, merges: Merges) -> _Score:
        """Of the model that was sent out: the operator's own, so what `evaluate` raises at it is its fault."""
        return self._read(merges.of(()))

    def of(self, merges: Merges, member: int) -> _Score:
        """Of one reply alone."""
        return self.score(merges.of((member,)))

    def score(self, model: Arrays) -> _Score:
        """Of a merge, which a node may have made such that nothing can be computed with it."""
        try:
            return self._read(model)
        except Exception as error:
            return _Score(math.inf, 0.0, f"its evaluation on the held-out data raised {type(error).__name__}"[:200])

    def _read(self, model: Arrays) -> _Score:
        self.count += 1
        with np.errstate(all="ignore"):  # an attacker's model may overflow
            scored = self._evaluate(model)
        try:
            loss, accuracy = float(scored.loss), float(scored.accuracy)
        except (AttributeError, TypeError, ValueError):
            found = f"evaluate returned {str(scored)[:80]}; expected what has a loss and an accuracy"
            raise ConfigError(f"{found}, such as EvalResult(0.3, 0.9, 100)") from None
        if not math.isfinite(loss):
            return _Score(math.inf, 0.0, f"the loss on the held-out data is {loss}, not a finite number")
        return _Score(loss, accuracy if math.isfinite(accuracy) else 0.0)


def _merge_of(merges: Merges, members: Sequence[int]) -> Running:
    running = merges.running()
    for member in members:
        running.add(member)
    return running


def _check(judge: object, evaluate: object, margins: dict[str, float]) -> None:
    name = type(judge).__name__
    if not callable(evaluate):
        raise ConfigError(
            f"{name}({evaluate!r}): expected a function from a model's arrays to what has a loss and an accuracy"
        )
    for margin, value in margins.items():
        if not (math.isfinite(value) and value >= 0.0):
            raise ConfigError(f"{name}({margin}={value}): expected 0 or more")
