"""Hyperparameters as training results: what terminals found is merged by its kind. Nothing here knows Flower or trains.

kinds      what a hyperparameter is: on a log scale, a count, a choice; its bounds and its neighbours
merging    many reports of one hyperparameter become one value
record     what travels: a proposal down, a report up, and what is left out of a report
search     a small search around a proposal, on a terminal's own data
"""

from .kinds import Choice, Count, Kind, LogScale, Value
from .merging import ByScore, Merged, Report, merge
from .record import HYPERPARAMETER_RECORD, PROPOSED_KEY, Told, hyperparameters_of, read_report, report_entries
from .search import Found, local_search

__all__ = [
    "HYPERPARAMETER_RECORD",
    "PROPOSED_KEY",
    "ByScore",
    "Choice",
    "Count",
    "Found",
    "Kind",
    "LogScale",
    "Merged",
    "Report",
    "Told",
    "Value",
    "hyperparameters_of",
    "local_search",
    "merge",
    "read_report",
    "report_entries",
]
