"""The one edge-round loop: what an edge does between two visits of the centre.

The centre sends the model, the number of edge rounds and the train config; the edge runs that many rounds of its own
strategy with its own terminals and answers with (w_e, n_e), never w_e without n_e. The same object serves an edge
that lives in the ServerApp (`CellTier`) and one that lives in an edge ClientApp (`LocalTier`), so both give equal
models. Nothing here knows who the centre is.

Letters, as in the paper:
    w_e   the edge's model after its last edge round, in the dtypes of the model it was sent
    n_e   sum over its terminals of the weight of each one's last accepted reply
    κ2    edge rounds per cloud round

Source: Liu, Zhang, Song, Letaief, "Client-edge-cloud hierarchical federated learning", ICC 2020 (HierFAVG).
"""

from __future__ import annotations

import copy
import zlib
from collections.abc import Callable, Mapping
from dataclasses import replace
from logging import getLogger
from typing import Any

from flwr.app import ArrayRecord, ConfigRecord, Message, MetricRecord, RecordDict
from flwr.serverapp import Grid
from flwr.serverapp.strategy import Strategy

from ..codecs.envelope import SERVER
from ..errors import EdgeError, NestingError, ProtocolError
from ..monitoring.links import MOST_LINKS_UP, LinkTable
from ..rounds import Kind, Round
from ..wire import cast_like, check_model, difference, model_spec
from .coded_node import answer_coded
from .edge_messages import EDGE_RECORD, EVENTS_KEY, LAYER_PREFIX, LINKS_KEY, SCHEMA, WEIGHT_KEY, Done, Kept, Order
from .exchange import evaluate_once, train_once
from .narrowed_grid import NarrowedGrid, Patience, minimum_nodes
from .strategy_state import load_strategy_state, strategy_state
from .wrapped_grid import announce, chain, grid_state, load_grid_state

__all__ = ["EdgeRounds"]

log = getLogger(__name__)


class _Memory:
    """What an edge remembers for a codec on its hop to the centre; it lies in the edge's own state."""

    def __init__(self) -> None:
        self._tree: Any = None

    def load(self) -> Any:
        return self._tree

    def save(self, tree: Any) -> None:
        self._tree = tree

    def delete(self) -> None:
        self._tree = None


