"""`Split`: a model divided between each device and the cloud, with a cut of its own for every device and round.

Between two merges every device has its own copy of the whole model: the half it trains, and the half that the cloud
trains for it (SplitFed v1), or one cloud half for all (v2). A round of Flower's is `steps_per_round` batches of every
device, from where it stopped; every `merge_every` rounds the whole models are merged by any of Flower's strategies. So
v1 equals plain FedAvg whose clients train the whole model for as many steps, bit for bit, whatever the cuts were.

Who trains which units says a planner, how frames travel a plane. Nothing here computes a gradient or opens a socket.

Sources: [3] §4 (docs/sources.md): session, cuts by remaining capacity, merging every five rounds; Thapa et al.,
"SplitFed", AAAI 2022: its variants v1 and v2.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping
from logging import getLogger
from typing import Any, Literal

from flwr.app import ArrayRecord, ConfigRecord, Message, MetricRecord
from flwr.serverapp import Grid
from flwr.serverapp.strategy import FedAvg, Result, Strategy

from flower_edge.errors import ConfigError, ProtocolError
from flower_edge.events import Event
from flower_edge.runtime.splitting.messages import SplitOrder
from flower_edge.runtime.strategy_state import check_settings, load_strategy_state, strategy_state
from flower_edge.splitting.capacity import Capacity
from flower_edge.splitting.dynamic import Dynamic
from flower_edge.splitting.order import ArchitectureSpec, LossName, OptimiserSpec
from flower_edge.splitting.planner import Planner, with_job
from flower_edge.splitting.standardise import Standard, StandardKind
from flower_edge.store.run_folder import RunFolder

from ..loop import drive
from ..model_digest import model_digest
from .arguments import check_share
from .federation import Federation
from .message_plane import MessagePlane
from .peer_merge import MailboxName, MergeForm, PeerMerge
from .plane import Exchanges, Plane, Task
from .prepared import Models
from .rounds import SplitWork
from .session import EnrolRules, Phase
from .settings import Settings
from .tasks import message_for, nobody

__all__ = ["Split"]

log = getLogger("flwr.edge")

Codec = Mapping[str, Any]


class Split(Strategy):
    """Split learning with a cut per device and round.

    Args:
        architecture: the model, as data; every device builds it and must come to the same digest.
        planner: who trains which units: `Dynamic` (by default: the least common time of a step), `FixedCut`,
            `Scheduled`, `WholeModel`, or your own. It is told batch size, steps and labels from here where it has none.
        strategy: merges whole models: any of Flower's. FedAvg by default.
        steps_per_round: batches of every device in a round.
        batch_size: samples per batch.
        optimiser: of both halves; its state follows a layer when a cut moves.
        loss: mean over a batch.
        merge_every: rounds between merges; the last round of its own `start` merges, too.
        labels: `cloud`: they travel with the activations. `device`: they stay, and the cloud's outputs come back.
        tail: so many last units stay on the device; with labels='device' only.
        variant: `v1`: a cloud half for each device. `v2`: one for all, whose batches take turns in the order of the
            devices' numbers; cuts then move at merges only.
        keep_optimiser: keep the optimisers' state over a merge; by default it begins anew, as a FedAvg client's does.
        merge: `server`, or `peers`: units that every device has trained itself are averaged among the devices, to the
            same bits; with FedAvg only. See `PeerMerge`.
        mailbox: how they reach one another for it: by `relay` through the server, which saves nothing, or by
            `shared-memory` of one host.
        standardise: how samples are standardised: a kind, or a `Standard` with scope; its constants are fitted from
            moments that devices tell. See `standard`.
        up, down: configs of codecs at the cut where the plan names none: of tensors to the cloud, of gradients back.
        noise, nopeek: against leakage, see `WorkOrder`.
        gauge: devices measure how much of the inputs of each round's first batch shows in what they send: column `leak`
            of `history`, metric `leak_max`. See `SplitReport.leak`.
        plane: how frames travel: `MessagePlane()` by default, or `StreamPlane(...)`.
        enrol: whom the session waits for, and how long.
        measure: `rounds`: every device is asked before each round what it has left, and whether it still has enough
            samples; what it cannot tell, such as its link's rate, is taken from what it measured in the rounds before.
            `reports`: all is taken from there, which saves an exchange.
        assumed: what a device has left where nobody has measured it.
        shared_links: names of links in the planner's `Cloud(links=...)` that a device is behind, by its number; they
            carry its frames both ways.
        models: factories of models of your own by name; `split_client` takes the same.
        seed: of the order of samples (device i draws with seed + i), dropout, rounding and noise.
        until_accuracy: end after a merge whose model reaches it, by `accuracy` of evaluate_fn or else of the clients.
            `start` looks at it, also inside `Layered`; at an edge of `Hierarchical` nobody does.
        step_timeout_s: the most an exchange may take that is not the last of its round; `start` sets it.

    Attributes:
        standard: how samples are standardised, with its constants once they are fitted; apply the same at inference.
        history: one row of plain values per device and round, see `Records.rows`.

    Raises:
        ConfigError: arguments that cannot be, or do not fit together.
    """

    #: Its own `start` only adds to the round loop: an edge may run its rounds one at a time.
    by_rounds = True

    def __init__(
        self,
        architecture: ArchitectureSpec,
        *,
        planner: Planner | None = None,
        strategy: Strategy | None = None,
        steps_per_round: int = 10,
        batch_size: int = 32,
        optimiser: OptimiserSpec | None = None,
        loss: LossName = "cross-entropy",
        merge_every: int = 5,
        labels: Literal["cloud", "device"] = "cloud",
        tail: int = 0,
        variant: Literal["v1", "v2"] = "v1",
        keep_optimiser: bool = False,
        merge: MergeForm = "server",
        mailbox: MailboxName = "relay",
        standardise: StandardKind | Standard | None = None,
        up: Codec | None = None,
        down: Codec | None = None,
        noise: float = 0.0,
        nopeek: float = 0.0,
        gauge: bool = False,
        plane: Plane | None = None,
        enrol: EnrolRules | None = None,
        measure: Literal["rounds", "reports"] = "rounds",
        assumed: Capacity | None = None,
        shared_links: Mapping[int, Collection[str]] | None = None,
        models: Models | None = None,
        seed: int = 0,
        until_accuracy: float | None = None,
        step_timeout_s: float = 3600.0,
    ) -> None:
        check_share("until_accuracy", until_accuracy)
        self._settings = Settings(
            steps_per_round=steps_per_round,
            batch_size=batch_size,
            optimiser=optimiser or OptimiserSpec(),
            loss=loss,
            merge_every=merge_every,
            labels=labels,
            tail=tail,
            variant=variant,
            keep_optimiser=keep_optimiser,
            up=up,
            down=down,
            noise=noise,
            nopeek=nopeek,
            measure=measure,
            assumed=assumed or Capacity(1e9),
            shared_links=shared_links or {},
            seed=seed,
        )
        self.merging = strategy or FedAvg()
        if isinstance(self.merging, Split):
            raise ConfigError(
                "Split(strategy=Split(...)): the inner one merges whole models; give FedAvg() or its like"
            )
        if not isinstance(gauge, bool):
            raise ConfigError(f"gauge = {gauge!r}: expected True or False")
        self._gauge = gauge
        self._peers = PeerMerge.of(merge, mailbox, self.merging, keep_optimiser=keep_optimiser)
        self.planner = with_job(planner or Dynamic(), self._settings.job())
        self.plane: Plane = plane or MessagePlane()
        self.step_timeout_s, self.until_accuracy = step_timeout_s, until_accuracy
        self._architecture, self._models = architecture, models
        self._standard = Standard(standardise) if isinstance(standardise, str) else standardise
        self._enrol = enrol or EnrolRules()
        self.weighted_by_key = getattr(self.merging, "weighted_by_key", "num-examples")
        self.arrayrecord_key = getattr(self.merging, "arrayrecord_key", "arrays")
        self.configrecord_key = getattr(self.merging, "configrecord_key", "config")
        self._forget()

    def _forget(self) -> None:
        """As before the first round."""
        self._federation = Federation.of(
            self._enrol,
            settings=self._settings,
            architecture=self._architecture,
            models=self._models,
            planner=self.planner,
            merging=self.merging,
            standard=self._standard,
            peers=None if self._peers is None else self._peers.anew(),
        )
        self._exchanges: Exchanges | None = None
        self._open = False
        self._last_round = 0
        self._accuracy: float | None = None
        self._given = ""

    @property
    def standard(self) -> Standard | None:
        """How samples are standardised; with its constants once the session is ready."""
        return self._federation.standard

    @property
    def history(self) -> list[dict[str, int | float | str]]:
        """One row per device and round, oldest first."""
        return self._federation.records.rows

    @property
    def phase(self) -> Phase:
        """Of the session."""
        return self._federation.session.phase

    # -- a whole run -------------------------------------------------------------------------------------------------

    def start(
        self,
        grid: Grid,
        initial_arrays: ArrayRecord,
        num_rounds: int = 3,
        timeout: float = 3600,
        train_config: ConfigRecord | None = None,
        evaluate_config: ConfigRecord | None = None,
        evaluate_fn: Callable[[int, ArrayRecord], MetricRecord | None] | None = None,
        *,
        run: RunFolder | None = None,
        resume: bool = False,
        **options: Any,
    ) -> Result:
        """Run up to `num_rounds` rounds of `steps_per_round` batches. Arguments as Flower's `Strategy.start`; `timeout`
        is of one exchange; `run` and `resume` as of `Layered.start`.

        Raises:
            ConfigError: an option it does not have.
            NotEnoughNodes: fewer devices asked for training, or are ready, than `enrol` wants.
        """
        if options:
            raise ConfigError(f"Split.start got {sorted(options)}; its options beside Flower's are run= and resume=")
        self._forget()
        self.step_timeout_s, self._last_round = timeout, num_rounds

        def scored(round: int, arrays: ArrayRecord) -> MetricRecord | None:
            assert evaluate_fn is not None
            found = evaluate_fn(round, arrays)
            if round:
                self.scored(found)
            return found

        try:
            return drive(
                SplitWork(self),
                grid,
                initial_arrays,
                num_rounds,
                timeout,
                train_config,
                evaluate_config,
                None if evaluate_fn is None else scored,
                run=run,
                resume=resume,
            )
        finally:
            self.close()

    def close(self) -> None:
        """End the round that is going on, and close the plane. `start` does so itself."""
        exchanges, self._exchanges = self._exchanges, None
        if exchanges is not None:
            exchanges.close()
        self.plane.close()
        if self._federation.peers is not None:
            self._federation.peers.close()
        self._open = False

    def summary(self) -> None:
        """Log the configuration."""
        settings = self._settings
        log.info("\t├──> Split:")
        log.info("\t│\t├── Model: %s, planned by %r", self._architecture.name, self.planner)
        log.info("\t│\t├── Round: %d steps of %d samples", settings.steps_per_round, settings.batch_size)
        log.info("\t│\t├── Labels on the %s, frames by %s", settings.labels, self.plane.name)
        log.info("\t│\t└── Merged every %d rounds by %s", settings.merge_every, type(self.merging).__name__)

    # -- a round of training -----------------------------------------------------------------------------------------

    def configure_train(
        self, server_round: int, arrays: ArrayRecord, config: ConfigRecord, grid: Grid
    ) -> Iterable[Message]:
        """Runs all exchanges of the round but the last, and gives the messages of that one.

        Raises:
            NotEnoughNodes: the session cannot begin, or too few devices are there for a merge.
            ProtocolError: no device of the session is there.
        """
        if not self._open:
            self.plane.open()
            self._open = True
        if self._exchanges is not None:  # of a round from which nothing came back
            self._exchanges.close()
        self._exchanges, federation = None, self._federation
        given = model_digest(arrays)
        federation.begin_round(arrays, grid, self.step_timeout_s, anew=given != self._given)
        self._given = given
        federation.prepare_merge(arrays, config, grid, last=server_round == self._last_round)
        config["server-round"] = server_round
        tasks = federation.plan(server_round, grid, self.step_timeout_s)
        told = {self.configrecord_key: config}
        peers = federation.peers

        def message(task: Task, order: SplitOrder, records: Mapping[str, Any]) -> Message:
            order = order.model_copy(update={"gauge": self._gauge})
            return message_for(task, *(peers.addressed(order, records) if peers else (order, records)), told)

        exchanges = self.plane.round(tasks, message, self._settings.shared)
        if peers is not None:
            exchanges = peers.around(exchanges, tasks, message, grid, federation.cloud_part)
        messages, last = next(exchanges)
        while not last:
            messages, last = exchanges.send(list(grid.send_and_receive(messages, timeout=self.step_timeout_s)))
        if not messages:
            raise nobody(server_round, tasks)
        self._exchanges = exchanges
        return messages

    def aggregate_train(
        self, server_round: int, replies: Iterable[Message]
    ) -> tuple[ArrayRecord | None, MetricRecord | None]:
        """What the round was like, and the merged model where it ends with a merge.

        Raises:
            NobodyContributed: every device was lost.
        """
        if self._exchanges is None:
            raise ProtocolError("aggregate_train before configure_train: Split knows no round yet")
        exchanges, self._exchanges = self._exchanges, None
        try:
            exchanges.send(list(replies))
        except StopIteration:
            pass
        else:
            raise ProtocolError(f"a round of {type(self.plane).__name__} went on after its last messages")
        federation, self._accuracy = self._federation, None
        federation.merged = False
        found = federation.take(server_round)
        if not federation.merge_now:
            return None, MetricRecord({**found, "merged": 0})
        model, metrics = federation.merge()
        if model is not None:
            self._given, federation.merged = model_digest(model), True
        inner = {} if metrics is None else dict(metrics.items())
        return model, MetricRecord({**inner, **found, "merged": int(federation.merged)})

    # -- evaluation --------------------------------------------------------------------------------------------------

    def configure_evaluate(
        self, server_round: int, arrays: ArrayRecord, config: ConfigRecord, grid: Grid
    ) -> Iterable[Message]:
        """As the strategy that merges does it, after a merge; between merges the model is the same."""
        if not self._federation.merged:
            return []
        return self.merging.configure_evaluate(server_round, arrays, config, grid)

    def aggregate_evaluate(self, server_round: int, replies: Iterable[Message]) -> MetricRecord | None:
        """As the strategy that merges does it, of the replies in the order of their nodes.

        Flower asks in the order of a draw, and a sum of floats in another order is not quite the same: a run that ends
        `until_accuracy` could go on past the merge where the same run ended.
        """
        found = sorted(replies, key=lambda reply: reply.metadata.src_node_id)
        return self.merging.aggregate_evaluate(server_round, found) if found else None

    def scored(self, metrics: MetricRecord | None) -> None:
        """An evaluation of the round's model brought these; the server's own counts more than the clients'."""
        accuracy = None if metrics is None else metrics.get("accuracy")
        if self._federation.merged and isinstance(accuracy, int | float):
            self._accuracy = float(accuracy)

    def reached(self) -> str | None:
        """Why training ends with this round, in words; None where it does not."""
        wanted, found = self.until_accuracy, self._accuracy
        if wanted is None or found is None or not found >= wanted:  # an accuracy of NaN reaches nothing
            return None
        why = f"accuracy {found:.4g} reaches {wanted:g}"
        self._federation.session.done(why)
        return why

    # -- what happened, and checkpoints ------------------------------------------------------------------------------

    def events(self) -> list[Event]:
        """What happened since the last call."""
        return [*self._federation.session.take_events(), *self._federation.records.take_events()]

    def state_dict(self) -> dict[str, Any]:
        """Everything the server knows; devices keep nothing between rounds that a resumed run needs."""
        return {
            "settings": self._settings.plain(),
            "given": self._given,
            "accuracy": self._accuracy,
            "federation": self._federation.state_dict(),
            "merging": strategy_state(self.merging),
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Inverse of `state_dict`.

        Raises:
            ResumeError: it is that of another kind of split; names the argument.
        """
        check_settings(type(self).__name__, state["settings"], self._settings.plain())
        last = self._last_round
        self._forget()
        self._last_round = last
        self._given, self._accuracy = str(state["given"]), state["accuracy"]
        self._federation.load_state_dict(state["federation"])
        load_strategy_state(self.merging, state["merging"])
