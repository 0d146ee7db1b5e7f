"""Asking terminals something between rounds: their conditions, whether they are available.

A question is a message of type `query.<name>` with a ConfigRecord `request`, the answer one ConfigRecord called like
the question. Whatever terminals answer, nothing here raises or believes it: what cannot be read is left out, and who
does not answer well is not in the result. Nothing here samples or trains.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from logging import getLogger
from typing import Final

from flwr.app import ConfigRecord, Message, RecordDict
from flwr.serverapp import Grid

from ..conditions import Conditions, plain_values
from ..errors import ConfigError
from ..wire import error_reason
from .abilities import now_s
from .node_properties import Property

__all__ = [
    "AGENT",
    "AVAILABLE",
    "CONDITIONS",
    "CONDITIONS_RECORD",
    "NOW_S",
    "REQUEST",
    "ask_nodes",
    "conditions_of",
    "time_asked_s",
    "without_conditions",
]

log = getLogger(__name__)

#: Questions that terminals can answer: `query.conditions`, `query.available`, `query.agent`.
CONDITIONS, AVAILABLE, AGENT = "conditions", "available", "agent"
#: Record of a question, and its key for the time on a virtual clock.
REQUEST, NOW_S = "request", "now-s"
#: The most entries that are read of an answer.
MOST_TOLD: Final = 128
#: Record in which a terminal tells its conditions with a training reply.
CONDITIONS_RECORD: Final = "flower-edge.conditions"


def ask_nodes(
    grid: Grid,
    nodes: Iterable[int],
    query: str,
    request: Mapping[str, Property] | None = None,
    timeout_s: float | None = None,
) -> dict[int, dict[str, Property]]:
    """Ask nodes, and return what those told that answered well, by node id in the order of `nodes`.

    Args:
        grid: where the nodes are.
        nodes: ids; one that is there twice is asked once.
        query: name of the question, such as `conditions` or `available`.
        request: what to tell them with it; `now-s` is added where the grid has a virtual clock.
        timeout_s: the most to wait, as in `Grid.send_and_receive`. Without one, a node that never answers is waited
            for as long as the grid waits.

    A node is left out if it does not answer, answers with an error (it may not know the question) or without the
    record. Of the record, entries that are not plain bounded values are left out. On a virtual clock a question takes
    the time that its bytes take there and back.

    Raises:
        ConfigError: `query` is not a name that Flower takes.
    """
    if not query.isidentifier():
        raise ConfigError(f"ask_nodes(query={query!r}): Flower takes a Python identifier; write an underscore for '-'")
    told: dict[str, Property] = dict(request or {})
    if NOW_S not in told and (time_s := now_s(grid)) is not None:
        told[NOW_S] = time_s
    asked = list(dict.fromkeys(nodes))
    questions = [
        Message(RecordDict({REQUEST: ConfigRecord(dict(told))}), node_id, f"query.{query}") for node_id in asked
    ]
    if not questions:
        return {}
    answers: dict[int, dict[str, Property]] = {}
    for reply in grid.send_and_receive(questions, timeout=timeout_s):
        node_id = reply.metadata.src_node_id
        if reply.has_error():
            log.debug("node %s did not answer query.%s: %s", node_id, query, error_reason(reply))
            continue
        record = reply.content.get(query)
        if not isinstance(record, ConfigRecord):
            log.debug("node %s answered query.%s without a ConfigRecord %r", node_id, query, query)
            continue
        answers[node_id], dropped = plain_values(record, most=MOST_TOLD)
        if dropped:
            log.debug("node %s answered query.%s, not believed: %s", node_id, query, ", ".join(dropped))
    return {node_id: answers[node_id] for node_id in asked if node_id in answers}


def time_asked_s(message: Message) -> float | None:
    """The time a message came with (`now-s` in any of its config records); `None` without a virtual clock."""
    for record in message.content.config_records.values() if message.has_content() else ():
        value = record.get(NOW_S)
        if isinstance(value, int | float) and not isinstance(value, bool):
            return float(value)
    return None


def conditions_of(reply: Message) -> Conditions | None:
    """The conditions a terminal told with its training reply; `None` if it told none."""
    if not reply.has_content():
        return None
    record = reply.content.get(CONDITIONS_RECORD)
    return Conditions.read(record) if isinstance(record, ConfigRecord) else None


def without_conditions(reply: Message) -> Message:
    """The same reply, its content without the conditions, as a strategy should see it."""
    if reply.has_content() and CONDITIONS_RECORD in reply.content:
        reply.content = RecordDict(
            {name: record for name, record in reply.content.items() if name != CONDITIONS_RECORD}
        )
    return reply
