"""One exchange with the nodes under a Flower strategy: configure, send, receive, aggregate.

The flat loop and every edge use the same two functions, so a round means the same at each tier. Nothing here loops,
saves or evaluates centrally.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from logging import getLogger

from flwr.app import ArrayRecord, ConfigRecord, Message, MetricRecord
from flwr.serverapp import Grid
from flwr.serverapp.strategy import FedAvgM, Strategy

from ..errors import (
    ConfigError,
    ModelMismatch,
    NobodyAdmitted,
    NobodyContributed,
    NotEnoughNodes,
    RoundFailed,
    WireError,
)
from ..rounds import Kind, Round
from ..wire import PACKET_SCHEMA, check_model, copy_content, error_reason, model_spec, weight_of
from .abilities import most_nodes
from .codec_messages import folded_in
from .error_codes import DECLINED, REFUSED
from .flower_private import clone_message
from .generators import derive_seed, seeded_call
from .narrowed_grid import minimum_nodes
from .strategy_state import STATE, go_on_from, innermost
from .wrapped_grid import announce

__all__ = ["Evaluated", "Trained", "evaluate_once", "train_once"]

log = getLogger(__name__)


@dataclass(frozen=True)
class Trained:
    """What one training exchange brought.

    Attributes:
        arrays: the aggregate, or `None` if the strategy made none.
        metrics: its aggregated metrics, or `None`.
        weights: weight of every reply that was no error, by node id; of those that were folded into one, of each.
        asked: ids of the nodes that messages went to, and of others that replied in their place.
        sent: how many messages went out.
        failed: how many came back as errors, or not at all.
    """

    arrays: ArrayRecord | None
    metrics: MetricRecord | None
    weights: dict[int, float]
    asked: frozenset[int]
    sent: int
    failed: int


@dataclass(frozen=True)
class Evaluated:
    """What one evaluation exchange brought; `weight` is the sum over the replies that were no error."""

    metrics: MetricRecord | None
    weight: float
    sent: int
    failed: int


@contextmanager
def _sampling(seed: int | None, *parts: int | str) -> Iterator[None]:
    with nullcontext() if seed is None else seeded_call(derive_seed(seed, *parts)):
        yield


def _weights(strategy: Strategy, replies: list[Message]) -> dict[int, float]:
    key = getattr(innermost(strategy), "weighted_by_key", "num-examples")
    weights: dict[int, float] = {}
    for reply in replies:
        if (folded := folded_in(reply.content)) is not None:
            weights.update(folded)
            continue
        try:
            weights[reply.metadata.src_node_id] = weight_of(reply, key)
        except WireError:
            # A strategy of somebody's own may weigh by something else: then every reply counts the same.
            weights[reply.metadata.src_node_id] = 1.0
    return weights


def train_once(
    strategy: Strategy,
    grid: Grid,
    round: Round,
    server_round: int,
    arrays: ArrayRecord,
    config: ConfigRecord,
    *,
    timeout_s: float | None,
    seed: int | None = None,
) -> Trained:
    """Configure, send, receive and aggregate one training round.

    Args:
        strategy: any Flower strategy.
        grid: where its nodes are.
        round: what is announced to the proxies of the grid.
        server_round: the number the strategy and its clients see.
        arrays: the model to train.
        config: the train config; the strategy writes into it.
        timeout_s: as in `Grid.send_and_receive`.
        seed: if given, sampling and aggregation draw from generators seeded by (seed, cell, server_round), and the
            global streams are left alone; otherwise they draw from the global ones, as Flower does.

    Raises:
        NotEnoughNodes: the strategy would wait for more nodes than there can ever be.
        NobodyContributed: messages were sent and nothing but errors, or nothing at all, came back; `NobodyAdmitted`
            where a layer has refused some of it, or a terminal has declined.
        RoundFailed: the strategy could not merge what came.
        ModelMismatch: a node's arrays are not the model's; names both.
    """
    announce(grid, round)
    core = innermost(strategy)
    _refuse_endless(core, grid)
    if isinstance(core, FedAvgM):
        go_on_from(core, arrays)
    with _sampling(seed, "configure", round.cell, server_round):
        messages = _listed(strategy.configure_train(server_round, arrays, config, grid), strategy, "train")
    replies = list(grid.send_and_receive(messages, timeout=timeout_s))
    good = [reply for reply in replies if not reply.has_error()]
    asked = frozenset(message.metadata.dst_node_id for message in messages)
    if messages and not good:
        if refused := [reply for reply in replies if reply.error.code in (REFUSED, DECLINED)]:
            raise NobodyAdmitted(_nobody_admitted(round, replies, refused), asked)
        raise NobodyContributed(_nothing_usable(round, len(messages), replies, timeout_s), asked)
    if type(core) in STATE:
        # Flower's own strategies add whatever NumPy broadcasts. Others may want replies unlike the model.
        _check_replies(round, good, arrays, asked)
    with _sampling(seed, "aggregate", round.cell, server_round):
        try:
            merged, metrics = strategy.aggregate_train(server_round, replies)
        except Exception as error:
            _check_replies(round, good, arrays, asked)
            name = type(innermost(strategy)).__name__
            why = _without_numbers(strategy, good) or f"{type(error).__name__}: {error}"
            raise RoundFailed(f"{round}: {name} could not merge {len(good)} replies: {why}", asked) from error
    # Substitutes and late replies: more may come back than was sent, and from others.
    weights = _weights(strategy, good)
    asked |= weights.keys()
    failed = max(0, len(messages) - _count(good))
    return Trained(merged, metrics, weights, asked, len(messages), failed)


def _count(replies: list[Message]) -> int:
    """How many nodes replied: a reply may stand for several, whose updates a layer has folded into one."""
    folded = (folded_in(reply.content) for reply in replies)
    return sum(1 if weights is None else len(weights) for weights in folded)


def _without_numbers(strategy: Strategy, replies: list[Message]) -> str:
    """Flower's strategies speak of too many records also where there is none, and name no node."""
    core = innermost(strategy)
    key = getattr(core, "weighted_by_key", "num-examples")
    bare = next((reply for reply in replies if not reply.content.metric_records), None)
    if bare is None or type(core) not in STATE:
        return ""
    return (
        f"node {bare.metadata.src_node_id} sent no MetricRecord; expected one beside the model: "
        f"RecordDict({{'arrays': ..., 'metrics': MetricRecord({{{key!r}: n, ...}})}})"
    )


