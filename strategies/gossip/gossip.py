"""`Gossip`: nodes exchange models with their neighbours; a controller says over which links, with which weights.

A Flower strategy whose rounds are gossip rounds: every worker mixes its neighbours' models with its own, trains, and
posts what came of it. The server relays packets, or lets a mailbox do it, watches how long nodes and links took, and
re-optimises weights and bandwidth for the next round. The mean of the workers' models is what it hands to the round
loop: for evaluation, for the final result, and for the centre where a cell of `Hierarchical` gossips.

What a round does to the numbers is `Group`'s, what a worker does the `gossip_mod`'s. Nothing here computes weights.

Source: [1] (docs/sources.md), FIGS. 3A, 12 to 14.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from logging import getLogger
from typing import Any, Literal

import numpy.typing as npt
from flwr.app import ArrayRecord, ConfigRecord, Message, MetricRecord
from flwr.serverapp import Grid
from flwr.serverapp.strategy import Result, Strategy

from flower_edge.codecs.codec import Codec
from flower_edge.codecs.delta import Delta
from flower_edge.codecs.identity import Identity
from flower_edge.control.baselines import Equal
from flower_edge.control.controller import Controller
from flower_edge.errors import ConfigError, ProtocolError
from flower_edge.events import Event
from flower_edge.monitoring.links import Link
from flower_edge.runtime.abilities import now_s, wait_until
from flower_edge.runtime.strategy_state import check_settings
from flower_edge.store.run_folder import RunFolder
from flower_edge.topology.topology import Topology
from flower_edge.topology.world import World
from flower_edge.wire import arrays_of, model_spec, record_of

from ..model_digest import model_digest
from .arguments import check_arguments, check_codec, check_grid, check_options
from .averaging import Averaging
from .direct import Direct
from .evaluation import evaluate_messages, evaluation_metrics
from .figures import figures, links_told
from .founder import Founder
from .group import Group
from .initial import Initial
from .mean_model import MeanModel
from .orders import train_message
from .post import Post
from .progress import Progress
from .replies import read_replies, weighted_metrics
from .rounds import drive_gossip
from .signalling import make_signalling

__all__ = ["Gossip"]

log = getLogger("flwr.edge")

Arrays = Mapping[str, npt.NDArray[Any]]


class Gossip(Strategy):
    """Decentralised training over a network whose weights and bandwidth follow the stragglers.

    Args:
        controller: chooses weights and bandwidth each round; `Equal()` by default, see docs/controllers.md.
        world: what links carry and how fast nodes are, where that is modelled: a `RadioWorld`. Its node i is the
            worker with partition-id i.
        topology: the links there are, where it is measured instead: by the mailbox (links) and the workers (time to
            train). One of the two; without either, everybody can hear everybody.
        workers: chooses the workers among the nodes of the Grid, see `MostStable`; all by default. More may come, and
            a worker that has been away for `away_rounds` rounds is given up: the environment is then defined anew.
            Where all begin from one model, as in each round of a centre, one round away is enough.
        initial: rows to begin with: `equal`, `static`, `drawn`, or a function of a `Start`.
        signalling: `rows` (the server computes and sends them), or, with a `Dcent` controller, `requirements` or
            `scalars`, where workers determine their own rows.
        mailbox: `relay` (through the server), `shared-memory` (all workers on one host) or `direct` (from host to host,
            by the agents beside the workers; `Direct(...)` for its settings).
        codec: how models become packets; `Identity()` by default, `Delta(...)` to tell what has changed, see
            docs/gossip_codecs.md. Packets of changes return to the server in every round.
        staleness: rounds by which a packet may be older than with a barrier; 0 waits for everybody.
        payload_bits: what a packet is taken to weigh on its link, to study a larger model than the one that is trained;
            by default the bytes that are really posted.
        dataset: what a worker is given to train on, by number: arrays that its train function finds in
            `message.content["data"]`. By default it has data of its own.
        final: the model a run ends with: `server` (the mean the server forms of the last round's models), `averaging`
            (workers average among themselves until they agree to `averaged_to`), or `local` (each keeps and uses its
            own, see `flower_edge.clients.own_model`; for the end's sake no model travels, and the result is the last
            mean there was). This and the next act where `Gossip` is started itself; the end of a cell's run is the
            centre's affair.
        converged_below: stop when no worker's model is further than this from a neighbour's (mean squared difference
            per parameter).
        evaluate: `own` lets every worker evaluate its own model, `mean` the mean model.
        fraction_evaluate: of the workers, from 0 to 1; those with the lowest numbers.
        evaluate_every: rounds between two evaluations. The last round of a run that `start` was told the length of
            ends with one, too.
        watch: number of a worker whose metrics are recorded by themselves, too: `<metric>_watched`.
        mean_every: rounds between two means where packets do not pass through the server anyway.
        away_rounds: see `workers`.
        seed: of `drawn` rows.
        arrayrecord_key, configrecord_key, weighted_by_key: as of Flower's strategies.

    In a round loop the model handed to `configure_train` is either the mean it returned last: then workers go on from
    their own models. Or it is another one (the first, or what a centre made of several cells): then all begin from it.

    Raises:
        ConfigError: arguments that do not fit together.
    """

    #: Its own `start` only adds to the round loop: an edge may run its rounds one at a time.
    by_rounds = True

    def __init__(
        self,
        controller: Controller | None = None,
        *,
        world: World | None = None,
        topology: Topology | None = None,
        workers: Callable[[Grid, Sequence[int]], list[int]] | None = None,
        initial: Initial = "equal",
        signalling: Literal["rows", "requirements", "scalars"] = "rows",
        mailbox: Literal["relay", "shared-memory", "direct"] | Direct = "relay",
        codec: Codec | None = None,
        staleness: int = 0,
        payload_bits: float | None = None,
        dataset: Callable[[int], Arrays] | None = None,
        final: Literal["server", "averaging", "local"] = "server",
        averaged_to: float = 1e-3,
        converged_below: float | None = None,
        evaluate: Literal["own", "mean"] = "own",
        fraction_evaluate: float = 1.0,
        evaluate_every: int = 1,
        watch: int | None = None,
        mean_every: int = 1,
        away_rounds: int = 5,
        seed: int = 0,
        arrayrecord_key: str = "arrays",
        configrecord_key: str = "config",
        weighted_by_key: str = "num-examples",
    ) -> None:
        self._direct = mailbox if isinstance(mailbox, Direct) else None
        mailbox = "direct" if isinstance(mailbox, Direct) else mailbox
        check_arguments(
            choices={"signalling": signalling, "mailbox": mailbox, "final": final, "evaluate": evaluate},
            counts={
                "staleness": (staleness, 0),
                "evaluate_every": (evaluate_every, 1),
                "watch": (0 if watch is None else watch, 0),
                "mean_every": (mean_every, 1),
                "away_rounds": (away_rounds, 1),
            },
            amounts={"payload_bits": payload_bits, "converged_below": converged_below},
            averaged_to=averaged_to,
            fraction_evaluate=fraction_evaluate,
            initial=initial,
        )
        if world is not None and topology is not None:
            raise ConfigError("world= and topology=: a world brings its own topology; leave one of them out")
        if signalling != "rows" and staleness:
            raise ConfigError(
                f"signalling={signalling!r} with staleness={staleness}: workers that determine their own rows need all "
                "of a round's delays; use signalling='rows'"
            )
        self.controller: Controller = Equal() if controller is None else controller
        self.world, self.topology = world, topology
        self.workers, self.initial, self.seed = workers, initial, seed
        self.signalling, self.mailbox, self.codec = signalling, mailbox, codec or Identity()
        self.staleness, self.payload_bits, self.dataset = staleness, payload_bits, dataset
        self.final, self.averaged_to, self.converged_below = final, averaged_to, converged_below
        self.evaluate, self.fraction_evaluate = evaluate, fraction_evaluate
        self.evaluate_every, self.watch = evaluate_every, watch
        self.mean_every, self.away_rounds = mean_every, away_rounds
        self.arrayrecord_key, self.configrecord_key = arrayrecord_key, configrecord_key
        self.weighted_by_key = weighted_by_key
        check_codec(self.codec)
        make_signalling(signalling, self.controller)
        self._last: int | None = None
        self._forget()

    def _forget(self) -> None:
        """As before the first round."""
        self._group: Group | None = None
        self._resumed: Mapping[str, Any] | None = None
        self._progress = Progress()
        self._like: dict[str, npt.NDArray[Any]] = {}
        self._grid: Grid | None = None
        self.averaging: Averaging | None = None
        self._post = Post(self.mailbox, direct=self._direct)

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
        """Run `num_rounds` rounds, or until the models have converged. Arguments as Flower's `Strategy.start`.

        `run` and `resume` as of `Layered.start`. It has no `idle_s`: a round in which nobody is there takes no time.

        Raises:
            ConfigError: an option it does not have, or arguments that do not fit the workers there are.
        """
        check_options(options)
        self._forget()
        self._last = num_rounds
        try:
            return drive_gossip(
                self,
                grid,
                initial_arrays,
                num_rounds,
                timeout,
                train_config,
                evaluate_config,
                evaluate_fn,
                run=run,
                resume=resume,
            )
        finally:
            self._last = None
            self.close()

    def close(self) -> None:
        """Remove what a mailbox has left on this host. `start` does so itself."""
        self._post.close()

    def summary(self) -> None:
        """Log the configuration."""
        log.info("\t├──> Gossip:")
        log.info("\t│\t├── Controller: %r", self.controller)
        log.info("\t│\t├── World: %s", "measured" if self.world is None else type(self.world).__name__)
        log.info("\t│\t├── Signalling: %s, mailbox: %s, codec: %r", self.signalling, self.mailbox, self.codec)
        log.info("\t│\t└── Staleness: %d, final model: %s", self.staleness, self.final)

    def know(self, arrays: ArrayRecord) -> None:
        """Which model it is that is mixed."""
        self._like = arrays_of(arrays)

    @property
    def begun(self) -> bool:
        """Whether there is a group, or one of a checkpoint to go on with."""
        return self._group is not None or self._resumed is not None

    @property
    def group(self) -> Group | None:
        """What the server knows of its workers; None before the first round."""
        return self._group

    # -- a round of training -----------------------------------------------------------------------------------------

    def configure_train(
        self, server_round: int, arrays: ArrayRecord, config: ConfigRecord, grid: Grid
    ) -> Iterable[Message]:
        """One message per worker that is there."""
        check_grid(grid, self.staleness)
        self._grid = grid
        present = list(grid.get_node_ids())
        self.know(arrays)
        given = model_digest(arrays)
        afresh = given != self._progress.given
        group = self.defined(grid, present, server_round, afresh=afresh)
        if afresh or group.common:
            group.begin_afresh(self._like)
        self._progress.given = given
        if self.averaging is None:
            group.foresee(server_round, group.start.payload_bits if group.seen is None else group.seen.payload_bits)
        group.timing = group.timing.not_before(now_s(grid))
        config["server-round"] = server_round
        there, codec, mailbox = set(present), json.dumps(self.codec.config()), self._mailbox_config(grid)
        messages: list[Message] = []
        group.plan({i for node, i in group.env.index.items() if node in there})
        if self._post.direct is not None:
            self._post.direct.prepare(grid, group, server_round, present)
        for node, i in group.env.index.items():
            if node not in there:
                continue
            order = group.order(
                i,
                server_round,
                fresh=i in group.fresh,
                train=self.averaging is None,
                returns_packet=self._packets_return(server_round),
                codec=codec,
                mailbox=mailbox,
            )
            if self._post.direct is not None:
                order = replace(order, mailbox=json.dumps(self._post.direct.config(group, i, order)))
            message = train_message(
                group,
                node,
                order,
                config={self.configrecord_key: config},
                model={self.arrayrecord_key: arrays},
                relays=self.mailbox == "relay",
                dataset=None if order.index in self._progress.handed_out else self.dataset,
            )
            messages.append(message)
        return messages

    def _mailbox_config(self, grid: Grid) -> str:
        return "" if self._post.direct is not None else json.dumps(self._post.config(grid))

    def _packets_return(self, server_round: int) -> bool:
        if self.mailbox == "relay" or self.averaging is not None or isinstance(self.codec, Delta):
            return True
        return server_round % self.mean_every == 0 or (self.final == "server" and server_round == self._last)

    def aggregate_train(
        self, server_round: int, replies: Iterable[Message]
    ) -> tuple[ArrayRecord | None, MetricRecord | None]:
        """The mean of the workers' models, and what the round was like; the control of the next round is decided."""
        group = self._group
        if group is None or self._grid is None:
            raise ProtocolError("aggregate_train before configure_train: Gossip knows no workers yet")
        came = read_replies(group, self._grid, replies, server_round)
        if not came.heard:
            group.nobody()
            return None, None
        links_before = group.control.in_use
        mean = MeanModel(model_spec(record_of(self._like)))
        for i, one in came.heard.items():
            if one.packet is not None:
                model = group.take(i, server_round, one.packet, self._like, relayed=self.mailbox == "relay")
                if model is not None:
                    mean.add(model)
        seen, in_force = group.after(server_round, came.heard)
        wait_until(self._grid, group.timing.now_s)
        noted = self._progress.note(group, came, now_s(self._grid))
        self._progress.decided(group, links_before, now_s(self._grid))
        metrics: dict[str, Any] = {
            **weighted_metrics(came.trained, self.weighted_by_key),
            **figures(group, seen, in_force),
            **noted,
            **(group.traffic() if self.mailbox == "relay" else {}),
        }
        self._progress.mean_is_new = mean.count > 0
        if not mean.count:
            return None, MetricRecord(metrics)
        record = mean.record()
        self._progress.given = model_digest(record)
        return record, MetricRecord(metrics)

    # -- evaluation --------------------------------------------------------------------------------------------------

    def configure_evaluate(
        self, server_round: int, arrays: ArrayRecord, config: ConfigRecord, grid: Grid
    ) -> Iterable[Message]:
        """One message per worker that evaluates its own model, or the mean, in rounds in which there is one."""
        due = server_round % self.evaluate_every == 0 or server_round == self._last
        if self._group is None or self.fraction_evaluate == 0.0 or not due:
            return []
        config["server-round"] = server_round
        record = {self.arrayrecord_key: arrays} if self.evaluate == "mean" else {}
        return evaluate_messages(
            self._group, grid, server_round, {self.configrecord_key: config, **record}, self.fraction_evaluate
        )

    def aggregate_evaluate(self, server_round: int, replies: Iterable[Message]) -> MetricRecord | None:
        """Workers' metrics weighted by their examples; of an accuracy also the worst, and the watched worker's."""
        good = [reply for reply in replies if not reply.has_error()]
        if not good or self._group is None:
            return None
        return MetricRecord(evaluation_metrics(self._group, good, self.weighted_by_key, self.watch))

    # -- the environment ---------------------------------------------------------------------------------------------

    def defined(self, grid: Grid, present: Sequence[int], server_round: int, *, afresh: bool = False) -> Group:
        """The group as it is now, of the nodes that are on the Grid; `afresh` where all begin from one model now."""
        founder = Founder.of(self)
        group = self._group
        if group is None:
            saved, self._resumed = self._resumed, None
            begin_s = now_s(grid) or 0.0
            self._group = founder.first(grid, present, server_round, begin_s, self._like, saved)
            if saved is None:
                self._progress.watching(self._group, self.watch, founder.membership.places, now_s(grid))
                return self._group
            # Who is there now need not be who was there in the checkpoint's round: a selection may have chosen others.
            group = self._group
        group.env = group.env.attached(grid, present)
        if self.averaging is not None:
            return group
        new = founder.anew(group, grid, present, server_round, now_s(grid), self._like, afresh=afresh)
        if new is None:
            return group
        self._progress.defined_anew(new, now_s(grid))
        self._group = new
        return new

    # -- what happened -----------------------------------------------------------------------------------------------

    @property
    def distance(self) -> float:
        """How far apart neighbours' models were in the last round: the largest mean squared difference."""
        return self._progress.distance

    def converged(self) -> str | None:
        """Why the models count as converged, or None."""
        if self.converged_below is None or not self.distance < self.converged_below:
            return None
        if self.final == "server" and not self._progress.mean_is_new:
            return None  # the next round with a mean is the end: what the run gives is what the models have come to
        return f"no worker's model is further than {self.distance:.3g} from a neighbour's, {self.converged_below:g} do"

    def events(self) -> list[Event]:
        """What happened since the last call."""
        return self._progress.take()

    def links(self) -> tuple[Link, ...]:
        """Links in use with what they carry and take, as of the last round."""
        return () if self._group is None else links_told(self._group)

    # -- checkpoints -------------------------------------------------------------------------------------------------

    def state_dict(self) -> dict[str, Any]:
        """Everything the server knows; workers keep their own models."""
        group: Any = self._group.state_dict() if self._group is not None else self._resumed
        return {
            "settings": self._settings(),
            "group": group,
            **self._progress.state_dict(),
            "letters": self._post.letters(),
        }

    def _settings(self) -> dict[str, Any]:
        """What a checkpoint must have been made with."""
        return {
            "controller": type(self.controller).__name__,
            "signalling": self.signalling,
            "mailbox": self.mailbox,
            "codec": json.dumps(self.codec.config()),
            "staleness": self.staleness,
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Inverse of `state_dict`; workers are found again by their `partition-id`, or their order.

        Raises:
            ResumeError: it is that of another kind of gossip; names the argument.
        """
        check_settings(type(self).__name__, state["settings"], self._settings())
        self._forget()
        self._resumed = state["group"]
        self._progress = Progress.from_state(state)
        self._post = Post(self.mailbox, state["letters"], self._direct)
