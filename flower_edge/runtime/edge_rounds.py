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

from collections.abc import Mapping
from logging import getLogger
from typing import Any

from flwr.app import ArrayRecord, ConfigRecord, Message, MetricRecord, RecordDict
from flwr.serverapp import Grid
from flwr.serverapp.strategy import Strategy

from ..errors import ProtocolError, RoundFailed
from ..rounds import Kind, Round
from ..wire import cast_like, check_model, model_spec
from .exchange import evaluate_once, train_once
from .narrowed_grid import minimum_nodes
from .strategy_state import load_strategy_state, strategy_state
from .wrapped_grid import WrappedGrid, chain, grid_state, load_grid_state

__all__ = ["EDGE_RECORD", "WEIGHT_KEY", "EdgeRounds", "edge_order"]

log = getLogger(__name__)

#: Record of a centre's message that tells the edge what to do, and of an edge's reply that tells how it went.
EDGE_RECORD = "flower-edge.edge"
#: n_e in the reply's metrics.
WEIGHT_KEY = "num-examples"


def edge_order(
    cell: str, cloud_round: int, first_edge_round: int, edge_rounds: int, timeout_s: float, seed: int | None
) -> ConfigRecord:
    """The record with which the centre tells an edge what to do.

    `first_edge_round` numbers the edge rounds through the whole run, so that terminals and inner strategies see a
    `server-round` that never repeats, and with κ2 = 1 the one that flat training would show them.
    """
    order = ConfigRecord(
        {
            "schema": "flower-edge.edge/1",
            "cell": cell,
            "cloud-round": cloud_round,
            "first-edge-round": first_edge_round,
            "edge-rounds": edge_rounds,
            "timeout-s": float(timeout_s),
        }
    )
    if seed is not None:
        order["seed"] = seed
    return order


