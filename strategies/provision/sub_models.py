"""`SubModels`: every terminal trains as wide a model as it can, and all of them make one.

A strategy around a strategy: the one inside samples, sends and merges whole models, and never sees a narrow one. What
leaves is sliced to each node's width, and what comes back is put together by coordinate and handed in as one reply, so
a server optimiser works on it as on any mean. Where every node has the whole model, replies go in as they came.

Width only: the depth of a model, its change in mid-round, and pieces of it are not here. Sources: Diao, Ding, Tarokh,
"HeteroFL", ICLR 2021; Horvath et al., "FjORD", NeurIPS 2021; Alam et al., "FedRolex", NeurIPS 2022; [4] ¶17-26.
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
from flower_edge.runtime.strategy_state import check_settings, go_on_from, load_strategy_state, strategy_state
from flower_edge.submodels.choices import check_rate, drawn_rate, prefix, rolling
from flower_edge.submodels.groups import WidthGroups, index_of
from flower_edge.submodels.order import HOW, SUBMODEL_RECORD, SubmodelOrder
from flower_edge.updates.manifest import Manifest, part_manifest, whole_manifest
from flower_edge.updates.npy import npy_view
from flower_edge.updates.places import brackets
from flower_edge.updates.update import Arrays, Update
from flower_edge.wire import copy_content, model_spec, record_of, weight_of

from ..arguments import check_choices
from ..filtering.reply_updates import read_update
from ..filtering.sent import Sent, waited_for
from ..node_rows import key_of, rows_of
from .assigning import Assign, rate_of
from .merging import as_one, check_means

__all__ = ["SubModels"]

log = getLogger("flwr.edge")

#: So many events are kept where nobody takes them, as in Flower's own loop.
_UNTOLD = 1000


class SubModels(Strategy):
    """Gives every node a model of its own width and merges them by coordinate.

    Args:
        strategy: merges whole models by weighted mean: FedAvg, FedProx, FedAvgM, FedAdam, FedAdagrad, FedYogi, or one
            of your own.
        groups: of the whole model: `width_groups(model, example)`, or `mlp_groups(sizes)`.
        assign: a node's rate, the share of channels it can train: a number for all, a mapping by node key, a function
            such as `rate_by_property`.
        how: `heterofl` gives the first channels. `fjord` gives the first too, by a rate drawn for each node and round
            from those of `rates` up to the assigned one. `fedrolex` gives a window that moves on by a channel a round.
        rates: those that `fjord` draws from.
        scaler: whether narrow layers divide their outputs by the rate in training. `None`: not for `fjord`.
        static_norm: whether BatchNorm leaves its running statistics alone in training; `with_statistics` takes them at
            the end.
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
        "would give whole cells a width; put it where terminals are asked: "
        "Hierarchical(edge=lambda cell: SubModels(FedAvg(), ...), ...)"
    )

    def __init__(
        self,
        strategy: Strategy,
        groups: WidthGroups,
        *,
        assign: Assign,
        how: Literal["heterofl", "fjord", "fedrolex"] = "heterofl",
        rates: Sequence[float] = (1.0, 0.5, 0.25, 0.125, 0.0625),
        scaler: bool | None = None,
        static_norm: bool = True,
        evaluate: Literal["assigned", "whole"] = "assigned",
        seed: int = 0,
    ) -> None:
        if not isinstance(strategy, Strategy):
            raise ConfigError(f"{strategy!r} is not a Flower strategy; the first argument of SubModels is one")
        check_means(strategy)
        if not isinstance(groups, WidthGroups):
            raise ConfigError(f"groups = {groups!r:.60}: expected width_groups(model, example) or mlp_groups(sizes)")
        check_choices({"how": how, "evaluate": evaluate}, {"how": HOW, "evaluate": ("assigned", "whole")})
        if not callable(assign) and not isinstance(assign, Mapping):
            check_rate(assign, "assign")
        if not rates:
            raise ConfigError("rates is empty: expected rates such as (1.0, 0.5)")
        if type(seed) is not int or seed < 0:
            raise ConfigError(f"seed = {seed!r}: expected a whole number, 0 or more")
        # Not `.strategy`, by which wrappers are looked through: replies are not of the shapes that is used to.
        self.inner = strategy
        self.groups, self.assign, self.how, self.evaluate, self.seed = groups, assign, how, evaluate, seed
        self.rates = tuple(check_rate(rate, "rates") for rate in rates)
        self.scaler, self.static_norm = how != "fjord" if scaler is None else scaler, static_norm
        self._sent: list[Sent] = []
        self._base: Arrays = {}
        self._rates: dict[str, float] = {}
        self._untold: list[Event] = []

    # -- out ---------------------------------------------------------------------------------------------------------

    def configure_train(
        self, server_round: int, arrays: ArrayRecord, config: ConfigRecord, grid: Grid
    ) -> Iterable[Message]:
        """The messages of the strategy inside, each with its node's slice of the model."""
        self._check(arrays)
        if isinstance(self.inner, FedAvgM):
            go_on_from(self.inner, arrays)
        self._base = _views(arrays)
        messages = list(self.inner.configure_train(server_round, arrays, config, grid))
        self._sent = self._sliced(messages, server_round, grid, told=True)
        return messages

    def configure_evaluate(
        self, server_round: int, arrays: ArrayRecord, config: ConfigRecord, grid: Grid
    ) -> Iterable[Message]:
        """As for training; with `evaluate="whole"` those of the strategy inside."""
        messages = list(self.inner.configure_evaluate(server_round, arrays, config, grid))
        if self.evaluate == "assigned":
            self._check(arrays)
            self._sliced(messages, server_round, grid, told=False)
        return messages

    def manifest_of(self, round: Round, key: str, sent: ArrayRecord) -> Manifest:
        """What the node with this key sends back: `Admitted(manifest=strategy.manifest_of)`, and `Filtered`'s.

        A node that was sent nothing sends back what it is shown.
        """
        own = [one.manifest for one in self._sent if one.key == key]
        spec = model_spec(sent)
        fits = [m for m in own if {n: p.shape for n, p in m.arrays.items()} == {n: s for n, (s, _) in spec.items()}]
        return fits[-1] if fits else whole_manifest(spec)

    def _check(self, arrays: ArrayRecord) -> None:
        shapes = {name: shape for name, (shape, _) in model_spec(arrays).items()}
        wanted = {name: tuple(shape) for name, (shape, _) in self.groups.spec.items()}
        if shapes != wanted:
            odd = sorted(n for n in shapes.keys() | wanted.keys() if shapes.get(n) != wanted.get(n))
            raise ConfigError(
                f"the model has {odd[0]!r} of shape {shapes.get(odd[0])}, and the groups were made of one with "
                f"{wanted.get(odd[0])}; make groups and model of the same module"
            )

    def _sliced(self, messages: list[Message], number: int, grid: Grid, *, told: bool) -> list[Sent]:
        """Slice each message in place; what was sent."""
        rows = rows_of(grid, [message.metadata.dst_node_id for message in messages], ask=False)
        parts: dict[tuple[int, float], tuple[ArrayRecord, Manifest]] = {}
        out: list[Sent] = []
        for message in messages:
            node = message.metadata.dst_node_id
            key = key_of(grid, node)
            rate = most = rate_of(self.assign, number, key, rows[node])
            if self.how == "fjord":
                rate = drawn_rate(most, self.rates, self.seed, number, key)
            if told:
                self._assigned(key, most)
            records = dict(message.content.array_records.items())
            if len(records) != 1:
                raise NestingError(
                    f"{type(self.inner).__name__} sends {len(records)} records of arrays; SubModels slices one model"
                )
            ((name, record),) = records.items()
            if (id(record), rate) not in parts:
                parts[id(record), rate] = self._part(record, rate, number)
            part, manifest = parts[id(record), rate]
            order = SubmodelOrder(rate, self.how, number, self.scaler, self.static_norm)
            content = copy_content(message.content)
            content[name] = part
            content[SUBMODEL_RECORD] = ConfigRecord(order.to_values())
            message.content = content
            out.append(Sent(message.metadata, key, False, self._base, manifest))
        return out

    def _part(self, record: ArrayRecord, rate: float, number: int) -> tuple[ArrayRecord, Manifest]:
        channels = rolling(self.groups, rate, number) if self.how == "fedrolex" else prefix(self.groups, rate)
        manifest = part_manifest(model_spec(record), index_of(self.groups, channels), self.groups.spec)
        if manifest.is_whole:
            return record, manifest
        whole = _views(record)
        return record_of(
            {name: whole[name][brackets(part.whole, part.index)].copy() for name, part in manifest.arrays.items()}
        ), manifest

    def _assigned(self, key: str, rate: float) -> None:
        before = self._rates.get(key)
        if before != rate:
            self._rates[key] = rate
            text = f"{key} trains at rate {rate:g}" + ("" if before is None else f", before at {before:g}")
            event = Event("sub-model", text, node=key, values={"rate": rate})
            self._untold = [*self._untold, event][-_UNTOLD:]

    # -- in ----------------------------------------------------------------------------------------------------------

    def aggregate_train(
        self, server_round: int, replies: Iterable[Message]
    ) -> tuple[ArrayRecord | None, MetricRecord | None]:
        """The whole model that the strategy inside makes of all replies, and its metrics of each of them."""
        came = list(replies)
        key = self.weighted_by_key
        good: list[tuple[Message, Update]] = []
        given: list[Message] = []
        for reply, sent in zip(came, waited_for(self._sent, came), strict=True):
            read = ("failed", "") if reply.has_error() else self._read(reply, sent, key)
            if isinstance(read, Update):
                good.append((reply, read))
                given.append(reply)
            elif reply.has_error():
                given.append(reply)
            else:
                given.append(self._refused(reply, read))
        if not good or all(update.manifest.is_whole for _, update in good):
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
            return "unasked", "nothing was sent in this round"
        if (told := len(reply.content.metric_records)) != 1:
            return "metrics", f"{told} records of metrics came back; expected one"
        try:
            weight = weight_of(reply, key)
        except WireError as error:
            return key, str(error)
        read = read_update(reply, sent, key)
        if isinstance(read, Update):
            return replace(read, weight=weight)
        return read or ("no-arrays", "no arrays came back")

    def _refused(self, reply: Message, why: tuple[str, str]) -> Message:
        node = reply.metadata.src_node_id
        name = next((one.key for one in self._sent if one.metadata.dst_node_id == node), str(node))
        log.warning("\tnode %s: its reply is left out: %s", name, why[1])
        event = Event("refused", f"a reply of {name}: {why[1]}", node=name, values={"code": why[0]})
        self._untold = [*self._untold, event][-_UNTOLD:]
        return error_in_place(reply, REFUSED, f"not the sub-model it was given: {why[1]}")

    # -- records -----------------------------------------------------------------------------------------------------

    def events(self) -> list[Event]:
        """Whose width has changed, and whose replies were left out, since the last call."""
        told, self._untold = self._untold, []
        return told

    def assigned(self) -> dict[str, float]:
        """The last rate of every node that was asked, by its key."""
        return dict(self._rates)

    def state_dict(self) -> dict[str, Any]:
        """State of the strategy inside, and who has which width; what was sent is sent anew after a checkpoint."""
        return {"settings": self._settings(), "inner": strategy_state(self.inner), "rates": dict(self._rates)}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Inverse of `state_dict`.

        Raises:
            ResumeError: the checkpoint is one of other widths.
        """
        check_settings("SubModels", state["settings"], self._settings())
        load_strategy_state(self.inner, state["inner"])
        self._rates = dict(state["rates"])

    def _settings(self) -> dict[str, Any]:
        return {"how": self.how, "seed": self.seed, "sizes": dict(self.groups.sizes)}

    def summary(self) -> None:
        """Log what is around the strategy inside, and that."""
        log.info("\t├──> SubModels: %s, %d groups of channels", self.how, len(self.groups.sizes))
        self.inner.summary()

    def __repr__(self) -> str:
        return f"SubModels({type(self.inner).__name__}, how={self.how!r}, groups={len(self.groups.sizes)})"

    # What others ask any strategy of Flower's: by what it weighs, and how many nodes it waits for.

    @property
    def weighted_by_key(self) -> str:
        """The metric that weighs a reply."""
        return str(getattr(self.inner, "weighted_by_key", "num-examples"))

    @property
    def fraction_train(self) -> float:
        """Of the strategy inside."""
        return float(getattr(self.inner, "fraction_train", 1.0))

    @property
    def fraction_evaluate(self) -> float:
        """Of the strategy inside."""
        return float(getattr(self.inner, "fraction_evaluate", 1.0))

    @property
    def min_train_nodes(self) -> int:
        """Of the strategy inside."""
        return int(getattr(self.inner, "min_train_nodes", 1))

    @property
    def min_evaluate_nodes(self) -> int:
        """Of the strategy inside."""
        return int(getattr(self.inner, "min_evaluate_nodes", 1))

    @property
    def min_available_nodes(self) -> int:
        """Of the strategy inside."""
        return int(getattr(self.inner, "min_available_nodes", 1))


def _views(record: ArrayRecord) -> Arrays:
    return {name: npy_view(array.data, array.dtype, tuple(array.shape)) for name, array in record.items()}
