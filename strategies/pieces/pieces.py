"""`Pieces`: a model in layer pieces over several terminals, each of which trains its own; any Flower strategy merges.

A *chain* is one copy of the model on one segment of the training data: its pieces lie on as many terminals, which send
one another what crosses the cuts, via the server. A round of Flower's is `steps_per_round` batches of every chain from
the global model; each chain's pieces come back and are put together, and the strategy merges the chains as it merges
clients' whole models. So in exact mode a round equals FedAvg whose clients train the whole model, to the bit.

    one edge      terminals form as many chains as there are; those left over are spares
    CASE 2        edges= names M edges: edge m holds part m of the model, chain s runs through terminal s of each edge;
                  edge m averages its part, the centre puts the parts together

Who trains which units says `planning`, how frames travel a plane, what becomes of a piece whose terminal leaves
`reseating`. Nothing here computes a gradient.

Source: [4] ¶17-26 and 52-56 (docs/sources.md).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from logging import getLogger
from typing import Any

from flwr.app import ArrayRecord, ConfigRecord, Message, MetricRecord
from flwr.serverapp import Grid
from flwr.serverapp.strategy import FedAvg, Result, Strategy

from flower_edge.errors import ConfigError, ProtocolError
from flower_edge.events import Event
from flower_edge.pieces.order import Mode
from flower_edge.runtime.strategy_state import check_settings, load_strategy_state, strategy_state
from flower_edge.splitting.capacity import Capacity
from flower_edge.splitting.order import ArchitectureSpec, LossName, OptimiserSpec
from flower_edge.store.run_folder import RunFolder
from flower_edge.wire import arrays_of, cast_like, check_model

from ..flat_work import FlatWork
from ..hierarchy.cells import Cells
from ..loop import drive
from ..model_digest import session_name
from ..splitting.merging import prepare_merge
from ..splitting.prepared import Models
from .checkpoint import Known
from .merging import averaged_heads, by_edges, by_strategy
from .message_plane import PieceMessages
from .plane import PiecePlane
from .planning import Cutter, PiecePlanner, spans_by_edge
from .reseating import Room
from .rounds import PieceRound
from .seating import DataFrom, seat_chains
from .settings import MergeBy, PieceSettings, pieces_by_edge
from .tasks import TaskMaker
from .terminals import Roll

__all__ = ["Pieces"]

log = getLogger("flwr.edge")

Codec = Mapping[str, Any]


class Pieces(Strategy):
    """Training of a model in pieces.

    Args:
        architecture: the model, as data; every terminal builds it and must come to the same digest.
        pieces: into how many a model is cut; over edges, into how many each edge cuts its part: a number for all, or by
            name, 1 where none is given.
        cuts: where, the same in every round: positions, rising, one fewer than pieces.
        planner: where, by your own function of (profile, machines). By default `balanced`: each machine's piece in
            proportion to its speed, within its memory.
        edges: which terminals belong to which edge, such as `blocks(3)`, in the order of the layers.
        strategy: merges whole models: any of Flower's. FedAvg without evaluation by clients by default.
        mode: `exact`: activations and gradients cross the cuts, as if the model were whole. `decoupled`: each piece but
            the last learns by a small classifier of its own, and no gradient crosses.
        steps_per_round: batches of every chain in a round.
        batch_size: samples per batch.
        optimiser: of all pieces; its state follows units when they change hands.
        loss: mean over a batch.
        data: `terminal`: who holds the first piece has samples of its own. `segments`: it loads the segment it is told.
        segments: how many there are, with data='segments'; by default one for each chain. More than chains take turns.
        chains: at most so many; terminals beyond them are spares.
        merge: `chains`: the strategy gets each chain's model. `edges`: each edge averages its part, and the strategy
            gets one model; by default with edges=.
        keep_optimiser: keep every chain's optimiser over rounds; by default it begins anew, as a FedAvg client's does.
        up, down: configs of codecs at the cuts: of tensors on their way forward, of gradients back.
        plane: how frames travel: `PieceMessages()` by default, or `PieceStream(...)`.
        assumed: what a terminal has left where nobody has measured it.
        models: factories of models of your own by name; `pieces_client` takes the same.
        seed: of the order of samples (chain i draws with seed + i), dropout and rounding.
        step_timeout_s: the most an exchange may take that is not the last of its round; `start` sets it.

    Attributes:
        history: one row of plain values per piece and attempt, see `PieceRecords.rows`.

    Raises:
        ConfigError: arguments that cannot be, or do not fit together.
    """

    #: Its own `start` only adds to the round loop: an edge may run its rounds one at a time.
    by_rounds = True

    def __init__(
        self,
        architecture: ArchitectureSpec,
        *,
        pieces: int | Mapping[str, int] | None = None,
        cuts: Sequence[int] | None = None,
        planner: PiecePlanner | None = None,
        edges: Cells | None = None,
        strategy: Strategy | None = None,
        mode: Mode = "exact",
        steps_per_round: int = 10,
        batch_size: int = 32,
        optimiser: OptimiserSpec | None = None,
        loss: LossName = "cross-entropy",
        data: DataFrom = "terminal",
        segments: int | None = None,
        chains: int | None = None,
        merge: MergeBy | None = None,
        keep_optimiser: bool = False,
        up: Codec | None = None,
        down: Codec | None = None,
        plane: PiecePlane | None = None,
        assumed: Capacity | None = None,
        models: Models | None = None,
        seed: int = 0,
        step_timeout_s: float = 3600.0,
    ) -> None:
        if pieces is None and cuts is None and edges is None:
            raise ConfigError(
                "Pieces(...) without pieces=, cuts= or edges=: say into how many pieces, such as pieces=3"
            )
        if merge == "edges" and edges is None:
            raise ConfigError("merge = 'edges' without edges=: name them, such as edges=blocks(3), or leave merge out")
        self._settings = PieceSettings(
            mode=mode,
            steps_per_round=steps_per_round,
            batch_size=batch_size,
            optimiser=optimiser or OptimiserSpec(),
            loss=loss,
            data=data,
            segments=segments,
            chains=chains,
            merge=merge or ("chains" if edges is None else "edges"),
            keep_optimiser=keep_optimiser,
            up=up,
            down=down,
            assumed=assumed or Capacity(1e9),
            seed=seed,
        )
        if edges is None:
            pieces_by_edge(pieces, cuts, None)
        self._pieces, self._edges = pieces, edges
        self._cutter = Cutter(None if cuts is None else tuple(cuts), planner, mode, self._settings.job())
        self.merging = strategy or FedAvg(fraction_evaluate=0.0, min_train_nodes=1, min_available_nodes=1)
        self.plane: PiecePlane = plane or PieceMessages()
        self.step_timeout_s = step_timeout_s
        self._architecture, self._models = architecture, models
        self.weighted_by_key = getattr(self.merging, "weighted_by_key", "num-examples")
        self.arrayrecord_key = getattr(self.merging, "arrayrecord_key", "arrays")
        self.configrecord_key = getattr(self.merging, "configrecord_key", "config")
        self._forget()

    def _forget(self) -> None:
        """As before the first round."""
        self._known = Known(self._architecture, self._models, Roll(self._settings.assumed, self._edges))
        self._open = False
        self._round: PieceRound | None = None
        self._parts: dict[str, tuple[str, ...]] = {}

    @property
    def history(self) -> list[dict[str, int | float | str]]:
        """One row per piece and attempt, oldest first."""
        return self._known.records.rows

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
        """Run `num_rounds` rounds of `steps_per_round` batches. Arguments as Flower's `Strategy.start`; `timeout` is of
        one exchange; `run` and `resume` as of `Layered.start`.

        Raises:
            ConfigError: an option it does not have.
            NotEnoughNodes: fewer terminals than a chain has pieces.
        """
        if options:
            raise ConfigError(f"Pieces.start got {sorted(options)}; its options beside Flower's are run= and resume=")
        self._forget()
        self.step_timeout_s = timeout
        given = (grid, initial_arrays, num_rounds, timeout, train_config, evaluate_config, evaluate_fn)
        try:
            return drive(FlatWork(self), *given, run=run, resume=resume)
        finally:
            self.close()

    def close(self) -> None:
        """Close the plane. `start` does so itself, and so does the `Hierarchical` whose edge this is."""
        self.plane.close()
        self._open = False

    def summary(self) -> None:
        """Log the configuration."""
        settings = self._settings
        log.info("\t├──> Pieces:")
        log.info("\t│\t├── Model: %s, %s mode", self._architecture.name, settings.mode)
        log.info("\t│\t├── Round: %d steps of %d samples", settings.steps_per_round, settings.batch_size)
        log.info("\t│\t├── Samples: of each %s, frames by %s", settings.data.rstrip("s"), self.plane.name)
        log.info("\t│\t└── Merged by %s, %s", settings.merge, type(self.merging).__name__)

    # -- a round of training -----------------------------------------------------------------------------------------

    def configure_train(
        self, server_round: int, arrays: ArrayRecord, config: ConfigRecord, grid: Grid
    ) -> Iterable[Message]:
        """Runs all exchanges of the round but the last, and gives the messages of that one.

        Raises:
            NotEnoughNodes: fewer terminals than a chain has pieces.
            SplitError: the model cannot be built, or cut for these terminals.
            NobodyContributed: every chain was dropped.
        """
        if not self._open:
            self.plane.open()
            self._open = True
        known, settings = self._known, self._settings
        prepared = known.ready()
        check_model(arrays, prepared.spec, sender="the loop")
        known.session = known.session or session_name(settings.seed, arrays)
        terminals, edges = known.roll.call(
            grid, server_round, prepared.architecture, known.records, self.step_timeout_s
        )
        places = pieces_by_edge(self._pieces, self._cutter.cuts, edges, known.roll.known)
        seating = seat_chains(
            terminals,
            places,
            data=settings.data,
            segments=settings.segments,
            chains=settings.chains,
            round=server_round,
        )
        chains = self._cutter.cut(seating.chains, prepared.profile, alike=edges is not None, tell=known.records.tell)
        spans = spans_by_edge(places, chains[0])
        self._parts = {edge: prepared.model.names(start, stop) for edge, (start, stop) in spans.items()}
        known.records.seated(server_round, chains, len(seating.spares))
        prepare_merge(
            self.merging,
            server_round,
            arrays,
            config,
            grid,
            [one.node for chain in chains for one in chain.terminals],
            wait="give Pieces strategy={strategy}, or more terminals",
        )
        config["server-round"] = server_round
        maker = TaskMaker(
            server_round,
            known.session,
            settings,
            prepared,
            known.memory,
            arrays_of(cast_like(arrays, prepared.spec)),
            {self.configrecord_key: config},
        )
        room = Room(prepared.profile, settings.job())
        round = PieceRound(chains, seating.spares, maker, room, settings.data, known.records)
        self._round = None
        exchanges = round.exchanges(self.plane)
        replies: Sequence[Message] | None = None
        while True:
            try:
                messages = next(exchanges) if replies is None else exchanges.send(replies)
            except StopIteration:
                break
            replies = list(grid.send_and_receive(messages, timeout=self.step_timeout_s))
        self._round = round
        return round.last()

    def aggregate_train(
        self, server_round: int, replies: Iterable[Message]
    ) -> tuple[ArrayRecord | None, MetricRecord | None]:
        """The merged model, and what the round was like. What came last says nothing that is not known.

        Raises:
            ProtocolError: no round was configured.
        """
        for _ in replies:
            pass
        round, self._round = self._round, None
        if round is None:
            raise ProtocolError("aggregate_train before configure_train: Pieces knows no round yet")
        known, done = self._known, round.finished
        spec = known.ready().spec
        known.memory.took(done, keep_optimiser=self._settings.keep_optimiser)
        known.memory.heads |= averaged_heads(done)
        if self._settings.merge == "edges":
            model, metrics = by_edges(self.merging, server_round, done, spec, self._parts)
        else:
            model, metrics = by_strategy(self.merging, server_round, done, spec)
        found = self._known.records.metrics(server_round, len(round.dropped))
        return model, MetricRecord({**({} if metrics is None else dict(metrics.items())), **found})

    # -- evaluation, as the strategy that merges does it -------------------------------------------------------------

    def configure_evaluate(
        self, server_round: int, arrays: ArrayRecord, config: ConfigRecord, grid: Grid
    ) -> Iterable[Message]:
        """As the strategy that merges does it."""
        return self.merging.configure_evaluate(server_round, arrays, config, grid)

    def aggregate_evaluate(self, server_round: int, replies: Iterable[Message]) -> MetricRecord | None:
        """As the strategy that merges does it."""
        found = list(replies)
        return self.merging.aggregate_evaluate(server_round, found) if found else None

    # -- what happened, and checkpoints ------------------------------------------------------------------------------

    def events(self) -> list[Event]:
        """What happened since the last call."""
        return self._known.records.take_events()

    def state_dict(self) -> dict[str, Any]:
        """Everything the server knows; terminals keep nothing between rounds."""
        return {
            "settings": self._settings.plain(),
            "known": self._known.state_dict(),
            "merging": strategy_state(self.merging),
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Inverse of `state_dict`.

        Raises:
            ResumeError: it is that of other settings, or of another model; names the argument.
        """
        check_settings(type(self).__name__, state["settings"], self._settings.plain())
        self._forget()
        self._known.load_state_dict(state["known"])
        load_strategy_state(self.merging, state["merging"])
