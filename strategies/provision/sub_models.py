"""`SubModels`: every terminal trains as wide and as deep a model as it can, and all of them make one.

A strategy around a strategy: the one inside samples, sends and merges whole models, and never sees a smaller one. What
leaves is cut to each node's size, and what comes back is put together by coordinate and handed in as one reply, so a
server optimiser works on it as on any mean. Where every node has the whole model, replies go in as they came.

What the parts are is in `slicing`; who decides a change within a round is `changing`; pieces of one model over several
terminals are not here. Sources: Diao, Ding, Tarokh, "HeteroFL", ICLR 2021; Horvath et al., "FjORD", NeurIPS 2021; Alam
et al., "FedRolex", NeurIPS 2022; Kim et al., "DepthFL", ICLR 2023; [4] ¶17-26, 58-59.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from logging import getLogger
from typing import Any, ClassVar, Literal

from flwr.app import ArrayRecord, ConfigRecord, Message, MetricRecord
from flwr.serverapp import Grid
from flwr.serverapp.strategy import FedAvgM, Strategy

from flower_edge.errors import ConfigError, NestingError, WireError
from flower_edge.events import Event
from flower_edge.rounds import Round
from flower_edge.runtime.error_codes import REFUSED
from flower_edge.runtime.flower_private import error_in_place
from flower_edge.runtime.steps.messages import request_of
from flower_edge.runtime.strategy_state import check_settings, go_on_from, load_strategy_state, strategy_state
from flower_edge.submodels.choices import check_rate, drawn_rate
from flower_edge.submodels.groups import WidthGroups
from flower_edge.submodels.order import HOW, SUBMODEL_RECORD, SubmodelOrder
from flower_edge.submodels.sizes import Depths, Size
from flower_edge.updates.manifest import Manifest
from flower_edge.updates.update import Arrays, Update
from flower_edge.wire import copy_content, model_spec, weight_of

from ..arguments import check_choices
from ..filtering.reply_updates import read_update
from ..filtering.sent import Sent
from ..node_rows import key_of, rows_of
from .around import Around
from .assigning import Assign, size_of
from .class_rows import ClassRows
from .merging import as_one, check_means
from .node_sizes import NodeSizes
from .sent_parts import SentParts
from .slicing import Slicer, is_all_of, views
from .stepping import To, asked_of, reason_of

__all__ = ["SubModels"]

log = getLogger("flwr.edge")


class SubModels(Around):
    """Gives every node a model of its own size and merges them by coordinate.

    Args:
        strategy: merges whole models by weighted mean: FedAvg, FedProx, FedAvgM, FedAdam, FedAdagrad, FedYogi, or one
            of your own.
        groups: of the whole model: `width_groups(model, example)`, or `mlp_groups(sizes)`; `None` where only the depth
            differs.
        assign: a node's rate, the share of channels it can train, or its `Size(rate, depth)`: one for all, a mapping by
            node key, a function such as `rate_by_property`.
        depths: which arrays each depth of the model has: `model.depths()` of a model with exits.
        sizes: a ladder, the largest first. A terminal that asks for a `smaller-model` or a `larger-model` is given the
            next one from the next round on, and within the round with `ChangeSize`; what `assign` gives is the most it
            can have. `None`: requests are told and change nothing.
        how: `heterofl` gives the first channels. `fjord` gives the first too, by a rate drawn for each node and round
            from those of `rates` up to the assigned one. `fedrolex` gives a window that moves on by a channel a round.
        rates: those that `fjord` draws from.
        scaler: whether narrow layers divide their outputs by the rate in training. `None`: not for `fjord`.
        static_norm: whether BatchNorm leaves its running statistics alone in training; `with_statistics` takes them at
            the end.
        class_rows: arrays with a row per class, those of the last layer. A row is merged over the nodes that have its
            class, where they say so: `with_classes(content, y)`. One that says nothing has a say in all of them.
        evaluate: nodes evaluate what they would train (`assigned`), or the `whole` model.
        seed: of what `fjord` draws.

    Raises:
        ConfigError: an argument out of its range.
        NestingError: a strategy that looks at single replies.

    A reply that is not of the shapes its node was sent is left out, with a warning and an event. Clients write
    `model = submodel(message, model)`. At an edge: `Hierarchical(edge=lambda cell: SubModels(...), ...)`.

    >>> from flwr.serverapp.strategy import FedAvg, Krum
    >>> from flower_edge.submodels.mlp import mlp_groups
    >>> SubModels(FedAvg(), mlp_groups([64, 32, 10]), assign={"0": 1.0, "1": 0.5})
    SubModels(FedAvg, how='heterofl', groups=1)
    >>> SubModels(Krum(), mlp_groups([64, 32, 10]), assign=0.5)
    Traceback (most recent call last):
    ...
    flower_edge.errors.NestingError: SubModels around Krum, which looks at single replies of one shape; take a \
