"""`Retire`: ends the training of single terminals at a limit: rounds, seconds, a reached score, no improvement, a rule.

A layer around any strategy, at a centre or inside an edge: `Layered(FedAvg(), Retire(Limits(rounds=5)))`. A terminal
whose training has ended can no longer be sampled, for good or for a rest; it is still asked to evaluate, and it is not
told. Nothing here changes a message or a model.

Source: [4] ¶65-66.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from flwr.app import Message
from flwr.serverapp import Grid

from flower_edge.errors import ConfigError
from flower_edge.events import Event
from flower_edge.rounds import Round
from flower_edge.runtime.abilities import last_duration_s, now_s
from flower_edge.runtime.queries import conditions_of
from flower_edge.termination import Limits, Spent

from .layers import Layer
from .node_rows import key_of, rows_of

__all__ = ["Retire", "RetireState", "Terminal"]


@dataclass(frozen=True)
class Terminal:
    """What is known of one terminal's training.

    Attributes:
        spent: what it has used, without the times since it joined.
        joined_wall_s, joined_virtual_s: when it was first asked to train.
        ended: why its training has ended; empty while it goes on.
        until_exchange: the last training exchange it rests in, and
        until_s: when its rest is over; both `None`: for good.
    """

    spent: Spent = field(default_factory=Spent)
    joined_wall_s: float = 0.0
    joined_virtual_s: float | None = None
    ended: str = ""
    until_exchange: int | None = None
    until_s: float | None = None

    def to_tree(self) -> dict[str, Any]:
        """As plain values."""
        return {**vars(self), "spent": self.spent.to_tree()}

    @classmethod
    def from_tree(cls, tree: Mapping[str, Any]) -> Terminal:
        """Inverse of `to_tree`."""
        return cls(**{**tree, "spent": Spent.from_tree(tree["spent"])})


@dataclass(frozen=True)
class RetireState:
    """State of a `Retire`: terminals by key (their `partition-id`, or node id as text).

    Attributes:
        terminals: everyone who was ever asked to train.
        present: keys of those who were there in the last training exchange.
        exchange: how many training exchanges there have been, and
        place: the round of the last one, as (cloud, edge).
        wall_s, virtual_s: real seconds used, over a resume, and the virtual time last seen.
        untold: events not yet taken.
        keys, clock_s, grid: of this process, in no checkpoint: keys by node id, the clock's last reading, the Grid.
    """

    terminals: dict[str, Terminal] = field(default_factory=dict)
    present: tuple[str, ...] = ()
    exchange: int = 0
    place: tuple[int, int] = (0, 0)
    wall_s: float = 0.0
    virtual_s: float | None = None
    untold: tuple[Event, ...] = ()
    keys: Mapping[int, str] = field(default_factory=dict)
    clock_s: float = 0.0
    grid: Grid | None = None


class Retire(Layer[RetireState]):
    """Ends the training of a terminal that has reached one of the limits.

    Args:
        limits: `rounds` it took part in, `trained_s` seconds it trained, `wall_s` and `virtual_s` since it was first
            asked to, a `score` or `no_improvement` in the metrics of its own replies, a rule `when` over its
            properties and conditions.
        for_rounds, for_s: it rests for so many training exchanges, or seconds (virtual where there is a virtual
            clock), and begins anew. With neither, its training has ended for good.
        at_least: when fewer than these are left, the training ends instead of waiting for terminals that do not come:
            the strategy's minimum, which Flower's strategies have at 2. Where this layer is inside an edge it is not
            looked at, and an edge with too few terminals is skipped. Terminals that a rule ends at the beginning of
            a round are missed in that round already: then `NotEnoughNodes` is raised after the strategy's `timeout`.
        ask: with `limits.when`, ask every terminal for its conditions (`query.conditions`) before each training
            exchange. Without, what is known are static properties and what terminals tell with their replies.
        seconds_key: the metric in which a terminal tells the seconds it trained, where no Grid measures them.
        clock: real seconds, monotonic.

    A terminal that moves to another edge takes its standing with it.

    Raises:
        ConfigError: both kinds of rest, or one not above 0. In a round: `trained_s`, and nobody tells the seconds.
    """

    def __init__(
        self,
        limits: Limits,
        *,
        for_rounds: int | None = None,
        for_s: float | None = None,
        at_least: int = 2,
        ask: bool = True,
        seconds_key: str = "train_s",
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        if not isinstance(limits, Limits):
            raise ConfigError(f"Retire({limits!r}): expected limits, such as Retire(Limits(rounds=10))")
        if for_rounds is not None and for_s is not None:
            raise ConfigError(f"for_rounds = {for_rounds} and for_s = {for_s}: a rest has one length; give one of them")
        if type(at_least) is not int or at_least < 1:
            raise ConfigError(f"at_least = {at_least!r}: a whole number of terminals, at least 1")
        if for_rounds is not None and not (type(for_rounds) is int and for_rounds > 0):
            raise ConfigError(f"for_rounds = {for_rounds!r}: a whole number of rounds, at least 1")
        if for_s is not None and not for_s > 0:
            raise ConfigError(f"for_s = {for_s}: expected more than 0 s")
        self.limits = limits
        self.for_rounds = for_rounds
        self.for_s = for_s
        self.at_least = at_least
        self.ask = ask
        self.seconds_key = seconds_key
        self.clock = clock

    def init(self) -> RetireState:
        """Nobody has been asked."""
        return RetireState(clock_s=self.clock())

    def opened(self, state: RetireState, grid: Grid) -> RetireState:
        """The Grid is kept to know terminals and the time by."""
        return replace(state, grid=grid)

    # -- rounds ------------------------------------------------------------------------------------------------------

    def narrow(self, state: RetireState, round: Round, grid: Grid, nodes: list[int]) -> tuple[list[int], RetireState]:
        """Those whose training goes on; all of them in an evaluation."""
        unknown = [node for node in nodes if node not in state.keys]
        keys = {**state.keys, **{node: key_of(grid, node) for node in unknown}} if unknown else state.keys
        state = _own(self._looked(replace(state, grid=grid, keys=keys)))
        if round.kind != "train":
            return nodes, state
        place = (round.cloud, round.edge)
        begins = place != state.place
        present = tuple(keys[node] for node in nodes)
        state = replace(state, place=place, exchange=state.exchange + begins, present=present)
        state = self._returned(state, round)
        left = [node for node in nodes if not self._is_away(state, keys[node], state.exchange)]
        rows = rows_of(grid, left, ask=self.ask) if self.limits.when is not None else {}
        # A question takes its time.
        state = self._looked(state)
        for node in left:
            if node in rows or keys[node] in state.terminals:
                state = self._checked(state, round, keys[node], rows.get(node), state.exchange - 1)
        return [node for node in left if not self._is_away(state, keys[node], state.exchange)], state

    def outbound(self, state: RetireState, round: Round, messages: list[Message]) -> tuple[list[Message], RetireState]:
        """The messages as they are. A terminal's time begins with its first training message."""
        if round.kind != "train":
            return messages, state
        state = self._looked(state)
        asked = (self._key(state, message.metadata.dst_node_id) for message in messages)
        joined = {
            key: Terminal(joined_wall_s=state.wall_s, joined_virtual_s=state.virtual_s)
            for key in asked
            if key not in state.terminals
        }
        return messages, replace(state, terminals={**state.terminals, **joined}) if joined else state

    def inbound(self, state: RetireState, round: Round, replies: list[Message]) -> tuple[list[Message], RetireState]:
        """The replies as they are; what they tell is taken in."""
        state = _own(self._looked(state))
        for reply in replies:
            if not reply.has_error():
                state = self._heard(state, round, reply)
        return replies, state

    def stop(self, state: RetireState, round: Round) -> str | None:
        """When too few of those who were there would be left for the next round."""
        away = sum(self._is_away(state, key, state.exchange + 1) for key in state.present)
        left = len(state.present) - away
        if not away or left >= self.at_least:
            return None
        return f"the training of {away} of {len(state.present)} terminals has ended, and {self.at_least} are needed"

    def events(self, state: RetireState) -> tuple[list[Event], RetireState]:
        """Whose training ended, and who returned, since the last call."""
        return list(state.untold), replace(self._looked(state), untold=())

    def metrics(self, state: RetireState) -> Mapping[str, float]:
        """How many terminals are away now, of those who were ever asked."""
        return {"retired": sum(bool(terminal.ended) for terminal in state.terminals.values())}

    # -- one terminal ------------------------------------------------------------------------------------------------

    def _heard(self, state: RetireState, round: Round, reply: Message) -> RetireState:
        node = reply.metadata.src_node_id
        key = self._key(state, node)
        terminal = state.terminals.get(key)
        if terminal is None or terminal.ended:
            return state
        spent, metrics = terminal.spent, _numbers(reply)
        if round.kind == "train":
            spent = replace(spent, rounds=spent.rounds + 1)
            if self.limits.trained_s is not None:
                spent = replace(spent, trained_s=spent.trained_s + self._seconds(state, node, metrics))
        watched = [watch.metric for watch in (self.limits.score, self.limits.no_improvement) if watch is not None]
        if any(name in metrics for name in watched):
            spent = self.limits.scored(spent, metrics)
        state = _with(state, key, replace(terminal, spent=spent))
        told = conditions_of(reply) if self.limits.when is not None else None
        return self._checked(state, round, key, None if told is None else told.to_mapping(), state.exchange)

    def _seconds(self, state: RetireState, node: int, metrics: Mapping[str, float]) -> float:
        measured = None if state.grid is None else last_duration_s(state.grid, node)
        found = metrics.get(self.seconds_key) if measured is None else measured
        if found is None:
            raise ConfigError(
                f"Retire(Limits(trained_s={self.limits.trained_s})): nobody tells how long node {node} trained; put "
                f"VirtualClock around the grid, or let the train function report the metric {self.seconds_key!r}"
            )
        return found

    def _checked(
        self, state: RetireState, round: Round, key: str, conditions: Mapping[str, Any] | None, exchange: int
    ) -> RetireState:
        """End the terminal's training if a limit is reached; it rests after `exchange`."""
        terminal = state.terminals.get(key, Terminal(Spent(), state.wall_s, state.virtual_s))
        spent = replace(terminal.spent, wall_s=state.wall_s - terminal.joined_wall_s)
        if state.virtual_s is not None and terminal.joined_virtual_s is not None:
            spent = replace(spent, virtual_s=state.virtual_s - terminal.joined_virtual_s)
        reason = self.limits.reached(spent, conditions)
        if terminal.ended or reason is None:
            return state
        away = replace(
            terminal,
            ended=reason,
            until_exchange=None if self.for_rounds is None else exchange + self.for_rounds,
            until_s=None if self.for_s is None else self._time_s(state) + self.for_s,
        )
        rest = "for good" if self.for_rounds is None and self.for_s is None else "for a rest"
        event = Event(
            "retired",
            f"terminal {key} no longer trains, {rest}: {reason}",
            node=key,
            cell=round.cell,
            edge_round=round.edge,
            time_s=state.virtual_s,
            values={"reason": reason, "rounds": spent.rounds},
        )
        return replace(_with(state, key, away), untold=(*state.untold, event))

    def _returned(self, state: RetireState, round: Round) -> RetireState:
        for key in state.present:
            terminal = state.terminals.get(key)
            if terminal is None or not terminal.ended or self._is_away(state, key, state.exchange):
                continue
            event = Event(
                "returned",
                f"terminal {key} has rested and may train again",
                node=key,
                cell=round.cell,
                edge_round=round.edge,
                time_s=state.virtual_s,
            )
            fresh = Terminal(joined_wall_s=state.wall_s, joined_virtual_s=state.virtual_s)
            state = replace(_with(state, key, fresh), untold=(*state.untold, event))
        return state

    def _is_away(self, state: RetireState, key: str, exchange: int) -> bool:
        terminal = state.terminals.get(key)
        if terminal is None or not terminal.ended:
            return False
        if terminal.until_exchange is not None:
            return exchange <= terminal.until_exchange
        return terminal.until_s is None or self._time_s(state) < terminal.until_s

    # -- from one edge to another ------------------------------------------------------------------------------------

    def hand_over(self, state: RetireState, node_id: int) -> tuple[Any, RetireState]:
        """The terminal's standing; this edge forgets it."""
        key = self._key(state, node_id)
        terminal = state.terminals.get(key)
        if terminal is None:
            return None, state
        state = self._looked(state)
        # Real time and exchanges are counted by each edge for itself: what travels is how much of them there was.
        rest = None if terminal.until_exchange is None else terminal.until_exchange - state.exchange
        since_s = state.wall_s - terminal.joined_wall_s
        until_s = terminal.until_s
        if until_s is not None and state.virtual_s is None:
            until_s -= state.wall_s
        standing = replace(terminal, until_exchange=rest, until_s=until_s)
        parcel = {"key": key, "since_s": since_s, "virtual": state.virtual_s is not None, **standing.to_tree()}
        left = {other: known for other, known in state.terminals.items() if other != key}
        return parcel, replace(state, terminals=left)

    def take_over(self, state: RetireState, node_id: int, parcel: Any) -> RetireState:
        """Inverse of `hand_over`, at the edge where the terminal has come to."""
        state = self._looked(state)
        tree = dict(parcel)
        key, since_s, virtual = tree.pop("key"), tree.pop("since_s"), tree.pop("virtual")
        terminal = Terminal.from_tree(tree)
        rest = None if terminal.until_exchange is None else terminal.until_exchange + state.exchange
        until_s = terminal.until_s if virtual or terminal.until_s is None else terminal.until_s + state.wall_s
        terminal = replace(terminal, until_exchange=rest, until_s=until_s, joined_wall_s=state.wall_s - since_s)
        return replace(_with(_own(state), key, terminal), keys={**state.keys, node_id: key})

    # -- time and checkpoints ----------------------------------------------------------------------------------------

    def _looked(self, state: RetireState) -> RetireState:
        clock_s = self.clock()
        time_s = None if state.grid is None else now_s(state.grid)
        return replace(
            state,
            wall_s=state.wall_s + clock_s - state.clock_s,
            virtual_s=state.virtual_s if time_s is None else time_s,
            clock_s=clock_s,
        )

    def _time_s(self, state: RetireState) -> float:
        return state.wall_s if state.virtual_s is None else state.virtual_s

    def _key(self, state: RetireState, node_id: int) -> str:
        if (known := state.keys.get(node_id)) is not None:
            return known
        return str(node_id) if state.grid is None else key_of(state.grid, node_id)

    def dump(self, state: RetireState) -> Any:
        """The state as plain values."""
        return {
            "terminals": {key: terminal.to_tree() for key, terminal in state.terminals.items()},
            "present": list(state.present),
            "exchange": state.exchange,
            "place": list(state.place),
            "wall_s": state.wall_s,
            "virtual_s": state.virtual_s,
            "untold": [event.to_json() for event in state.untold],
        }

    def load(self, saved: Any) -> RetireState:
        """Inverse of `dump`; real time counts on from here."""
        return RetireState(
            terminals={key: Terminal.from_tree(tree) for key, tree in saved["terminals"].items()},
            present=tuple(saved["present"]),
            exchange=saved["exchange"],
            place=(saved["place"][0], saved["place"][1]),
            wall_s=saved["wall_s"],
            virtual_s=saved["virtual_s"],
            untold=tuple(Event.from_json(text) for text in saved["untold"]),
            clock_s=self.clock(),
        )


def _own(state: RetireState) -> RetireState:
    """The state with terminals of its own, once per hook: `_with` writes into them."""
    return replace(state, terminals=dict(state.terminals))


def _with(state: RetireState, key: str, terminal: Terminal) -> RetireState:
    state.terminals[key] = terminal
    return state


def _numbers(reply: Message) -> dict[str, float]:
    return {
        name: float(value)
        for record in reply.content.metric_records.values()
        for name, value in record.items()
        if isinstance(value, int | float)
    }