class EdgeRounds:
    """One edge: its strategy, its terminals, and what it does with a message from the centre.

    Args:
        cell: the edge's name.
        strategy: any Flower strategy, or `Layered` around one. It lives as long as the edge: momentum and layer
            states carry over from one cloud round to the next.
        grid: the edge's own terminals.
    """

    def __init__(self, cell: str, strategy: Strategy, grid: Grid) -> None:
        self.cell = cell
        # `Layered` acts at the Grid: it opens a session around the edge's own and hands back what it wraps.
        session = getattr(strategy, "session", None)
        opened: tuple[Strategy, Grid] = session(grid) if session is not None else (strategy, grid)
        self.strategy, self.grid = opened
        self._terminals = grid

    def handle(self, message: Message) -> Message:
        """Answer a `train` or `evaluate` message from the centre."""
        order = message.content.config_records.get(EDGE_RECORD)
        if order is None or order.get("schema") != "flower-edge.edge/1":
            raise ProtocolError(
                f"cell {self.cell} got a message without a {EDGE_RECORD!r} record of schema 'flower-edge.edge/1'; "
                "an edge is driven by Hierarchical, of the same flower-edge version"
            )
        if message.metadata.message_type == "train":
            return self._train(message, order)
        return self._evaluate(message, order)

    def state_dict(self) -> dict[str, Any]:
        """The inner strategy's state and that of the layers around this edge's terminals."""
        return {"strategy": strategy_state(self.strategy), "layers": self._layer_state()}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Inverse of `state_dict`."""
        load_strategy_state(self.strategy, state["strategy"])
        if state["layers"]:
            load_grid_state(self.grid, state["layers"])

    def _layer_state(self) -> dict[str, Any]:
        # The terminals' own grid is saved by whoever owns it, once, and not with every edge.
        below = len(list(chain(self._terminals)))
        return {name: value for name, value in grid_state(self.grid).items() if int(name.partition(":")[0]) >= below}

    def _arrays(self, message: Message) -> tuple[str, ArrayRecord]:
        name, arrays = next(iter(message.content.array_records.items()))
        return name, arrays

    def _config(self, message: Message) -> ConfigRecord:
        for name, record in message.content.config_records.items():
            if name != EDGE_RECORD:
                return ConfigRecord(dict(record.items()))
        return ConfigRecord()

    def _too_few(self, kind: Kind) -> str:
        have, need = len(list(self.grid.get_node_ids())), minimum_nodes(self.strategy, kind)
        if have >= need:
            return ""
        return f"{have} of the {need} terminals its {type(self.strategy).__name__} needs"

    def _train(self, message: Message, order: ConfigRecord) -> Message:
        name, arrays = self._arrays(message)
        spec = model_spec(arrays)
        config = self._config(message)
        seed, timeout_s = order.get("seed"), float(order["timeout-s"])  # type: ignore[arg-type]
        weights: dict[int, float] = {}
        asked: set[int] = set()
        metrics: MetricRecord | None = None
        trained = failed = sent = 0
        trouble = ""
        for k in range(int(order["edge-rounds"])):  # type: ignore[arg-type]
            round = Round(int(order["cloud-round"]), k + 1, self.cell, "train")  # type: ignore[arg-type]
            if short := self._too_few("train"):
                trouble = short
                break
            try:
                done = train_once(
                    self.strategy,
                    self.grid,
                    round,
                    int(order["first-edge-round"]) + k,  # type: ignore[arg-type]
                    arrays,
                    config,
                    timeout_s=timeout_s,
                    seed=None if seed is None else int(seed),  # type: ignore[arg-type]
                )
            except RoundFailed as error:
                log.warning("%s", error)
                trouble = str(error)
                asked |= error.asked
                sent, failed = sent + len(error.asked), failed + len(error.asked)
                break
            asked |= done.asked
            sent, failed = sent + done.sent, failed + done.failed
            if done.arrays is None:
                trouble = f"its {type(self.strategy).__name__} made no model of {len(done.weights)} replies"
                continue
            merge = getattr(self.grid, "merged", None)
            arrays = merge(round, arrays, done.arrays) if merge is not None else done.arrays
            weights |= done.weights
            metrics = done.metrics
            trained += 1

        answer = RecordDict()
        report = ConfigRecord(
            {
                "schema": "flower-edge.edge/1",
                "cell": self.cell,
                "edge-rounds-done": trained,
                "nodes-sampled": len(asked),
                "nodes-replied": len(weights),
                "messages": sent,
                "messages-failed": failed,
            }
        )
        numbers = MetricRecord(dict(metrics.items()) if metrics is not None else {})
        if trained:
            check_model(arrays, spec, sender=f"cell {self.cell}'s {type(self.strategy).__name__}")
            answer[name] = cast_like(arrays, spec)
            numbers[WEIGHT_KEY] = sum(weights.values())
        else:
            numbers[WEIGHT_KEY] = 0.0
            report["skipped"] = trouble or "nothing to train"
        self._add_layer_metrics(report)
        answer["metrics"] = numbers
        answer[EDGE_RECORD] = report
        return Message(answer, reply_to=message)

    def _evaluate(self, message: Message, order: ConfigRecord) -> Message:
        _, arrays = self._arrays(message)
        round = Round(int(order["cloud-round"]), int(order["edge-rounds"]), self.cell, "evaluate")  # type: ignore[arg-type]
        report = ConfigRecord({"schema": "flower-edge.edge/1", "cell": self.cell})
        numbers = MetricRecord({WEIGHT_KEY: 0.0})
        seed = order.get("seed")
        if short := self._too_few("evaluate"):
            report["skipped"] = short
        else:
            done = evaluate_once(
                self.strategy,
                self.grid,
                round,
                int(order["first-edge-round"]) + int(order["edge-rounds"]) - 1,  # type: ignore[arg-type]
                arrays,
                self._config(message),
                timeout_s=float(order["timeout-s"]),  # type: ignore[arg-type]
                seed=None if seed is None else int(seed),  # type: ignore[arg-type]
            )
            if done.metrics is not None:
                numbers = MetricRecord({**dict(done.metrics.items()), WEIGHT_KEY: done.weight})
            report["messages"], report["messages-failed"] = done.sent, done.failed
        self._add_layer_metrics(report)
        return Message(RecordDict({"metrics": numbers, EDGE_RECORD: report}), reply_to=message)

    def _add_layer_metrics(self, report: ConfigRecord) -> None:
        measured = getattr(self.grid, "metrics", None) if isinstance(self.grid, WrappedGrid) else None
        if measured is not None:
            for name, value in measured().items():
                report[name] = value
