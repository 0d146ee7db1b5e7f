"""Devices are asked: have they enough data, what are their moments, which model did they build, what have they left.

It drives a `Session` through its first phases over a Grid, and polls devices between rounds. Nothing here trains.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import replace
from logging import getLogger
from typing import Any, Final

from flwr.app import Message, RecordDict
from flwr.serverapp import Grid

from flower_edge.errors import ProtocolError
from flower_edge.runtime.abilities import now_s, wait_until
from flower_edge.runtime.splitting.messages import SPLIT_RECORD, Asked, Offered
from flower_edge.splitting.budgets import History
from flower_edge.splitting.capacity import Capacity
from flower_edge.splitting.moments import Moments
from flower_edge.splitting.order import ArchitectureSpec
from flower_edge.splitting.standardise import Standard
from flower_edge.wire import error_reason

from .session import Session, Standing

__all__ = ["RATES", "ask", "capacity_of", "collect_requests", "make_ready", "merged_moments", "unsaid"]

log = getLogger("flwr.edge")

#: Of a capacity, what a device may offer and measure.
RATES: Final = ("flops_per_s", "up_bps", "down_bps", "delay_s")


def ask(
    grid: Grid,
    nodes: Mapping[int, int],
    asked: Asked,
    timeout_s: float | None,
    *,
    kind: str = "query.split",
    answer: type[Offered] = Offered,
) -> dict[int, Offered]:
    """Ask devices; what those told that answered well, by number, in order.

    Args:
        grid: where they are.
        nodes: node ids by number.
        asked: the question, the same for all.
        timeout_s: the most to wait.
        kind: of the messages; `query.pieces` asks terminals of `pieces_client` the same.
        answer: what is read from the replies.
    """
    if not nodes:
        return {}
    numbers = {node: number for number, node in nodes.items()}
    questions = [Message(RecordDict({SPLIT_RECORD: asked.write()}), node, kind) for node in nodes.values()]
    answers: dict[int, Offered] = {}
    for reply in grid.send_and_receive(questions, timeout=timeout_s):
        number = numbers.get(reply.metadata.src_node_id)
        if number is None:
            continue
        if reply.has_error():
            log.warning("\tdevice %d did not answer %s: %s", number, kind, error_reason(reply))
            continue
        try:
            answers[number] = answer.read(reply.content.config_records.get(SPLIT_RECORD), sender=f"device {number}")
        except ProtocolError as error:
            log.warning("\t%s", error)
    return dict(sorted(answers.items()))


def collect_requests(session: Session, grid: Grid, nodes: Any, timeout_s: float | None) -> None:
    """Poll devices until all enrolled have requested training, or the time-out has dropped the others.

    Args:
        session: in its first phase; in PREPARE afterwards.
        grid: time passes on its clock, where it has one, else on the wall.
        nodes: gives node ids by number of the devices that are there now.
        timeout_s: the most to wait for one poll.

    Raises:
        NotEnoughNodes: too few requested in time.
    """
    rules, told = session.rules, ""
    while True:
        present = nodes()
        session.enrol(present)
        waiting = {
            number: node for number, node in present.items() if session.devices[number].standing is Standing.ENROLLED
        }
        asked = Asked(least_samples=rules.least_samples, capacity=False)
        for number, offered in ask(grid, waiting, asked, timeout_s).items():
            session.requested(number, offered)
        virtual_s = now_s(grid)
        present_s = time.monotonic() if virtual_s is None else virtual_s
        if not session.wait(present_s):
            return
        if (waits_for := session.awaited()) != told:
            told = waits_for
            log.info("\twaiting for %s, for up to %g s: EnrolRules(timeout_s=...)", waits_for, rules.timeout_s)
        if virtual_s is None or not wait_until(grid, virtual_s + rules.poll_s):
            time.sleep(rules.poll_s)


def make_ready(
    session: Session,
    grid: Grid,
    nodes: Mapping[int, int],
    spec: ArchitectureSpec,
    moments: dict[str, Any] | None,
    timeout_s: float | None,
) -> dict[int, Offered]:
    """Tell the devices that requested training which model it is, and hear who built it; what they answered.

    Args:
        session: those with requests become ready, or are refused.
        grid: where they are.
        nodes: node ids by number.
        spec: with its digest.
        moments: which standardisation's moments are wanted; None for none.
        timeout_s: the most to wait.
    """
    wanted = {number: nodes[number] for number in session.with_standing(Standing.REQUESTED) if number in nodes}
    asked = Asked(least_samples=session.rules.least_samples, moments=moments, architecture=spec, capacity=True)
    answers = ask(grid, wanted, asked, timeout_s)
    for number, offered in answers.items():
        session.ready(number, offered.digest, spec.digest, offered.why)
    return answers


def merged_moments(
    session: Session, offers: Mapping[int, Offered], standard: Standard, input_shape: tuple[int, ...]
) -> Moments | None:
    """Of all that are ready, together, in the order of their numbers; None: nobody told any.

    Args:
        session: whose moments are none, or of samples the model does not take, is refused there.
        offers: what devices answered.
        standard: whose moments they are.
        input_shape: of a sample.
    """
    wanted = {"feature": input_shape, "channel": input_shape[:1], "whole": ()}[standard.scope]
    told: dict[int, Moments] = {}
    for number in session.with_standing(Standing.READY):
        if (plain := offers[number].moments) is None:
            continue
        try:
            moments = Moments.from_plain(plain, sender=f"device {number}")
            if moments.count and (moments.scope, moments.mean.shape) != (standard.scope, wanted):
                raise ProtocolError(
                    f"device {number} sent moments by {moments.scope} of shape {moments.mean.shape}; expected by "
                    f"{standard.scope} of shape {wanted}, as the model's input_shape {input_shape} has them"
                )
            told[number] = moments
        except ProtocolError as error:
            log.warning("\t%s", error)
            session.refuse(number, str(error))
    return Moments.merged(told) if told else None


def capacity_of(
    offered: Offered | None, history: History, assumed: Capacity, *, weight: float = 0.5
) -> tuple[Capacity, History]:
    """What a device has left for the round that comes, and its history with what it offers now.

    What it says now counts; what it does not say is the running mean of what was measured, else what is assumed.
    """
    if offered is None:
        return history.capacity(weight=weight, otherwise=assumed), history
    now = {name: value for name in RATES if (value := getattr(offered, name)) is not None}
    before = history.capacity(weight=weight, otherwise=assumed)
    if offered.memory_bytes is not None:
        before = replace(before, memory_bytes=offered.memory_bytes)
    return replace(before, **now), history.add(**now)


def unsaid(offered: Offered | None) -> frozenset[str]:
    """Which rates a device did not offer, such as those of a link that only a channel measures.

    >>> sorted(unsaid(Offered(requests=True, samples=1, flops_per_s=1e9, delay_s=0.0)))
    ['down_bps', 'up_bps']
    """
    return frozenset(name for name in RATES if offered is None or getattr(offered, name) is None)
