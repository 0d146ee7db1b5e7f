"""A terminal answers the model list: it tries each size on its own processor, and may choose one.

`model_list(app, make, example)` registers the answer to `query.model_list`. The list brings sizes and shapes; the model
comes from the terminal's own program, and no sample leaves it. What it tells are seconds, load, memory, and its choice.
Nothing here trains a model that anybody keeps.

Source: [4] ¶37, ¶48.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from logging import getLogger
from typing import Any

import numpy as np
from flwr.app import ConfigRecord, Context, Message, RecordDict
from flwr.clientapp import ClientApp
from numpy.typing import NDArray

from flower_edge.conditions import Conditions
from flower_edge.errors import ConfigError, DataError, ModelMismatch
from flower_edge.models import NumpyMLP, train
from flower_edge.runtime.model_list_messages import MODEL_LIST, ListAnswer, ListQuestion
from flower_edge.runtime.queries import REQUEST, time_asked_s
from flower_edge.submodels.catalogue import Variant
from flower_edge.submodels.mlp import narrow_mlp
from flower_edge.submodels.step_times import fitted_s

from .conditions import Source, source_says
from .measure import measure_conditions

__all__ = ["Offer", "largest_within", "model_list", "sized"]

log = getLogger(__name__)


@dataclass(frozen=True)
class Offer:
    """A variant as the terminal that is to choose sees it.

    Attributes:
        variant: name, size, parameters and FLOPs.
        step_s: seconds of a step, measured now, or predicted from those that were; `None` where none was.
        train_bytes: memory that training takes, as an estimate, for the batch of the question.
    """

    variant: Variant
    step_s: float | None
    train_bytes: int


#: Which variant a terminal wants, by name; "" leaves it to the edge. Given the list, in its order, and its conditions.
Choose = Callable[[Sequence[Offer], Conditions], str]
#: Samples and targets to time with; more or fewer than a batch.
Example = tuple[NDArray[Any], NDArray[Any]]


def largest_within(*, step_s: float | None = None, memory_share: float = 0.5) -> Choose:
    """The first of the list that is fast enough and fits into memory; where none does, the lightest.

    Args:
        step_s: the most a step may take. A variant of which nothing is known is passed over.
        memory_share: of the free memory that training may take; where the terminal does not tell it, none is asked.

    Raises:
        ConfigError: a limit that is none.
    """
    if step_s is not None and not step_s > 0:
        raise ConfigError(f"largest_within(step_s={step_s}): expected seconds above 0, or None")
    if not 0.0 < memory_share <= 1.0:
        raise ConfigError(f"largest_within(memory_share={memory_share}): expected a share above 0 and up to 1")

    def choose(offers: Sequence[Offer], conditions: Conditions) -> str:
        free = conditions.memory_free_bytes
        for offer in offers:
            fast = step_s is None or (offer.step_s is not None and offer.step_s <= step_s)
            if fast and (free is None or offer.train_bytes <= memory_share * free):
                return offer.variant.name
        return min(offers, key=lambda offer: offer.variant.train_flops).variant.name

    return choose


def sized(model: Any, variant: Variant) -> Any:
    """The model in the size of a variant: a torch module or a `NumpyMLP`, of fewer channels and exits.

    Args:
        model: the whole one; it is not changed.
        variant: of a list that was made of the same model.

    Raises:
        ModelMismatch: the list is one of another model.

    >>> from flower_edge.submodels.catalogue import mlp_catalogue
    >>> sized(NumpyMLP([4, 8, 2]), mlp_catalogue([4, 8, 2], [0.5]).variants[0]).sizes
    (4, 4, 2)
    """
    if variant.depth:
        if not callable(at_depth := getattr(model, "at_depth", None)):
            raise ModelMismatch(
                f"variant {variant.name!r} has depth {variant.depth}, and {type(model).__name__} has no exits; "
                "make the model with depth_model(...), as the server does"
            )
        model = at_depth(variant.depth)
    if isinstance(model, NumpyMLP):
        return narrow_mlp(model, variant.shapes)
    from flower_edge.submodels.narrow_torch import narrow_to

    return narrow_to(model, variant.shapes)


def model_list(
    app: ClientApp,
    make: Callable[[], Any],
    example: Example | Callable[[Context], Example],
    *,
    choose: Choose | None = None,
    step: Callable[[Any, NDArray[Any], NDArray[Any]], object] | None = None,
    source: Source = measure_conditions,
    measure: Callable[[Context, float | None, Variant], float | None] | None = None,
    clock: Callable[[], float] = time.perf_counter,
) -> ClientApp:
    """Register the answer to `query.model_list` on `app`, and return `app`.

    Args:
        app: the terminal's app.
        make: makes the whole model, as the train function does.
        example: samples and targets to time with, or a function of the context that loads them.
        choose: which variant the terminal wants, such as `largest_within(step_s=0.2)`; the edge gives it where it
            assigns by `AsChosen`. Without one the edge decides.
        step: trains one step of a model on a batch; by default one of `flower_edge.models.train`.
        source: of the terminal's conditions.
        measure: seconds of a step of a variant, instead of timing it: in a simulation, where the seconds of this
            machine mean nothing. It is given the context, the time on the virtual clock and the variant.
        clock: seconds.

    Each variant is tried from the lightest on: one step to warm up, then as many as the edge asks for. One that would
    not fit into the time left, by those before it, or into the free memory is not tried. On a virtual clock nothing is
    timed without `measure`. A model that cannot be made in a size costs this variant, with a warning.
    """

    @app.query(MODEL_LIST)
    def answer(message: Message, context: Context) -> Message:
        question = ListQuestion.read(dict(message.content.config_records.get(REQUEST) or {}))
        now_s = time_asked_s(message)
        conditions = source_says(source, context, now_s)
        if measure is not None:
            told = {one.name: measure(context, now_s, one) for one in question.catalogue}
            step_s = {name: float(seconds) for name, seconds in told.items() if seconds is not None}
        elif now_s is not None or not question.steps:
            step_s = {}
        else:
            x, y = example(context) if callable(example) else example
            free = conditions.memory_free_bytes
            step_s = _timed(question, make, _batch(x, question.batch), _batch(y, question.batch), step, free, clock)
        chosen = ""
        if choose is not None:
            chosen = choose(_offers(question, step_s), conditions)
        content = ConfigRecord(dict(ListAnswer(step_s, chosen, conditions).entries()))
        return Message(RecordDict({MODEL_LIST: content}), reply_to=message)

    return app


def _offers(question: ListQuestion, step_s: dict[str, float]) -> list[Offer]:
    known = [(question.catalogue[name].train_flops, seconds) for name, seconds in step_s.items()]
    return [
        Offer(one, step_s.get(one.name, fitted_s(known, one.train_flops)), one.train_bytes(question.batch))
        for one in question.catalogue
    ]


def _batch(rows: NDArray[Any], count: int) -> NDArray[Any]:
    if not len(rows):
        raise DataError("model_list: the example has no samples; give one or more to time a step with")
    return rows[np.arange(count) % len(rows)]


def _timed(
    question: ListQuestion,
    make: Callable[[], Any],
    x: NDArray[Any],
    y: NDArray[Any],
    step: Callable[[Any, NDArray[Any], NDArray[Any]], object] | None,
    free_bytes: int | None,
    clock: Callable[[], float],
) -> dict[str, float]:
    """Seconds of a step of each variant that could be tried."""
    make_step = step or _one_step
    whole = make()
    found: dict[str, float] = {}
    known: list[tuple[float, float]] = []
    ends_s = clock() + question.budget_s
    for variant in sorted(question.catalogue, key=lambda one: one.train_flops):
        likely_s = fitted_s(known, variant.train_flops) or 0.0
        # The first is tried in any case: of nothing nothing can be predicted.
        if known and clock() + 2 * likely_s > ends_s:
            log.info("model list: %r and larger ones are not tried: %g s are over", variant.name, question.budget_s)
            break
        if free_bytes is not None and variant.train_bytes(question.batch) > free_bytes:
            log.info("model list: %r is not tried: it takes more than the free memory", variant.name)
            continue
        try:
            model = sized(whole, variant)
            make_step(model, x, y)
            made, begun_s = 0, clock()
            while made < question.steps and (not made or clock() < ends_s):
                make_step(model, x, y)
                made += 1
            seconds = (clock() - begun_s) / made
        except Exception as error:
            # Whatever a framework comes up with, out of memory among it: others can still be tried.
            log.warning("model list: %r cannot be tried: %s: %s", variant.name, type(error).__name__, error)
            continue
        found[variant.name] = max(seconds, 1e-9)
        known.append((variant.train_flops, found[variant.name]))
    return found


def _one_step(model: Any, x: NDArray[Any], y: NDArray[Any]) -> None:
    # A rate that changes next to nothing: the numbers of a model that nobody keeps must not run away either.
    train(model, x, y, steps=1, batch_size=len(x), lr=1e-6, momentum=0.9)
