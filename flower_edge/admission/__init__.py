"""Whether a reply is one to the assignment it answers: exact arrays, finite numbers, a believable count.

assignment         what a node was asked for, and what its reply may be
gate               the checks, one reply at a time; Flower is not needed for them
refusal            why something is not used: a code and a sentence
"""

from .assignment import Assignment, needed_bytes
from .gate import Gate, Offer
from .refusal import CODES, Refusal

__all__ = ["CODES", "Assignment", "Gate", "Offer", "Refusal", "needed_bytes"]