strategy of weighted means such as FedAvg or FedAdam, and layers around it: Layered(SubModels(FedAvg(), ...), layers)
    """

    #: Why `Hierarchical(centre=...)` refuses it.
    not_at_the_centre: ClassVar[str] = (
        "would give whole cells a size; put it where terminals are asked: "
        "Hierarchical(edge=lambda cell: SubModels(FedAvg(), ...), ...)"
    )

    def __init__(
        self,
        strategy: Strategy,
        groups: WidthGroups | None,
        *,
        assign: Assign,
        depths: Depths | None = None,
        sizes: Sequence[float | Size] | None = None,
        how: Literal["heterofl", "fjord", "fedrolex"] = "heterofl",
        rates: Sequence[float] = (1.0, 0.5, 0.25, 0.125, 0.0625),
        scaler: bool | None = None,
        static_norm: bool = True,
        class_rows: Sequence[str] = (),
        evaluate: Literal["assigned", "whole"] = "assigned",
        seed: int = 0,
    ) -> None:
        if not isinstance(strategy, Strategy):
            raise ConfigError(f"{strategy!r} is not a Flower strategy; the first argument of SubModels is one")
        check_means(strategy)
        check_choices({"how": how, "evaluate": evaluate}, {"how": HOW, "evaluate": ("assigned", "whole")})
        self._slicer = Slicer(groups, depths, how)
        if not callable(assign) and not isinstance(assign, Mapping):
            self._slicer.checked(Size.of(assign, "assign"), "assign")
        if not rates:
            raise ConfigError("rates is empty: expected rates such as (1.0, 0.5)")
        if type(seed) is not int or seed < 0:
            raise ConfigError(f"seed = {seed!r}: expected a whole number, 0 or more")
        # Not `.strategy`, by which wrappers are looked through: replies are not of the shapes that is used to.
        self.inner = strategy
        self.groups, self.depths, self.assign = groups, depths, assign
        self.how, self.evaluate, self.seed = how, evaluate, seed
        self.rates = tuple(check_rate(rate, "rates") for rate in rates)
        self.scaler, self.static_norm = how != "fjord" if scaler is None else scaler, static_norm
        self._class_rows = ClassRows.of(class_rows)
        self._sizes = NodeSizes([self._slicer.checked(Size.of(size, "sizes"), "sizes") for size in sizes or ()])
        self._round = 0
        self._parts = SentParts()
        self._models: dict[int, tuple[str, ArrayRecord]] = {}  # by node, the whole one its message would have brought
        self._base: Arrays = {}

    # -- out ---------------------------------------------------------------------------------------------------------

    def configure_train(
        self, server_round: int, arrays: ArrayRecord, config: ConfigRecord, grid: Grid
    ) -> Iterable[Message]:
        """The messages of the strategy inside, each with its node's part of the model."""
        self._slicer.check(arrays)
        self._class_rows.check(arrays)
        if isinstance(self.inner, FedAvgM):
            go_on_from(self.inner, arrays)
        self._base, self._round = views(arrays), server_round
        self._parts.opened(self._base)
        messages = list(self.inner.configure_train(server_round, arrays, config, grid))
        self._models = {message.metadata.dst_node_id: self._model_in(message) for message in messages}
        self._parts.sent = self._sliced(messages, server_round, grid, told=True)
        return messages

    def configure_evaluate(
        self, server_round: int, arrays: ArrayRecord, config: ConfigRecord, grid: Grid
    ) -> Iterable[Message]:
        """As for training; with `evaluate="whole"` those of the strategy inside."""
        messages = list(self.inner.configure_evaluate(server_round, arrays, config, grid))
        if self.evaluate == "assigned":
            self._slicer.check(arrays)
            self._sliced(messages, server_round, grid, told=False)
        return messages

    def manifest_of(self, round: Round, key: str, sent: ArrayRecord) -> Manifest:
        """What the node with this key sends back: `Admitted(manifest=strategy.manifest_of)`, and `Filtered`'s.

        Where a node's model was changed within the round it is the part with the shapes that are shown; where none has
        them, the last one. A node that was sent nothing sends back what it is shown.
        """
        return self._parts.manifest_of(key, model_spec(sent))

    def _sliced(self, messages: list[Message], number: int, grid: Grid, *, told: bool) -> list[Sent]:
        """Cut each message in place to what its node can train; what was sent."""
        rows = rows_of(grid, [message.metadata.dst_node_id for message in messages], ask=False)
        parts: dict[tuple[int, Size], tuple[ArrayRecord, Manifest]] = {}
        out: list[Sent] = []
        for message in messages:
            node = message.metadata.dst_node_id
            key = key_of(grid, node)
            assigned = self._slicer.checked(size_of(self.assign, number, key, rows[node]), f"the size of node {key}")
            size = self._sizes.assign(key, assigned) if told else self._sizes.of(key, assigned)
            name, record = self._model_in(message)
            drawn = self._drawn(key, size, number)
            if (id(record), drawn) not in parts:
                parts[id(record), drawn] = self._slicer.part(record, drawn, number)
            part, manifest = parts[id(record), drawn]
            content = copy_content(message.content)
            content[name] = part
            content[SUBMODEL_RECORD] = self._order(drawn, number)
            message.content = content
            out.append(Sent(message.metadata, key, False, self._base, manifest))
        return out

    def _model_in(self, message: Message) -> tuple[str, ArrayRecord]:
        records = dict(message.content.array_records.items())
        if len(records) != 1:
            raise NestingError(
                f"{type(self.inner).__name__} sends {len(records)} records of arrays; SubModels slices one model"
            )
        return next(iter(records.items()))

    def _drawn(self, key: str, size: Size, number: int) -> Size:
        if self.how != "fjord":
            return size
        return replace(size, rate=drawn_rate(size.rate, self.rates, self.seed, number, key))

    def _order(self, size: Size, number: int) -> ConfigRecord:
        order = SubmodelOrder(size.rate, self.how, number, self.scaler, self.static_norm, size.depth)
        return ConfigRecord(order.to_values())

    # -- change ------------------------------------------------------------------------------------------------------

    def change(self, node_id: int, to: To, why: str, *, step: int) -> dict[str, ArrayRecord | ConfigRecord] | None:
        """Give a node another size from now on, within the round and for those to come; `ChangeSize` calls it.

        Args:
            node_id: one that was sent a model in this round.
            to: `smaller` or `larger` on the ladder, or a size; more than the node is assigned is what it is assigned.
            why: for the event.
            step: of the node's task, at which it goes on.

        Returns:
            The records it goes on with, cut from the model the round began with: for `Renew`. `None` where it has no
            other size than before, or was sent nothing.
        """
        sent = self._parts.of_node(node_id)
        if sent is None:
            log.info("node %s asks for another model (%s), and was sent none in this round", node_id, why)
            return None
        if not isinstance(to, str):
            to = self._slicer.checked(Size.of(to), f"a change of node {sent.key}")
        size = self._sizes.change(sent.key, to, why, step=step)
        if size is None:
            return None
        drawn, (name, record) = self._drawn(sent.key, size, self._round), self._models[node_id]
        part, manifest = self._slicer.part(record, drawn, self._round)
        self._parts.renew(sent, step, manifest)
        return {name: part, SUBMODEL_RECORD: self._order(drawn, self._round)}

    # -- in ----------------------------------------------------------------------------------------------------------

    def aggregate_train(
        self, server_round: int, replies: Iterable[Message]
    ) -> tuple[ArrayRecord | None, MetricRecord | None]:
        """The whole model that the strategy inside makes of all replies, and its metrics of each of them."""
        came = list(replies)
        key = self.weighted_by_key
        good: list[tuple[Message, Update]] = []
        given: list[Message] = []
        answers = self._parts.answered(came, rolls=self.how == "fedrolex")
        for reply, sent in zip(came, answers, strict=True):
            read = ("failed", "") if reply.has_error() else self._read(reply, sent, key)
            if isinstance(read, Update):
                good.append((reply, read))
                given.append(reply)
                if sent is not None and sent.metadata.dst_node_id == reply.metadata.src_node_id:
                    self._heed(reply, read.node)  # a substitute asks for itself
            elif reply.has_error():
                given.append(reply)
            else:
                given.append(self._refused(reply, read))
        if good and not any(update.weight for _, update in good):
            given = [r if r.has_error() else self._refused(r, (key, f"all replies weigh {key} = 0")) for r in given]
            good = []
        if not good or all(is_all_of(update.manifest, self._base) for _, update in good):
            # Bit for bit what the strategy alone would make.
            return self.inner.aggregate_train(server_round, given)
        contents = [reply.content for reply, _ in good]
        aggregate: Any = getattr(self.inner, "train_metrics_aggr_fn", None)
        metrics = None if aggregate is None else aggregate(contents, key)
        one = as_one(
            [reply for reply, _ in good], [update for _, update in good], self._base, key, metrics or MetricRecord()
        )
        arrays, alone = self.inner.aggregate_train(server_round, [one, *(r for r in given if r.has_error())])
        return arrays, alone if metrics is None else metrics

    def aggregate_evaluate(self, server_round: int, replies: Iterable[Message]) -> MetricRecord | None:
        """That of the strategy inside."""
        return self.inner.aggregate_evaluate(server_round, replies)

    def _read(self, reply: Message, sent: Sent | None, key: str) -> Update | tuple[str, str]:
        if sent is None:
            return "unasked", "nothing like it was sent in this round"
        if (told := len(reply.content.metric_records)) != 1:
            return "metrics", f"{told} records of metrics came back; expected one"
        try:
            weight = weight_of(reply, key)
        except WireError as error:
            return key, str(error)
        read = read_update(reply, sent, key)
        if isinstance(read, Update):
            return self._class_rows.read(reply, replace(read, weight=weight))
        return read or ("no-arrays", "no arrays came back")

    def _heed(self, reply: Message, key: str) -> None:
        # Of a task in slices only what came with the last one: `ChangeSize` has heard the others already.
        request = request_of(reply)
        to = asked_of(request)
        if request is not None and to is not None:
            self._sizes.change(key, to, reason_of(request))

    def _refused(self, reply: Message, why: tuple[str, str]) -> Message:
        node = reply.metadata.src_node_id
        name = self._parts.name_of(node)
        log.warning("\tnode %s: its reply is left out: %s", name, why[1])
        self._sizes.tell(Event("refused", f"a reply of {name}: {why[1]}", node=name, values={"code": why[0]}))
        return error_in_place(reply, REFUSED, f"not the sub-model it was given: {why[1]}")

    # -- records -----------------------------------------------------------------------------------------------------

    def events(self) -> list[Event]:
        """Whose size has changed, who asked in vain, and whose replies were left out, since the last call."""
        return self._sizes.events()

    def assigned(self) -> dict[str, Size]:
        """The size of every node that was asked, by its key, with the changes since."""
        return self._sizes.now()

    def state_dict(self) -> dict[str, Any]:
        """State of the strategy inside, and who has which size; what was sent is sent anew after a checkpoint."""
        return {"settings": self._settings(), "inner": strategy_state(self.inner), "nodes": self._sizes.to_tree()}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Inverse of `state_dict`.

        Raises:
            ResumeError: the checkpoint is one of other sizes.
        """
        check_settings("SubModels", state["settings"], self._settings())
        load_strategy_state(self.inner, state["inner"])
        self._sizes.load(state["nodes"])

    def _settings(self) -> dict[str, Any]:
        return {
            "how": self.how,
            "seed": self.seed,
            "sizes": {} if self.groups is None else dict(self.groups.sizes),
            "depths": 0 if self.depths is None else self.depths.last,
            "class_rows": list(self._class_rows.names),
            "ladder": [[size.rate, size.depth] for size in self._sizes.ladder],
        }

    def summary(self) -> None:
        """Log what is around the strategy inside, and that."""
        log.info("\t├──> %r", self)
        self.inner.summary()

    def __repr__(self) -> str:
        groups = 0 if self.groups is None else len(self.groups.sizes)
        depths = "" if self.depths is None else f", depths={self.depths.last}"
        return f"SubModels({type(self.inner).__name__}, how={self.how!r}, groups={groups}{depths})"