class EdgeRounds:
    """One edge: its strategy, its terminals, and what it does with a message from the centre.

    Args:
        cell: the edge's name.
        strategy: any Flower strategy, or `Layered` around one. It lives as long as the edge: momentum and layer
            states carry over from one cloud round to the next.
        grid: the edge's own terminals.
        accepted: told the weights of the terminals whose replies an edge round has merged, by node id.
        keeps_model: keep the model it sent up, so that the edge can go on alone when the centre is out of reach.

    Raises:
        NestingError: a strategy that brings its own `start`: an edge runs one round at a time. A class whose `start`
            only adds to the round loop says so with `by_rounds = True`.
    """

    def __init__(
        self,
        cell: str,
        strategy: Strategy,
        grid: Grid,
        *,
        accepted: Callable[[Round, Mapping[int, float]], None] = lambda round, weights: None,
        keeps_model: bool = False,
    ) -> None:
        self.cell = cell
        self._accepted, self._keeps_model = accepted, keeps_model
        self._kept: Kept | None = None
        # `Layered` acts at the Grid: it opens a session around the edge's own and hands back what it wraps.
        session = getattr(strategy, "session", None)
        opened: tuple[Strategy, Grid] = session(grid) if session is not None else (strategy, grid)
        self.strategy, self.layered = opened
        if type(self.strategy).start is not Strategy.start and not getattr(self.strategy, "by_rounds", False):
            name = type(self.strategy).__name__
            raise NestingError(
                f"cell {cell}: {name} brings its own start, and an edge runs one round at a time; "
                f"use one of Flower's strategies inside, or start {name} by itself"
            )
        self._guard = NarrowedGrid(self.layered, None)
        self._below = len(list(chain(grid)))
        # What the centre last said, and what the inner strategy has made of it.
        self._told: dict[str, dict[str, Any]] = {"train": {}, "evaluate": {}}
        self._configs = {"train": ConfigRecord(), "evaluate": ConfigRecord()}
        self._coded = _Memory()

    def handle(self, message: Message) -> Message:
        """Answer a `train` or `evaluate` message from the centre, whose model may come as a code.

        Raises:
            ProtocolError: not a message of a centre.
        """
        return answer_coded(message, zlib.crc32(self.cell.encode()) % SERVER, self._coded, self._handle)

    def _handle(self, message: Message) -> Message:
        record = message.content.config_records.get(EDGE_RECORD)
        if record is None or record.get("schema") != SCHEMA:
            raise ProtocolError(
                f"cell {self.cell} got a message without a {EDGE_RECORD!r} record of schema {SCHEMA!r}; "
                "an edge is driven by Hierarchical, of the same flower-edge version"
            )
        order = Order.read(record)
        name, arrays = next(iter(message.content.array_records.items()))
        config = self._config("train" if message.metadata.message_type == "train" else "evaluate", message)
        if message.metadata.message_type == "train":
            answer = self._train(order, name, arrays, config)
        else:
            answer = self._evaluate(order, arrays, config)
        return Message(answer, reply_to=message)

    @property
    def has_model(self) -> bool:
        """Whether it could train on without the centre: it keeps the model it sent up, and has sent one."""
        return self._kept is not None

    def carry_on(self, edge_rounds: int | None = None) -> str:
        """The centre is out of reach: train on from the own model, so many edge rounds; `None`: as many as last time.

        What comes of it goes up with the next message the centre gets through, as the difference to the model the
        edge last sent up: against the version it had pulled, what it has sent since would count twice.

        Returns:
            What it did, in words.
        """
        if self._kept is None:
            return "has no model yet and waits"
        order, alone = self._kept.next_order(), self._kept.alone
        if edge_rounds is not None:
            order = replace(order, edge_rounds=edge_rounds)
        start = self._kept.arrays if alone is None else alone.arrays
        done = self._rounds(order, start, self._configs["train"])
        self._kept = replace(self._kept, order=order, alone=done if alone is None else alone.followed_by(done))
        return f"trains on alone from version {order.version}: {done.trained} edge rounds"

    def state_dict(self) -> dict[str, Any]:
        """The inner strategy's state, that of the layers around this edge's terminals, and the configs."""
        return {
            "strategy": strategy_state(self.strategy),
            # The terminals' own grid is saved by whoever owns it, once, and not with every edge.
            "layers": grid_state(self.layered, below=self._below),
            "told": {kind: dict(values) for kind, values in self._told.items()},
            "configs": {kind: dict(config.items()) for kind, config in self._configs.items()},
            "kept": None if self._kept is None else self._kept.to_tree(),
            "coded": self._coded.load(),
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Inverse of `state_dict`."""
        load_strategy_state(self.strategy, state["strategy"])
        load_grid_state(self.layered, state["layers"], below=self._below)
        self._told = {kind: dict(values) for kind, values in state["told"].items()}
        self._configs = {kind: ConfigRecord(dict(values)) for kind, values in state["configs"].items()}
        self._kept = None if state["kept"] is None else Kept.from_tree(state["kept"])
        self._coded.save(state["coded"])

    def _config(self, kind: Kind, message: Message) -> ConfigRecord:
        """The inner strategy's own config. What it writes there stays, as in Flower's loop, until the centre says
        something else about that key."""
        said: dict[str, Any] = {}
        for name, record in message.content.config_records.items():
            if name != EDGE_RECORD:
                # A copy of its own: a strategy may change a list in place, and that is not the centre's word.
                said = copy.deepcopy(dict(record.items()))
        config, told = self._configs[kind], self._told[kind]
        for key in told.keys() - said.keys():
            config.pop(key, None)
        for key, value in said.items():
            if key not in told or told[key] != value:
                config[key] = copy.deepcopy(value)
        self._told[kind] = said
        return config

    def _begin(self, order: Order, round: Round) -> str:
        """Tell everybody which round it is; why it cannot take place, if so."""
        need = minimum_nodes(self.strategy, round.kind)
        self._guard.patience = Patience(order.timeout_s, need, f"cell {self.cell}")
        announce(self._guard, round)
        have = len(list(self._guard.get_node_ids()))
        return "" if have >= need else f"{have} of the {need} terminals its {type(self.strategy).__name__} needs"

    def _train(self, order: Order, name: str, arrays: ArrayRecord, config: ConfigRecord) -> RecordDict:
        spec = model_spec(arrays)
        kept, base = self._kept, None
        if kept is not None and kept.alone is not None and kept.alone.trained:
            # Back in reach: once more from the own model, and what it has learned since its last upload goes up.
            order = replace(order, version=kept.order.version)
            done = kept.alone.followed_by(self._rounds(order, kept.alone.arrays, config))
            base = kept.arrays
        else:
            done = self._rounds(order, arrays, config)
        if self._keeps_model and done.trained:
            self._kept = Kept(order, done.arrays)
        report = self._report(
            {
                "edge-rounds-done": done.trained,
                "nodes-sampled": len(done.asked),
                "nodes-replied": len(done.weights),
                "messages": done.sent,
                "messages-failed": done.failed,
                "version": order.version,
            },
            measured=done.sent > 0,
        )
        numbers = MetricRecord(dict(done.metrics.items()) if done.metrics is not None else {})
        numbers[WEIGHT_KEY] = sum(done.weights.values()) if done.trained else 0.0
        answer = RecordDict({"metrics": numbers, EDGE_RECORD: report})
        if done.trained:
            merged = cast_like(done.arrays, spec)
            answer[name] = merged if base is None else difference(merged, base)
            report["difference"] = base is not None
        if done.trouble:
            report["trouble"] = done.trouble
        links = getattr(self.strategy, "links", None)
        if done.trained and callable(links) and (table := LinkTable.of(links(), MOST_LINKS_UP)).counted:
            report[LINKS_KEY] = table.to_json()
        return answer

    def _rounds(self, order: Order, arrays: ArrayRecord, config: ConfigRecord) -> Done:
        """κ2 rounds of the inner strategy, or as many as go well."""
        spec = model_spec(arrays)
        weights: dict[int, float] = {}
        asked: set[int] = set()
        metrics: MetricRecord | None = None
        trained = failed = sent = 0
        trouble = ""
        for k in range(order.edge_rounds):
            round = Round(order.cloud_round, k + 1, self.cell, "train")
            if trouble := self._begin(order, round):
                break
            try:
                done = train_once(
                    self.strategy,
                    self._guard,
                    round,
                    order.first_edge_round + k,
                    arrays,
                    config,
                    timeout_s=order.timeout_s,
                    seed=order.seed,
                )
                if done.arrays is not None:
                    check_model(done.arrays, spec, sender=f"cell {self.cell}'s {type(self.strategy).__name__}")
            except Exception as error:
                # What the rounds before have brought is kept; the centre is told the rest.
                trouble = str(error) if isinstance(error, EdgeError) else f"{type(error).__name__}: {error}"
                log.warning("cell %s: %s", self.cell, trouble)
                lost: frozenset[int] = getattr(error, "asked", frozenset())
                asked, sent, failed = asked | lost, sent + len(lost), failed + len(lost)
                break
            asked |= done.asked
            sent, failed = sent + done.sent, failed + done.failed
            if done.arrays is None:
                trouble = f"its {type(self.strategy).__name__} made no model of {len(done.weights)} replies"
                continue
            merge = getattr(self.layered, "merged", None)
            arrays = done.arrays if merge is None else merge(round, arrays, done.arrays)
            weights |= done.weights
            self._accepted(round, done.weights)
            metrics = done.metrics
            trained += 1
        return Done(arrays, weights, frozenset(asked), metrics, trained, sent, failed, trouble)

    def _evaluate(self, order: Order, arrays: ArrayRecord, config: ConfigRecord) -> RecordDict:
        round = Round(order.cloud_round, order.edge_rounds, self.cell, "evaluate")
        if trouble := self._begin(order, round):
            report = self._report({"trouble": trouble}, measured=False)
            return RecordDict({"metrics": MetricRecord({WEIGHT_KEY: 0.0}), EDGE_RECORD: report})
        done = evaluate_once(
            self.strategy,
            self._guard,
            round,
            order.first_edge_round + order.edge_rounds - 1,
            arrays,
            config,
            timeout_s=order.timeout_s,
            seed=order.seed,
        )
        numbers = MetricRecord({WEIGHT_KEY: 0.0})
        if done.metrics is not None:
            numbers = MetricRecord({**dict(done.metrics.items()), WEIGHT_KEY: done.weight})
        report = self._report({"messages": done.sent, "messages-failed": done.failed}, measured=done.sent > 0)
        scored = getattr(self.layered, "scored", None)
        if scored is not None and done.metrics is not None:
            scored(round, {key: float(value) for key, value in done.metrics.items() if isinstance(value, int | float)})
        if done.sent and done.failed == done.sent:
            report["trouble"] = f"none of its {done.sent} terminals could evaluate"
        return RecordDict({"metrics": numbers, EDGE_RECORD: report})

    def _report(self, values: Mapping[str, Any], *, measured: bool) -> ConfigRecord:
        metrics = getattr(self.layered, "metrics", None) if measured else None
        layers = {} if metrics is None else {LAYER_PREFIX + name: value for name, value in metrics().items()}
        # The layers around the cell's strategy, and the strategy itself where it tells what happened, as Gossip does.
        sources = [getattr(source, "events", None) for source in (self.layered, self.strategy)]
        events = [event for happened in sources if callable(happened) for event in happened()]
        told = [replace(event, cell=event.cell or self.cell).to_json() for event in events]
        return ConfigRecord(
            {"schema": SCHEMA, "cell": self.cell, **values, **layers, **({EVENTS_KEY: told} if told else {})}
        )
