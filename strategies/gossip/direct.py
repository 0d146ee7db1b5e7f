"""Packets that workers' agents bring each other directly: what the server tells each worker's agent, and learns of it.

The server never sees these packets. It asks every worker for the card of the agent beside it, and writes a table for
each worker and round: who is heard, by whom, how they are known, and how fast to send. Nothing here opens a letter.
"""

from __future__ import annotations

import secrets
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from logging import getLogger
from typing import TYPE_CHECKING, Any, Final

from flwr.serverapp import Grid
from pydantic import ValidationError

from flower_edge.errors import ConfigError, PeerError
from flower_edge.peers.agent_client import AgentClient
from flower_edge.peers.revoked import RevokedPeers
from flower_edge.peers.round_table import MOST_REVOKED, Card, RoundTable
from flower_edge.runtime.gossip_messages import Order
from flower_edge.runtime.queries import AGENT, ask_nodes

if TYPE_CHECKING:
    from .group import Group

__all__ = ["Direct", "DirectPost"]

log = getLogger("flwr.edge")

_RUN: Final = "run"
#: Certificates that are told as revoked though this process has not seen them.
_NEWEST: Final = 256


@dataclass(frozen=True)
class Direct:
    """`Gossip(mailbox=Direct(...))`: workers' agents exchange packets from host to host. See docs/agent.md.

    Every worker has a `flower-edge agent` beside its SuperNode, and `answer_agent(app)` in its ClientApp.

    Attributes:
        relay: socket of the agent beside the edge server, which relays between workers that cannot reach each other;
            empty: there is none.
        capacity_bps: what each worker's radio receives, bit/s: links are paced at their share of it, as the controller
            divides a worker's band. None: links are not paced, and carry what they can.
        wait_s: for how long a worker waits for packets that are on their way.
        direct_s: for how long reaching a neighbour is tried before the relay is taken.
        ask_s: for how long workers are waited for when they are asked for their agents' cards.
        revoked: file of certificates that were taken back; empty: what FLOWER_EDGE_REVOKED names, as `flower-edge up`
            sets it for its runs. From the next round on nobody hears or is heard with one of these.

    Raises:
        ConfigError: a number that cannot be.
    """

    relay: str = ""
    capacity_bps: float | None = None
    wait_s: float = 30.0
    direct_s: float = 2.0
    ask_s: float = 60.0
    revoked: str = ""

    def __post_init__(self) -> None:
        for name in ("capacity_bps", "wait_s", "direct_s", "ask_s"):
            value = getattr(self, name)
            if value is None and name == "capacity_bps":
                continue
            if not isinstance(value, int | float) or isinstance(value, bool) or not 0 < value < 1e18:
                raise ConfigError(f"Direct({name}={value!r}): expected a number above 0")
        if self.direct_s > 600:
            raise ConfigError(f"Direct(direct_s={self.direct_s!r}): expected at most 600 s")


