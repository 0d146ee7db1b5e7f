"""The terminal's half of `Tuned`: what hyperparameters were proposed, and a report of what it found.

An ordinary ClientApp reads a proposal as it reads any train config, `message.content["config"]["lr"]`, and need not
report. Nothing here trains or searches: `flower_edge.tuning.local_search` does the second.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from flwr.app import ConfigRecord, Message, RecordDict

from flower_edge.conditions import plain_values
from flower_edge.tuning import HYPERPARAMETER_RECORD, PROPOSED_KEY, Value, report_entries

__all__ = ["proposed", "report"]


def proposed(message: Message) -> dict[str, Value]:
    """The proposal a message came with, by name; empty where the server tunes nothing.

    >>> from flower_edge.runtime.local_grid import LocalGrid
    >>> from flwr.clientapp import ClientApp
    >>> config = ConfigRecord({"server-round": 1, "lr": 0.1, "k": 5, PROPOSED_KEY: ["lr", "k"]})
    >>> with LocalGrid(ClientApp(), nodes=1):
    ...     proposed(Message(RecordDict({"config": config}), 1000, "train"))
    {'lr': 0.1, 'k': 5}
    """
    for record in message.content.config_records.values() if message.has_content() else ():
        names = record.get(PROPOSED_KEY)
        if isinstance(names, list):
            told, _ = plain_values({name: record[name] for name in names if isinstance(name, str) and name in record})
            return {name: value for name, value in told.items() if not isinstance(value, bool)}
    return {}


def report(content: RecordDict, values: Mapping[str, Any], score: Any = None) -> RecordDict:
    """The content of a reply with a report of hyperparameters; `content` stays as it is.

    Args:
        content: of the reply: the model and its metrics, among them the examples the report is weighed by.
        values: by name, all of the hyperparameters or some.
        score: how good they are on data the model was not trained on, higher is better: an accuracy, minus a loss, or
            by how much it has grown (`Found.gain`), which is fairer where terminals' data are unevenly hard.

    Raises:
        ConfigError: a value that cannot travel, or a score that is no finite number.

    >>> told = report(RecordDict(), {"lr": 0.1}, score=0.9)
    >>> dict(told[HYPERPARAMETER_RECORD].items())
    {'lr': 0.1, 'validation-score': 0.9}
    """
    entries = report_entries(values, score)
    return RecordDict({**content, HYPERPARAMETER_RECORD: ConfigRecord(dict(entries))})
