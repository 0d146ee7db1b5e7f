"""`Tariff`: what a credit is worth in money, and how amounts are rounded. Nothing here pays anybody.

Source: [4], paragraph 72 (monetary compensation for each terminal).
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from decimal import ROUND_DOWN, ROUND_HALF_EVEN, ROUND_HALF_UP, Decimal, InvalidOperation, localcontext
from typing import Final, Literal

from ..errors import ConfigError
from .credits import credits_of

__all__ = ["Rounding", "Tariff"]

Rounding = Literal["down", "half-even", "half-up"]

_ROUNDING: Final = {"down": ROUND_DOWN, "half-even": ROUND_HALF_EVEN, "half-up": ROUND_HALF_UP}
_CURRENCY = re.compile(r"[A-Z]{3,8}")


@dataclass(frozen=True)
class Tariff:
    """A price for credits. Amounts are of a node's total: rounded rows would add up to something else.

    Args:
        currency: three to eight capital letters, such as EUR.
        price_per_credit: in that currency; a text or a Decimal, so that 0.1 is 0.1.
        rounding: "down" (towards 0, never more than the credits are worth), "half-even" or "half-up" (away from 0).
        places: of an amount, 2 for cents.

    Raises:
        ConfigError: a float, a price below 0, another rounding, or places that no money has.

    >>> Tariff("EUR", "0.05").amount(12_345_678)
    Decimal('0.61')
    """

    currency: str = "EUR"
    price_per_credit: Decimal | str | int = Decimal(1)
    rounding: Rounding = "down"
    places: int = 2

    def __post_init__(self) -> None:
        if not _CURRENCY.fullmatch(self.currency):
            raise ConfigError(f"Tariff(currency={self.currency!r}): expected three to eight capital letters, as 'EUR'")
        if self.rounding not in _ROUNDING:
            raise ConfigError(f"Tariff(rounding={self.rounding!r}): expected one of {', '.join(_ROUNDING)}")
        if isinstance(self.places, bool) or not isinstance(self.places, int) or not 0 <= self.places <= 12:
            raise ConfigError(f"Tariff(places={self.places!r}): expected a whole number, 0 to 12")
        object.__setattr__(self, "price_per_credit", _price(self.price_per_credit))

    @classmethod
    def parse(cls, text: str, *, rounding: Rounding = "down", places: int = 2) -> Tariff:
        """A tariff from a text: currency and price of one credit.

        Raises:
            ConfigError: not two words, or not those.

        >>> Tariff.parse("EUR 0.05").price_per_credit
        Decimal('0.05')
        """
        words = text.split()
        if len(words) != 2:
            raise ConfigError(f"tariff {text!r}: expected a currency and a price per credit, such as 'EUR 0.05'")
        return cls(words[0], words[1], rounding, places)

    def amount(self, micro: int) -> Decimal:
        """What so many micro-credits are worth, rounded; negative for negative ones."""
        price = Decimal(self.price_per_credit)
        with localcontext() as exactly:
            exactly.prec = len(str(micro)) + len(price.as_tuple().digits) + abs(price.adjusted()) + self.places + 8
            return (credits_of(micro) * price).quantize(Decimal(1).scaleb(-self.places), _ROUNDING[self.rounding])


def _price(given: Decimal | str | int) -> Decimal:
    if isinstance(given, bool) or not isinstance(given, Decimal | str | int):
        raise ConfigError(
            f"Tariff(price_per_credit={given!r}): expected a text such as '0.05'; a {type(given).__name__} is not exact"
        )
    try:
        price = Decimal(given)
    except InvalidOperation:
        raise ConfigError(f"Tariff(price_per_credit={given!r}): expected a number such as '0.05'") from None
    if not price.is_finite() or price < 0 or abs(price.adjusted()) > 30:
        raise ConfigError(f"Tariff(price_per_credit={given!r}): expected a price, 0 or more")
    return price