class DirectPost:
    """The server's side of a group whose agents exchange packets.

    Args:
        direct: see `Direct`.
        letters: of a checkpoint: workers' agents still have the packets of its last round.
    """

    def __init__(self, direct: Direct, letters: Mapping[str, Any] | None = None) -> None:
        self._direct = direct
        # Drawn here, and not Flower's: a run that is resumed is another one to Flower, and the packets are the same.
        self._run = secrets.token_hex(16) if letters is None else str(letters[_RUN])
        self._cards: dict[int, Card] = {}
        self._known: set[str] = set()
        self._relay: Card | None = None
        self._revoked_peers = RevokedPeers(direct.revoked or None)
        self._revoked: tuple[str, ...] = ()

    def letters(self) -> Mapping[str, Any]:
        """For a checkpoint."""
        return {_RUN: self._run}

    def prepare(self, grid: Grid, group: Group, round: int, present: Iterable[int]) -> None:
        """Learn who the agents are of workers that are there, and tell the relay of the round.

        Raises:
            PeerError: the relay cannot be asked, or the list of revoked certificates cannot be read.
        """
        there = set(present)
        self._revoked = self._revoked_peers.now()
        self._take_out()
        unknown = [node for node in group.env.index if node in there and node not in self._cards]
        if unknown:
            told = ask_nodes(grid, unknown, AGENT, timeout_s=self._direct.ask_s)
            self._cards.update((node, card) for node, one in told.items() if (card := _card(node, one)) is not None)
            self._take_out()
            if silent := [node for node in unknown if node not in self._cards]:
                log.warning(
                    "\tno agent is known of %d workers (nodes %s): nobody hears them; start `flower-edge agent` there "
                    "and put answer_agent(app) into the ClientApp",
                    len(silent),
                    ", ".join(map(str, silent[:6])),
                )
        if self._direct.relay:
            self._tell_relay(group, round)

    def config(self, group: Group, i: int, order: Order) -> dict[str, bool | int | float | str]:
        """What worker i opens its mailbox from."""
        topology, numbers, cards = group.topology, group.env.numbers, self._by_number(group)
        row = topology.row(i)
        heard = topology.sender[row][group.signalling.may_carry(group)[row]].tolist()
        hears = [numbers[j] for j in heard if numbers[j] in cards]
        if numbers[i] not in cards:
            # One that has no agent, or may not have one any more, is told of nobody and waits for nobody.
            hears, cards = [], {}
        known = {*hears, *order.senders, *order.to} & cards.keys()
        table = RoundTable(
            run=self._run,
            round=order.round,
            node=order.index,
            keep_from=max(0, order.keep_from - order.catch_up),
            neighbours={number: cards[number] for number in sorted(known)},
            hears=hears,
            owed=[pair for pair in zip(order.sent_in, order.senders, strict=True) if pair[1] in cards],
            rates_bps=self._rates_bps(group, i),
            relay=self._relay,
            direct_s=float(self._direct.direct_s),
            revoked=self._told_revoked(),
        )
        return {"kind": "direct", "table": table.to_json(), "wait_s": float(self._direct.wait_s)}

    def _rates_bps(self, group: Group, i: int) -> dict[int, float]:
        if self._direct.capacity_bps is None:
            return {}
        topology, mine = group.topology, group.links_from(i)
        share = group.control.bandwidth_hz[mine] / group.start.budget_hz[topology.receiver[mine]]
        # A link that was given no band carries little, and not nothing: whoever posts on it waits for its end.
        rates = self._direct.capacity_bps * share.clip(min=0.5 / max(1, topology.nodes))
        numbers = [group.env.numbers[k] for k in topology.receiver[mine].tolist()]
        return dict(zip(numbers, rates.tolist(), strict=True))

    def _take_out(self) -> None:
        """Whose certificate was revoked is in no table from now on."""
        revoked = set(self._revoked)
        self._known.update(card.fingerprint for card in self._cards.values())
        for node in [node for node, card in self._cards.items() if card.fingerprint in revoked]:
            log.warning("\tthe certificate of node %d was revoked: nobody hears it, and it hears nobody", node)
            del self._cards[node]

    def _by_number(self, group: Group) -> dict[int, Card]:
        numbers = group.env.numbers
        return {numbers[i]: self._cards[node] for node, i in group.env.index.items() if node in self._cards}

    def _told_revoked(self) -> list[str]:
        # Those that were in a table of this run; and the last ones, which may have been before it was resumed.
        mine = [one for one in self._revoked if one in self._known]
        return list(dict.fromkeys([*mine, *self._revoked[:_NEWEST]]))[:MOST_REVOKED]

    def _tell_relay(self, group: Group, round: int) -> None:
        topology, numbers, cards = group.topology, group.env.numbers, self._by_number(group)
        used = group.signalling.may_carry(group)
        pairs = zip(topology.sender[used].tolist(), topology.receiver[used].tolist(), strict=True)
        table = RoundTable(
            run=self._run,
            round=round,
            keep_from=max(0, group.last_round - group.timing.staleness - group.replicas.catch_up),
            neighbours=cards,
            links=[(numbers[j], numbers[k]) for j, k in pairs if numbers[j] in cards and numbers[k] in cards],
            revoked=self._told_revoked(),
        )
        with AgentClient(self._direct.relay) as agent:
            agent.call({"do": "round", "table": table.to_json()})
            agent.call({"do": "forget", "run": self._run, "before_round": table.keep_from})
            if self._relay is None:
                self._relay = Card(**agent.status()["card"])


def _card(node: int, told: Mapping[str, Any]) -> Card | None:
    try:
        return Card.model_validate({name: told.get(name) for name in ("address", "fingerprint", "key")})
    except (ValidationError, PeerError):
        log.warning("\tnode %d told something else than its agent's card; install the same flower-edge there", node)
        return None
