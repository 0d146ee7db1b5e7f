"""The sixty process faults: who is struck, when, how, and what has to be so. Nothing here starts a process.

    who    worker  the process that runs a node's ClientApp (an executor of `flower-edge node`)
           agent   `flower-edge agent`, beside a node
           edge    the process of an edge's ServerApp, which answers its centre over the bridge
           server  the process of the centre's ServerApp
    how    kill        SIGKILL
           sigstop     SIGSTOP, and SIGCONT when the others have gone on, or a while later
           disk_full   nothing more can be written to its disk (ENOSPC), until there is room again

Source: the matrix of process faults of docs/reliability.md; P2 and P3 are the promises of the same page.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

__all__ = ["CASES", "HOW", "SAMPLED", "WHEN", "WHO", "Case"]

WHO: Final = ("worker", "agent", "edge", "server")
WHEN: Final = ("before_offer", "mid_transfer", "after_ack", "in_aggregation", "ledger_commit")
HOW: Final = ("kill", "sigstop", "disk_full")

#: Where it strikes.
STRIKES: Final = {
    ("worker", "before_offer"): "it waits for the round's message",
    ("worker", "mid_transfer"): "a part of its reply has left it",
    ("worker", "after_ack"): "its node has the whole reply, and has not got the node's state back",
    ("worker", "in_aggregation"): "the server merges the round's replies",
    ("worker", "ledger_commit"): "the server's transaction with the round's rewards is open",
    ("agent", "before_offer"): "the sender has a packet of its node, and is about to offer it",
    ("agent", "mid_transfer"): "the receiver has a part of a letter",
    ("agent", "after_ack"): "the receiver has acknowledged a letter that its node has not taken",
    ("agent", "in_aggregation"): "the receiver's node takes the letter, to mix it",
    ("agent", "ledger_commit"): "the sender is about to write down that the letter was delivered",
    ("edge", "before_offer"): "it waits for the round's order",
    ("edge", "mid_transfer"): "it has a part of the order",
    ("edge", "after_ack"): "its terminals have been merged, and its state is about to be saved",
    ("edge", "in_aggregation"): "it merges its terminals' replies",
    ("edge", "ledger_commit"): "its transaction with the round's rewards is open",
    ("server", "before_offer"): "it is about to send the round's orders",
    ("server", "mid_transfer"): "it has a part of an edge's reply",
    ("server", "after_ack"): "it has its edges' replies, and the round's checkpoint is about to be written",
    ("server", "in_aggregation"): "it merges its edges' models",
    ("server", "ledger_commit"): "its transaction with the round's rewards is open",
}

_AS_IT_WAS: Final = "the round is as without a fault; "
_BACK: Final = "in the next one it takes part, as who it was, with what it remembers"
_WITHOUT_IT: Final = "the round ends by its deadline with the others; "
_MODEL: Final = "the models are those of a run without a fault, rewards are paid once"
_UNPAID: Final = "it says so; " + _WITHOUT_IT + "with room it is back, rewards are paid once"
#: What has to be so, by who and how; with a time behind them, where it differs.
PROMISES: Final = {
    ("worker", "kill"): _AS_IT_WAS + _BACK,
    ("worker", "kill", "before_offer"): "another process takes the message: the round is as without a fault",
    ("worker", "kill", "mid_transfer"): _WITHOUT_IT + _BACK,
    ("worker", "sigstop"): _AS_IT_WAS + _BACK,
    ("worker", "sigstop", "before_offer"): _WITHOUT_IT + _BACK,
    ("worker", "sigstop", "mid_transfer"): _WITHOUT_IT + _BACK,
    ("worker", "disk_full"): _AS_IT_WAS + "in the next its node says what is missing; with room " + _BACK,
    ("worker", "disk_full", "before_offer"): "its node says what is missing; " + _WITHOUT_IT + "with room " + _BACK,
    ("agent", "kill"): "the next agent of the folder has what was acknowledged; the letter comes, once",
    ("agent", "sigstop"): "the letter comes when it goes on, once",
    ("agent", "disk_full"): "what was acknowledged is there; a new letter is refused with a code until there is room",
    ("edge", "kill"): "started again it goes on from its disk: " + _MODEL,
    ("edge", "sigstop"): _WITHOUT_IT + "then it is back, rewards are paid once",
    ("edge", "disk_full"): "it says so, and goes on when there is room: " + _MODEL,
    ("edge", "disk_full", "in_aggregation"): _UNPAID,
    ("edge", "disk_full", "ledger_commit"): _UNPAID,
    ("server", "kill"): "resumed it goes on from its checkpoint: " + _MODEL,
    ("server", "sigstop"): "when it goes on it ends as if nothing had been: " + _MODEL,
    ("server", "disk_full"): "it ends with an error that says what to do; resumed with room: " + _MODEL,
}


@dataclass(frozen=True)
class Case:
    """One of the sixty."""

    who: str
    when: str
    how: str

    @property
    def name(self) -> str:
        """As in the test's id."""
        return f"{self.who}-{self.when}-{self.how}"

    @property
    def strikes(self) -> str:
        """Where, in words."""
        return STRIKES[self.who, self.when]

    @property
    def promise(self) -> str:
        """What has to be so."""
        return PROMISES.get((self.who, self.how, self.when)) or PROMISES[self.who, self.how]


CASES: Final = tuple(Case(who, when, how) for who in WHO for when in WHEN for how in HOW)

#: On each commit: three of each role, and of every time and way some.
SAMPLED: Final = frozenset(
    [
        "worker-before_offer-disk_full",
        "worker-mid_transfer-kill",
        "worker-ledger_commit-sigstop",
        "agent-mid_transfer-disk_full",
        "agent-after_ack-kill",
        "agent-in_aggregation-sigstop",
        "edge-before_offer-sigstop",
        "edge-after_ack-disk_full",
        "edge-ledger_commit-kill",
        "server-mid_transfer-sigstop",
        "server-in_aggregation-kill",
        "server-ledger_commit-disk_full",
    ]
)
