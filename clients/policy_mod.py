"""`PolicyMod`: a device leaves a round out, or shortens it, by its own conditions, and says why.

Nothing here decides (`ConditionPolicy` does) or measures (its source does). What it says is an error reply of code
`DECLINED`, which every strategy takes as no contribution, and a record with the reason where the round was shortened.
Both are claims: no reward and no weight follows from them; `num-examples` still says what was trained on.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from logging import getLogger
from typing import Final

from flwr.app import ConfigRecord, Context, Error, Message
from flwr.clientapp.typing import ClientAppCallable

from flower_edge.conditions import Conditions
from flower_edge.runtime.error_codes import DECLINED
from flower_edge.runtime.queries import time_asked_s
from flower_edge.runtime.steps.messages import order_of, request

from .condition_policy import ConditionPolicy, Verdict
from .conditions import Source, source_says
from .measure import measure_conditions
from .throttle import ThrottleMod

__all__ = ["POLICY_RECORD", "PolicyMod", "model_peak_bytes"]

log = getLogger(__name__)

#: Record of the reply to a round that was shortened: `share` and `why`.
POLICY_RECORD: Final = "flower-edge.policy"
#: The model as it came, as arrays, as the program's own, its gradient, its momentum, and as it goes back.
_COPIES: Final = 6


def model_peak_bytes(message: Message) -> int:
    """What training may take at its peak: six times the arrays that came, batches of samples not counted.

    >>> from flwr.app import RecordDict
    >>> import numpy as np
    >>> from flower_edge.wire import record_of
    >>> from flwr.clientapp import ClientApp
    >>> from flower_edge.runtime.local_grid import LocalGrid
    >>> with LocalGrid(ClientApp(), nodes=1):
    ...     message = Message(RecordDict({"arrays": record_of({"w": np.zeros(1000, np.float32)})}), 1, "train")
    >>> model_peak_bytes(message) // 4000
    6
    """
    if not message.has_content():
        return 0
    arrays = message.content.array_records.values()
    return _COPIES * sum(len(array.data) for record in arrays for array in record.values())


@dataclass(frozen=True)
class PolicyMod:
    """A Flower mod that keeps to a device's limits: `ClientApp(mods=[PolicyMod(), step_mod])`.

    A round that is left out is answered with an error of code `DECLINED` (1002) and the reason. Where a task comes in
    slices (`SteppedGrid`) only its first slice is declined; in a later one the device makes a single step and asks to
    stop as overloaded, so that its work so far is not lost. A round that is shortened is trained for a share of its
    steps, and the reply has a record `flower-edge.policy` with `share` and `why`. The metrics stay as they are: devices
    with the mod and devices without it can be in one federation. Only training is looked at.

    Args:
        policy: the limits.
        source: of the conditions, asked before each training.
        peak_bytes: memory that training may take beyond what the process has: a number, or a function of the message.

    >>> from flower_edge.runtime.local_grid import LocalGrid
    >>> from flwr.app import RecordDict
    >>> from flwr.clientapp import ClientApp
    >>> app = ClientApp(mods=[PolicyMod(source=lambda context, now_s: Conditions(temperature_c=80.0))])
    >>> _ = app.train()(lambda message, context: message)
    >>> with LocalGrid(app, nodes=1) as grid:
    ...     (reply,) = grid.send_and_receive([Message(RecordDict(), 1000, "train")])
    >>> reply.error.code, reply.error.reason
    (1002, 'declined: it is 80 C hot; it trains up to 75 C')
    """

    policy: ConditionPolicy = field(default_factory=ConditionPolicy)
    source: Source = measure_conditions
    peak_bytes: int | Callable[[Message], int] = model_peak_bytes

    def __call__(self, message: Message, context: Context, call_next: ClientAppCallable) -> Message:
        """Flower's mod signature."""
        if message.metadata.message_type.partition(".")[0] != "train" or not message.has_content():
            return call_next(message, context)
        order = order_of(message)
        if order is not None and not len(order.steps):
            return call_next(message, context)  # it only collects the model
        peak = self.peak_bytes if isinstance(self.peak_bytes, int) else self.peak_bytes(message)
        verdict = self.policy.verdict(source_says(self.source, context, time_asked_s(message)), peak)
        if verdict.share == 1.0:
            return call_next(message, context)
        if verdict.skips and (order is None or order.begins):
            log.warning("node %s leaves the round out: %s", context.node_id, verdict.why)
            return Message(Error(DECLINED, f"declined: {verdict.why}"), reply_to=message)
        log.info("node %s shortens its work: %s", context.node_id, verdict.why)
        return self._shortened(message, context, call_next, verdict)

    def available(self, context: Context) -> bool:
        """Whether the device would train now, its memory aside: for `answer_availability(app, available=...)`."""
        return not self.policy.verdict(source_says(self.source, context, None)).skips

    def _shortened(self, message: Message, context: Context, call_next: ClientAppCallable, verdict: Verdict) -> Message:
        # ThrottleMod knows how steps and slices are cut; it is given the share in place of a load.
        share = verdict.share or self.policy.least
        cut = ThrottleMod(
            lambda context, now_s: Conditions(load=1.0 - share),
            gentle=0.0,
            hard=1.0 - self.policy.least,
            least=self.policy.least,
            stop_when="load >= 0" if verdict.skips else None,
            tell=False,
        )
        reply = cut(message, context, call_next)
        if reply.has_error():
            return reply
        if verdict.skips:
            request(reply.content, "overload", why=verdict.why)
        reply.content[POLICY_RECORD] = ConfigRecord({"share": verdict.share, "why": verdict.why})
        return reply
