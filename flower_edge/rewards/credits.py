"""Credits as whole numbers: one credit is 1,000,000 micro-credits, and nothing is ever a float. Nothing here pays.

Letters:
    micro   micro-credits, int
"""

from __future__ import annotations

from decimal import Decimal, InvalidOperation
from typing import Final

from ..errors import ConfigError

__all__ = ["MICRO_PER_CREDIT", "MOST_MICRO", "credits_of", "micro_of"]

MICRO_PER_CREDIT: Final = 1_000_000

#: What a book's 64-bit column holds.
MOST_MICRO: Final = 2**63 - 1


def micro_of(credits: int | str | Decimal) -> int:
    """Credits to micro-credits, exactly.

    Args:
        credits: a whole number, a text such as "12.5", or a Decimal; no more than six places.

    Raises:
        ConfigError: a float, a text that is no number, more than six places, or more than a book can hold.

    >>> micro_of(3), micro_of("0.000001")
    (3000000, 1)
    """
    if isinstance(credits, bool) or not isinstance(credits, int | str | Decimal):
        raise ConfigError(
            f"{credits!r} credits: expected a whole number or a text such as '12.5'; "
            f"a {type(credits).__name__} is not exact"
        )
    try:
        exact = Decimal(credits)
        top, below = exact.as_integer_ratio()
    except (InvalidOperation, OverflowError, ValueError):
        raise ConfigError(f"{credits!r} credits: expected a number such as '12.5'") from None
    micro, rest = divmod(top * MICRO_PER_CREDIT, below)
    if rest:
        raise ConfigError(f"{credits!r} credits: a micro-credit is the smallest there is; give six places at most")
    if abs(micro) > MOST_MICRO:
        raise ConfigError(f"{credits!r} credits: expected at most {MOST_MICRO} micro-credits, which a book can hold")
    return micro


def credits_of(micro: int) -> Decimal:
    """Micro-credits to credits, exactly.

    >>> credits_of(1_500_000)
    Decimal('1.500000')
    """
    sign, digits = int(micro < 0), tuple(int(digit) for digit in str(abs(micro)))
    return Decimal((sign, digits, -6))
