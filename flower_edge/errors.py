"""Every error flower-edge raises on purpose.

Each message says what came, what was expected and what to type. Nothing here decides when to raise.
"""

from __future__ import annotations


class EdgeError(Exception):
    """Root of every error flower-edge raises on purpose."""


class ConfigError(EdgeError, ValueError):
    """A run config or an argument that cannot be used as given."""


class DataError(EdgeError, ValueError):
    """Data that are missing, damaged or not what the run asked for."""


class TopologyError(EdgeError, ValueError):
    """A graph, or weights on it, that cannot carry a consensus."""


class WireError(EdgeError, ValueError):
    """Bytes or records that are not what their label says."""


class CodecError(EdgeError, ValueError):
    """Arrays a codec cannot carry, a payload that is not one of its own, or a codec nobody knows."""


class CodecGap(CodecError):
    """A change to a model that is not held here: a packet before it is missing. A plain packet puts it right."""


class PeerError(EdgeError, ValueError):
    """A mailbox that cannot be used as asked."""


class SplitError(EdgeError, ValueError):
    """A model that cannot be cut as asked, or a plan that cannot be carried out."""


class FringeError(EdgeError, ValueError):
    """A pipeline, or a compression at one of its connections, that cannot be had as asked."""


class FrozenMoved(FringeError):
    """A tensor that had to stay as it was is another."""


class FloorNotReached(FringeError):
    """A compression that cost more than it was allowed to."""


class SwapRefused(FringeError):
    """A version that some machine could not load; the one before goes on serving everywhere."""


class NotServed(EdgeError):
    """A request that a deployed pipeline did not answer; `code` says why in one word, such as `busy` or `lost`."""

    def __init__(self, message: str, code: str = "failed") -> None:
        super().__init__(message)
        self.code = code


class TransportError(EdgeError):
    """A channel between two hosts that could not be opened, or broke."""


class TransportRefused(TransportError):
    """The other end said no; `code` says why in one word that programs can read, such as `bad-token`."""

    def __init__(self, message: str, code: str = "refused") -> None:
        super().__init__(message)
        self.code = code


class EnrolmentError(EdgeError):
    """A device that could not join or leave, or a server that cannot take devices."""


class EnrolmentRefused(EnrolmentError):
    """The server said no to a device; `code` says why in one word that programs can read, such as `token-used`."""

    def __init__(self, message: str, code: str = "refused") -> None:
        super().__init__(message)
        self.code = code


class ProtocolError(EdgeError):
    """The other end did not do its half."""


class RoundFailed(ProtocolError):
    """A round from which nothing usable came back; `asked` are the ids of the nodes that were asked."""

    def __init__(self, message: str, asked: frozenset[int] = frozenset()) -> None:
        super().__init__(message)
        self.asked = asked


class NobodyContributed(RoundFailed):
    """Messages were sent, and nothing but errors, or nothing at all, came back."""


class NobodyAdmitted(NobodyContributed):
    """Replies came back, and every one of them was refused; the model from before the round is still there."""


class NotEnoughNodes(ProtocolError):
    """A cell or federation stayed below the number of nodes its strategy needs."""


class NestingError(ConfigError):
    """Strategies or layers wrapped in an order that cannot work; the message says the right one."""


class ModelMismatch(EdgeError, ValueError):
    """Arrays whose names, shapes or dtypes are not those of the model they are meant for.

    `asked` are the ids of the nodes that were asked, where it happened in a round.
    """

    def __init__(self, message: str, asked: frozenset[int] = frozenset()) -> None:
        super().__init__(message)
        self.asked = asked


class RewardError(EdgeError, ValueError):
    """A reward that cannot be computed or booked as asked, or a book that is not what it says."""


class StateError(EdgeError):
    """State that was there before and is now missing or damaged, or that cannot be kept: the disk is full."""


class ResumeError(EdgeError):
    """A run that cannot be continued from where it stopped."""


class LaunchError(EdgeError):
    """A run that could not be started, or ended without finishing its work."""
