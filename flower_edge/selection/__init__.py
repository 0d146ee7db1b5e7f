"""Who takes part: eligibility, scores and a deadline, as values. Nothing here knows Flower, sends or asks.

candidates         the nodes and what is known of them, as columns
experience         what replies have taught about nodes
estimates          learned, told or estimated: the table a choice is made from
known              that table, laid out for whoever decides besides a selection
pipeline           the stages, one after the other
scores             the order of preference: by lot, in turn
oort, fedcs, power_of_choice
                   scores from the literature
drawing            drawing without replacement by weight
"""

from .candidates import Candidates
from .estimates import Job, known_of
from .experience import Experience
from .fedcs import FedCS, pack
from .known import Known
from .oort import Oort, statistical_utility
from .pipeline import Deadline, Pipeline, PipelineState
from .power_of_choice import PowerOfChoice
from .scores import RandomScore, RoundRobin, Score

__all__ = [
    "Candidates",
    "Deadline",
    "Experience",
    "FedCS",
    "Job",
    "Known",
    "Oort",
    "Pipeline",
    "PipelineState",
    "PowerOfChoice",
    "RandomScore",
    "RoundRobin",
    "Score",
    "known_of",
    "pack",
    "statistical_utility",
]
