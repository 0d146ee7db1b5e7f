"""What a session tells of itself: plain values, the same for the page, the command line and a file of JSON.

Numbers that were not measured are None. Seconds, bytes and bits per second throughout. Nothing here computes.
"""

from __future__ import annotations

from typing import Any, Literal, TypedDict

__all__ = [
    "ConnectionTold",
    "Event",
    "FrozenTold",
    "MachineTold",
    "Phase",
    "Point",
    "RequestsTold",
    "Told",
    "TotalTold",
    "VersionTold",
]

#: "idle" before the first submission; "preparing" while a model is cut and deployed; then as of the controller, or
#: "failed" with an error.
Phase = Literal["idle", "preparing", "running", "paused", "goals met", "floor reached", "stopped", "failed"]


class Point(TypedDict):
    """One iteration, seen from a connection; the first point, of iteration 0, is before any compression.

    Attributes:
        iteration: its number.
        size_bytes, latency_s: of the version that is current after it.
        tried_bytes: of what was tried there.
        here: whether it was tried at this connection.
        accepted: whether it was taken; else it was rolled back.
        why: in words.
    """

    iteration: int
    size_bytes: int
    latency_s: float
    tried_bytes: int
    here: bool
    accepted: bool
    why: str


class ConnectionTold(TypedDict):
    """A connection between two machines.

    Attributes:
        name: "camera -> gateway".
        before_bytes, now_bytes, saved_bytes, saved_share: of an inference.
        before_s, now_s, saved_s, saved_time_share: its link's latency, modelled from what was measured of the link.
        sent_bytes: measured, a request on average, of the current version; None: nothing was sent yet.
        measured_s: of a frame of the current version to be there; None: not measured.
        goodput_bps, delay_s: of the link as it is taken to be; None: no limit is known.
        measured: whether those come from real traffic.
        overridden: whether somebody set the link by hand.
        closed: by method, why it is not tried here any more.
        points: over iterations.
    """

    name: str
    before_bytes: int
    now_bytes: int
    saved_bytes: int
    saved_share: float
    before_s: float
    now_s: float
    saved_s: float
    saved_time_share: float
    sent_bytes: float | None
    measured_s: float | None
    goodput_bps: float | None
    delay_s: float
    measured: bool
    overridden: bool
    closed: dict[str, str]
    points: list[Point]


class MachineTold(TypedDict):
    """A machine of the pipeline.

    Attributes:
        name, address: who and where; no address where nothing serves.
        reachable: None where nothing serves; `error` says why not.
        depth: layers that may be optimised, counted from each of its cuts.
        layers, optimised: names of all its layers, and of those that may change.
        parameters_before, parameters: that it holds.
        compute_s: of an inference, the median; None: not measured.
        version: it computed last.
        served: requests.
    """

    name: str
    address: str | None
    reachable: bool | None
    error: str | None
    depth: int
    layers: list[str]
    optimised: list[str]
    parameters_before: int
    parameters: int
    compute_s: float | None
    version: int | None
    served: int | None


class TotalTold(TypedDict):
    """Over all connections (Eqs. 1 and 2), and the goals.

    Attributes:
        metric: its name; `larger_is_better` of it.
        score_before, score, floor: on validation.
        test_before, test_score: on samples by which nothing was chosen; None until it has ended.
        before_bytes, now_bytes, saved_share: of an inference.
        before_s, now_s, saved_time_share: latency of an inference, modelled from what was measured.
        answer_before_s, answer_s: p50 that was measured at the entry with version 0 and with the current one.
        most_bytes, most_s: that the goals leave; None without such a goal.
        attainable_bytes_share, attainable_s, attainable_time_share: the most that any compression could reach.
        goals_met: by the current version, on links as they are now.
    """

    metric: str
    larger_is_better: bool
    score_before: float
    score: float
    floor: float
    test_before: float | None
    test_score: float | None
    before_bytes: int
    now_bytes: int
    saved_share: float
    before_s: float
    now_s: float
    saved_time_share: float
    answer_before_s: float | None
    answer_s: float | None
    most_bytes: float | None
    most_s: float | None
    attainable_bytes_share: float
    attainable_s: float
    attainable_time_share: float
    goals_met: bool


class VersionTold(TypedDict):
    """A version that was accepted; 0 is before any compression."""

    number: int
    score: float
    size_bytes: int
    latency_s: float
    digest: str
    current: bool


class FrozenTold(TypedDict):
    """The proof that no other layer was touched: SHA-256, and after how many iterations it was checked."""

    digest: str
    equal: bool
    checked: int
    arrays: int


class RequestsTold(TypedDict):
    """Requests since the first submission.

    Attributes:
        served, lost: answered, and not answered for whatever reason but `refused`.
        refused: because too many waited.
        under_way: now.
        swaps: of versions, while they flowed.
        by_version: requests that each version answered.
    """

    served: int
    lost: int
    refused: int
    under_way: int
    swaps: int
    by_version: dict[str, int]


class Event(TypedDict):
    """Something that happened: seconds since the epoch, and a sentence."""

    time_s: float
    text: str


class Told(TypedDict):
    """All of it. Before the first submission only phase, task, known, events and automatic are more than empty.

    Attributes:
        phase: see `Phase`; `error` with "failed", or what the last submission was refused for.
        task: name, metric, parameters, samples by part, input shape, units that can be cut after.
        known: names of all machines there are, in order.
        settings: the submission in plain values; `chosen`, what it came to: machines, cuts, depth, methods and why, or
            None while links are measured; and `why`, sentences on what was chosen automatically.
        automatic: whether it follows links as they change.
    """

    phase: Phase
    error: str | None
    task: dict[str, Any]
    known: list[str]
    settings: dict[str, Any]
    machines: list[MachineTold]
    connections: list[ConnectionTold]
    total: TotalTold | None
    iterations: list[dict[str, Any]]
    versions: list[VersionTold]
    frozen: FrozenTold | None
    requests: RequestsTold | None
    automatic: bool
    events: list[Event]
