"""`PieceService`: the edge's end of streamed pieces. Terminals dial it and prove who they are; it passes frames on.

It runs beside a ServerApp in threads of its own and knows one attempt at a round at a time: which chains there are and
who holds which place of them. It computes with no model, neither plans nor merges, and knows nothing of torch.

A terminal whose channel breaks, that falls silent or says what it should not loses its chain's attempt, and no other
chain's: all terminals of the chain are told at once, with the reason, so that the round can begin anew without it.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Collection, Mapping
from dataclasses import dataclass

from ...errors import TransportRefused
from ...transport.listening import Listening, close_all
from ...transport.tokens import TokenMaker
from ...transport.transport import Handler, Hello, Peer, PeerTransport
from ..splitting.job import Patience
from .channel import PURPOSE, token_purpose
from .job import ChainJob, ChainOutcome, Passed
from .passing import ChainPassing

__all__ = ["ChainJob", "ChainOutcome", "Passed", "Patience", "PieceService"]


@dataclass(frozen=True)
class _Attempt:
    session: str
    round: int
    number: int
    chains: Mapping[int, ChainPassing]


class PieceService(Listening):
    """Passes frames between the terminals of chains, over channels they dial.

    Args:
        transport: of the channels, with the server's credentials.
        host, port: where to listen; port 0 takes a free one, see `port`.
        patience: time-outs.

    Usable as a context manager: `open` and `close`.
    """

    def __init__(
        self, transport: PeerTransport, host: str = "127.0.0.1", port: int = 0, *, patience: Patience | None = None
    ) -> None:
        super().__init__(transport, host, port)
        self._patience = patience or Patience()
        self._tokens = TokenMaker.fresh()
        self._lock = threading.Lock()
        self._attempt: _Attempt | None = None
        self._begun = 0

    def close(self) -> None:
        """End the attempt and all connections, and stop listening. Safe to call twice."""
        self.end(())
        super().close()

    # -- an attempt at a round ---------------------------------------------------------------------------------------

    def begin(self, session: str, round: int, jobs: Mapping[int, ChainJob]) -> dict[tuple[int, int], str]:
        """Expect the terminals of these chains, by number; an attempt that was going on ends.

        Args:
            session: of the run; terminals say it when they call.
            round: of Flower's.
            jobs: by number of the chain.

        Returns:
            A token for each (chain, place), which admits it in this attempt, once.
        """
        self.end(())
        chains = {number: ChainPassing(job, self._patience) for number, job in jobs.items()}
        with self._lock:
            self._begun += 1
            attempt = self._attempt = _Attempt(session, round, self._begun, chains)
        return {
            (number, place): self._tokens.make(
                run=session,
                node=number,
                purpose=token_purpose(round, attempt.number, place),
                valid_s=self._patience.round_s,
            )
            for number, job in jobs.items()
            for place in range(len(job.orders))
        }

    def end(self, finished: Collection[int], grace_s: float = 30.0) -> dict[int, ChainOutcome]:
        """What became of everybody, by number of the chain. Nobody else is admitted in this attempt.

        Args:
            finished: chains all of whose terminals said, elsewhere, that they are done: what is still on its way is
                waited for. All others end now.
            grace_s: how long to wait at most.
        """
        with self._lock:
            attempt, self._attempt = self._attempt, None
        if attempt is None:
            return {}
        outcomes = {}
        for number, chain in attempt.chains.items():
            if number not in finished:
                outcomes[number] = chain.outcome()
                chain.lose("the round is over")
        until_s = time.monotonic() + grace_s
        late = [
            one
            for chain in attempt.chains.values()
            if not chain.ended(max(0.0, until_s - time.monotonic()))
            for one in chain.connections
        ]
        close_all(late)
        return {number: outcomes.get(number) or chain.outcome() for number, chain in attempt.chains.items()}

    # -- one connection ----------------------------------------------------------------------------------------------

    def accept(self, hello: Hello, peer: Peer) -> Handler:
        """Who holds a place in this attempt, has its token, and has not called before.

        Raises:
            TransportRefused: no; its code says which of these it is.
        """
        del peer  # the token says who it is; certificates, where they are mutual, the transport has compared
        if hello.purpose != PURPOSE:
            raise TransportRefused(f"purpose {hello.purpose!r}; this service is for {PURPOSE!r}", "other-purpose")
        with self._lock:
            attempt = self._attempt
        if attempt is None:
            raise TransportRefused("no round is going on", "no-round")
        if hello.run != attempt.session:
            raise TransportRefused(f"run {hello.run[:40]!r}; another one is going on here", "other-run")
        if hello.data.get("round") != attempt.round:
            raise TransportRefused(
                f"round {str(hello.data.get('round'))[:20]}; round {attempt.round} is going on", "other-round"
            )
        place = hello.data.get("place")
        purpose = token_purpose(attempt.round, attempt.number, place if type(place) is int else -1)
        self._tokens.check(hello.token, run=attempt.session, node=hello.node, purpose=purpose)
        # Only what this service made a token for comes here.
        assert type(place) is int
        chain = attempt.chains[hello.node]
        if not chain.admit(place):
            raise TransportRefused(
                f"place {place} of chain {hello.node} has dialled before in this attempt at round {attempt.round}; its "
                "channel is not taken up again",
                "dialled-before",
            )
        return lambda connection: chain.serve(place, connection)