def _refuse_endless(core: Strategy, grid: Grid) -> None:
    """Flower's sampling waits for nodes; where none can come it would wait for ever."""
    most = most_nodes(grid)
    # Of a strategy with a sampling of its own nobody knows what it waits for.
    if most is None or not type(core).configure_train.__module__.startswith("flwr."):
        return
    if most < (needed := minimum_nodes(core)):
        name = type(core).__name__
        fewer = f", or {name}(min_train_nodes={most}, min_available_nodes={most})" if most else ""
        raise NotEnoughNodes(
            f"{name} waits for {needed} nodes and this LocalGrid has {most}, so it would wait for ever; "
            f"LocalGrid(app, nodes={needed}){fewer}"
        )


def _listed(messages: Iterable[Message] | None, strategy: Strategy, kind: Kind) -> list[Message]:
    if isinstance(messages, list | tuple):
        return list(messages)
    if not isinstance(messages, Iterable):
        raise ConfigError(
            f"{type(innermost(strategy)).__name__}.configure_{kind} returned {messages!r}; "
            "expected messages, or [] to send nothing"
        )
    # A generator may go on changing the one content its messages share; each is sent as it was when it was made.
    return [clone_message(message, copy_content(message.content)) for message in messages]


def _check_replies(round: Round, replies: list[Message], arrays: ArrayRecord, asked: frozenset[int]) -> None:
    spec = model_spec(arrays)
    for reply in replies:
        for record in reply.content.array_records.values():
            if any(array.stype == PACKET_SCHEMA for array in record.values()):
                continue  # an encoded model: its decoder checks it
            try:
                check_model(record, spec, sender=f"{round}: node {reply.metadata.src_node_id}")
            except ModelMismatch as mismatch:
                raise ModelMismatch(str(mismatch), asked) from None


def evaluate_once(
    strategy: Strategy,
    grid: Grid,
    round: Round,
    server_round: int,
    arrays: ArrayRecord,
    config: ConfigRecord,
    *,
    timeout_s: float | None,
    seed: int | None = None,
) -> Evaluated:
    """Configure, send, receive and aggregate one evaluation round; arguments as in `train_once`.

    An evaluation from which nothing usable came back is logged, not raised: no model is lost by it.
    """
    announce(grid, round)
    with _sampling(seed, "configure evaluation", round.cell, server_round):
        messages = _listed(strategy.configure_evaluate(server_round, arrays, config, grid), strategy, "evaluate")
    replies = list(grid.send_and_receive(messages, timeout=timeout_s))
    good = [reply for reply in replies if not reply.has_error()]
    if messages and not good:
        log.warning("%s", _nothing_usable(round, len(messages), replies, timeout_s))
    with _sampling(seed, "aggregate evaluation", round.cell, server_round):
        metrics = strategy.aggregate_evaluate(server_round, replies)
    weight = sum(_weights(strategy, good).values())
    return Evaluated(metrics, weight, len(messages), len(messages) - len(good))


def _nobody_admitted(round: Round, replies: list[Message], refused: list[Message]) -> str:
    shown = "; ".join(f"node {reply.metadata.src_node_id}: {error_reason(reply)}" for reply in refused[:3])
    more = f"; and {len(refused) - 3} more" if len(refused) > 3 else ""
    others = f", the other {len(replies) - len(refused)} failed" if len(replies) > len(refused) else ""
    return f"{round}: {len(refused)} of {len(replies)} replies were refused{others}: {shown}{more}"


def _nothing_usable(round: Round, sent: int, replies: list[Message], timeout_s: float | None) -> str:
    if not replies:
        within = "" if timeout_s is None else f" within {timeout_s:g} s"
        return f"{round}: {sent} messages sent, no reply{within}; are the nodes alive, and is timeout= long enough?"
    first = replies[0]
    return (
        f"{round}: all {len(replies)} replies to {sent} messages are errors; "
        f"the first, from node {first.metadata.src_node_id}: {error_reason(first)}"
    )
