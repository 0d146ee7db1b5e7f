"""Credits for what came back: size, recency, frequency, times contribution, out of a budget, in whole micro-credits.

enrolment, claims  what the operator knows of a node, and what of its claims counts
factors, rule      a node's score
budget, shares     a round's pot, and its parts to the last micro-credit
credits            credits and micro-credits
tariff, statement  credits in money, per node
"""

from .budget import Budget
from .claims import Claim, Measured
from .credits import MICRO_PER_CREDIT, credits_of, micro_of
from .enrolment import Enrolled, Enrolment
from .factors import Frequency, Recency, Size
from .rule import RewardRule
from .shares import largest_remainder
from .statement import Statement, statement, statements
from .tariff import Tariff

__all__ = [
    "MICRO_PER_CREDIT",
    "Budget",
    "Claim",
    "Enrolled",
    "Enrolment",
    "Frequency",
    "Measured",
    "Recency",
    "RewardRule",
    "Size",
    "Statement",
    "Tariff",
    "credits_of",
    "largest_remainder",
    "micro_of",
    "statement",
    "statements",
]
