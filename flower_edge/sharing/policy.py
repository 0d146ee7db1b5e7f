"""`SharePolicy`: may this set go to that receiver. A rule over what the card says and what is known of the receiver.

Private by default: without a rule only public sets are shared. A refusal always has a reason. Nothing is sent here.

Source: [4] ¶63-64: shared by size, anonymity, recency, use count, or because it is public.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import NamedTuple

from ..conditions import Plain
from ..errors import ConfigError
from ..rules import Rule
from .card import DataCard

__all__ = ["Decision", "SharePolicy", "share_rule"]


class Decision(NamedTuple):
    """Whether a set may go, and in words why not; "" where it may."""

    agreed: bool
    why: str = ""


@dataclass(frozen=True)
class SharePolicy:
    """May this set go to that receiver.

    The rule sees the fields of `DataCard` by their names, and of the receiver `receiver` (its node id as text),
    `receiver_cell` and whatever else is known of it under `receiver_…`. What is not known makes a comparison unknown,
    and a rule that is not true refuses: `k >= 5` refuses pictures, which have no k.

    Args:
        rule: when it may go; None shares what is public and nothing else.

    Raises:
        ConfigError: a text that is no rule.

    >>> SharePolicy().decide(DataCard("own"))
    Decision(agreed=False, why='rule public does not hold: public = False')
    >>> SharePolicy("anonymous and size_bytes <= 1e6").decide(DataCard("own", anonymous=True, size_bytes=48))
    Decision(agreed=True, why='')
    """

    rule: Rule | str | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "rule", Rule("public") if self.rule is None else Rule.of(self.rule))

    def decide(self, card: DataCard, receiver: Mapping[str, Plain] | None = None) -> Decision:
        """Whether it may go there."""
        assert isinstance(self.rule, Rule)
        facts = {**(receiver or {}), **card.to_mapping()}
        if self.rule.holds(facts):
            return Decision(True)
        return Decision(False, f"rule {self.rule} does not hold: {self.rule.facts(facts)}")


def share_rule(
    *,
    size_bytes_at_most: float | None = None,
    anonymous: bool = False,
    k_at_least: int | None = None,
    age_s_at_most: float | None = None,
    uses_at_most: int | None = None,
    uses_at_least: int | None = None,
    or_public: bool = False,
) -> Rule:
    """The rules that [4] ¶63-64 name, all of those given together.

    Args:
        size_bytes_at_most: as an array, not as a file.
        anonymous: its owner declares it.
        k_at_least: measured; refuses whatever is not a table with quasi-identifiers.
        age_s_at_most: of its newest sample.
        uses_at_most: trainings it was used in, ¶63.
        uses_at_least: the other way round, ¶64: what was used for training may be shared.
        or_public: a public set is shared whatever the rest says.

    Raises:
        ConfigError: nothing was asked for.

    >>> print(share_rule(anonymous=True, k_at_least=5, uses_at_most=10, or_public=True))
    public or (anonymous and k >= 5 and (uses <= 10))
    """
    parts = ["anonymous"] if anonymous else []
    limits = {
        "size_bytes <=": size_bytes_at_most,
        "k >=": k_at_least,
        "age_s <=": age_s_at_most,
        "uses <=": uses_at_most,
        "uses >=": uses_at_least,
    }
    parts += [f"{name} {limit!r}" for name, limit in limits.items() if limit is not None]
    if not parts and not or_public:
        raise ConfigError("share_rule(): no condition; name one, such as anonymous=True, or write Rule('1') for all")
    together = " and ".join(parts)
    return Rule(" or ".join([*["public"][: int(or_public)], *([f"({together})"] if parts else [])]))
