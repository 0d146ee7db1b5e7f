"""`GradientExchange`: synchronous training in which nodes exchange encoded gradients, not models.

Every node derives a gradient and encodes it, exploiting what nodes have in common; encodings are exchanged; an
aggregate is determined from them; every node's model is updated with it. All models begin equal and stay equal, bit for
bit, so no model travels after the first.

A Flower strategy: one round of Flower's is `steps_per_round` such steps, so that evaluation and run folders keep their
measure. How gradients travel is `ServerForm`'s or `RingForm`'s. Nothing here encodes or averages.

Source: [5] (docs/sources.md), the four steps of its claim; nothing in them prescribes a codec.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from logging import getLogger
from typing import Any, Literal

from flwr.app import ArrayRecord, ConfigRecord, Message, MetricRecord, RecordDict
from flwr.serverapp import Grid
from flwr.serverapp.strategy import Result, Strategy

from flower_edge.codecs.codec import Codec
from flower_edge.codecs.identity import Identity
from flower_edge.errors import ConfigError, ProtocolError
from flower_edge.events import Event
from flower_edge.runtime.gradient_setup import Setup
from flower_edge.runtime.strategy_state import check_settings
from flower_edge.store.run_folder import RunFolder

from ..flat_work import FlatWork
from ..gossip.replies import weighted_metrics
from ..loop import drive
from ..model_digest import model_digest
from .arguments import check_arguments
from .form import Exchanges, Form
from .ring_form import RingForm
from .server_form import ServerForm

__all__ = ["GradientExchange"]

log = getLogger("flwr.edge")


class GradientExchange(Strategy):
    """Distributed SGD whose gradients are encoded.

    Args:
        codec: how gradients become bytes; what it remembers (error feedback) is kept at the node.
        down: how the aggregate becomes bytes on its way back, in the server form; every node and the server apply what
            is decoded. Lossy codecs belong into `ErrorFeedback`, which the server then keeps.
        learning_rate: of every update: a number, or a function of the update's number, from 0 on.
        momentum, weight_decay, nesterov: as in torch.optim.SGD.
        steps_per_round: how many gradients a round of Flower's is.
        form: `server`, or `ring`: nodes pass encodings round among themselves.
        mailbox: of the ring: `relay` (through the server) or `shared-memory` (all nodes on one host).
        frozen: patterns of names of arrays that are not trained, such as a batch norm's running means. They, and
            whatever is no float, stay as they are.
        history: how many of the last aggregates all keep, for codecs that look at them; by default as many as they do.
        fraction_evaluate: of the nodes, from 0 to 1, that evaluate a round's model; it travels whole to each of them.
        step_timeout_s: the most a step may take that is not the last of its round; `start` sets it to its `timeout`.
        arrayrecord_key, configrecord_key, weighted_by_key: as of Flower's strategies. A gradient is the mean over that
            many examples.

    Nodes wear `gradient_mod`. In a round loop of somebody else's, a model that is not the one it returned last is where
    all begin from: velocity and what was public are forgotten, what codecs remember is not.

    Raises:
        ConfigError: arguments that do not fit together.
    """

    #: Its own `start` only adds to the round loop: an edge may run its rounds one at a time.
    by_rounds = True

    def __init__(
        self,
        codec: Codec | None = None,
        *,
        learning_rate: float | Callable[[int], float],
        down: Codec | None = None,
        momentum: float = 0.0,
        weight_decay: float = 0.0,
        nesterov: bool = False,
        steps_per_round: int = 10,
        form: Literal["server", "ring"] = "server",
        mailbox: Literal["relay", "shared-memory"] = "relay",
        frozen: Sequence[str] = (),
        history: int | None = None,
        fraction_evaluate: float = 1.0,
        step_timeout_s: float = 3600.0,
        arrayrecord_key: str = "arrays",
        configrecord_key: str = "config",
        weighted_by_key: str = "num-examples",
    ) -> None:
        check_arguments(
            choices={"form": form, "mailbox": mailbox},
            counts={"steps_per_round": (steps_per_round, 1), "history": (0 if history is None else history, 0)},
            momentum=momentum,
            weight_decay=weight_decay,
            nesterov=nesterov,
            fraction_evaluate=fraction_evaluate,
        )
        if form == "ring" and down is not None:
            raise ConfigError("down= with form='ring': nobody sends an aggregate there; leave one of them out")
        if isinstance(frozen, str):
            raise ConfigError(f"frozen = {frozen!r}: expected patterns; write [{frozen!r}]")
        self.codec, self.down = codec or Identity(), down or Identity()
        if history is None:
            history = max(getattr(one, "public_rounds", 0) for one in (self.codec, self.down))
        self.learning_rate = learning_rate
        self.form, self.mailbox = form, mailbox
        self.steps_per_round, self.fraction_evaluate = steps_per_round, fraction_evaluate
        self.step_timeout_s = step_timeout_s
        self.arrayrecord_key, self.configrecord_key = arrayrecord_key, configrecord_key
        self.weighted_by_key = weighted_by_key
        self._setup = Setup(
            codec=self.codec.config(),
            down=self.down.config(),
            frozen=tuple(frozen),
            momentum=momentum,
            weight_decay=weight_decay,
            nesterov=nesterov,
            history=history,
            weighted_by=weighted_by_key,
        )
        self._forget()

    def _forget(self) -> None:
        """As before the first round."""
        self._given = ""
        self._exchanges: Exchanges | None = None
        self._form: Form = self._new_form()

    def _new_form(self) -> Form:
        if self.form == "server":
            return ServerForm(self._setup, self._rate, self.arrayrecord_key)
        return RingForm(self._setup, self._rate, self.arrayrecord_key, self.mailbox)

    def _rate(self, version: int) -> Any:
        return self.learning_rate(version) if callable(self.learning_rate) else self.learning_rate

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
        """Run `num_rounds` rounds of `steps_per_round` steps. Arguments as Flower's `Strategy.start`; `timeout` is of
        one exchange; `run` and `resume` as of `Layered.start`.

        Raises:
            ConfigError: an option it does not have.
        """
        if options:
            raise ConfigError(
                f"GradientExchange.start got {sorted(options)}; its options beside Flower's are run= and resume="
            )
        self._forget()
        self.step_timeout_s = timeout
        try:
            return drive(
                FlatWork(self),
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
            self.close()

    def close(self) -> None:
        """Remove what a mailbox has left on this host. `start` does so itself."""
        self._form.close()

    def summary(self) -> None:
        """Log the configuration."""
        log.info("\t├──> GradientExchange:")
        log.info("\t│\t├── Codec: %r, down: %r", self.codec, self.down)
        log.info("\t│\t├── Form: %s, %d steps a round", self.form, self.steps_per_round)
        log.info("\t│\t└── SGD: learning rate %r, momentum %g", self.learning_rate, self._setup.momentum)

    # -- a round of training -----------------------------------------------------------------------------------------

    def configure_train(
        self, server_round: int, arrays: ArrayRecord, config: ConfigRecord, grid: Grid
    ) -> Iterable[Message]:
        """Runs all exchanges of the round but the last, and gives the messages of that one.

        Raises:
            NobodyContributed: nothing usable came back in one of them.
        """
        if (given := model_digest(arrays)) != self._given:
            self._form.begin_from(arrays)
            self._given = given
        config["server-round"] = server_round
        self._exchanges = self._form.round(grid, self.steps_per_round, {self.configrecord_key: config})
        messages, last = next(self._exchanges)
        while not last:
            replies = list(grid.send_and_receive(messages, timeout=self.step_timeout_s))
            messages, last = self._exchanges.send(replies)
        return messages

    def aggregate_train(
        self, server_round: int, replies: Iterable[Message]
    ) -> tuple[ArrayRecord | None, MetricRecord | None]:
        """The model that all have now, and what the round was like."""
        if self._exchanges is None:
            raise ProtocolError("aggregate_train before configure_train: GradientExchange knows no model yet")
        exchanges, self._exchanges = self._exchanges, None
        try:
            exchanges.send(list(replies))
        except StopIteration:
            pass
        else:
            raise ProtocolError("a round of gradient exchanges went on after its last messages")
        model = self._form.model()
        if model is not None:
            self._given = model_digest(model)
        return model, MetricRecord({**self._form.figures.take(), **self._form.metrics()})

    # -- evaluation --------------------------------------------------------------------------------------------------

    def configure_evaluate(
        self, server_round: int, arrays: ArrayRecord, config: ConfigRecord, grid: Grid
    ) -> Iterable[Message]:
        """The model to as many nodes as are to evaluate it, those with the lowest numbers."""
        if self.fraction_evaluate == 0.0:
            return []
        config["server-round"] = server_round
        nodes = list(self._form.members.present(grid).values())
        content = RecordDict({self.arrayrecord_key: arrays, self.configrecord_key: config})
        return [
            Message(content, node, "evaluate") for node in nodes[: max(1, round(self.fraction_evaluate * len(nodes)))]
        ]

    def aggregate_evaluate(self, server_round: int, replies: Iterable[Message]) -> MetricRecord | None:
        """Nodes' metrics, weighted by their examples."""
        good = [reply for reply in replies if not reply.has_error()]
        return MetricRecord(dict(weighted_metrics(good, self.weighted_by_key))) if good else None

    # -- what happened, and checkpoints ------------------------------------------------------------------------------

    def events(self) -> list[Event]:
        """What happened since the last call."""
        return self._form.take_events()

    def state_dict(self) -> dict[str, Any]:
        """Everything the server knows; nodes keep their own models and what their codecs remember."""
        return {"settings": self._settings(), "given": self._given, "form": self._form.state_dict()}

    def _settings(self) -> dict[str, Any]:
        """What a checkpoint must have been made with."""
        return {
            "form": self.form,
            "codec": json.dumps(self._setup.codec),
            "down": json.dumps(self._setup.down),
            "frozen": list(self._setup.frozen),
            "momentum": self._setup.momentum,
            "weight_decay": self._setup.weight_decay,
            "nesterov": self._setup.nesterov,
            "history": self._setup.history,
            "weighted_by": self._setup.weighted_by,
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Inverse of `state_dict`.

        Raises:
            ResumeError: it is that of another kind of exchange; names the argument.
        """
        check_settings(type(self).__name__, state["settings"], self._settings())
        self._forget()
        self._given = str(state["given"])
        self._form.load_state_dict(state["form"])
