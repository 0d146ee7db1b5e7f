"""Training data as things that have an owner, an age and rules, and the books of who was given what. No Flower here.

anonymity          the smallest group of rows that agree in their quasi-identifiers
card               what a set is, in plain values
training_set       samples with their card, and what an edge or a terminal takes
policy             may this set go to that receiver, and why not
pieces             a set in parts of bounded size
share_book         what was shared with whom, when and how often
"""

from .anonymity import k_anonymity
from .card import DataCard
from .pieces import Part, check_part, waves
from .policy import Decision, SharePolicy, share_rule
from .share_book import Handed, ShareBook
from .training_set import SetSpec, TrainingSet, draw

__all__ = [
    "DataCard",
    "Decision",
    "Handed",
    "Part",
    "SetSpec",
    "ShareBook",
    "SharePolicy",
    "TrainingSet",
    "check_part",
    "draw",
    "k_anonymity",
    "share_rule",
    "waves",
]
