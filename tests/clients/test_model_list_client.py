"""A terminal and the model list: what it tries, what it tells, what it chooses, and what it is not taken in by."""

from __future__ import annotations

import json
import logging
import math
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
from flwr.app import Context
from flwr.clientapp import ClientApp
from torch import nn

from flower_edge.clients.model_list import Offer, largest_within, model_list, sized
from flower_edge.conditions import Conditions
from flower_edge.errors import ConfigError, ModelMismatch, WireError
from flower_edge.models import NumpyMLP, get_arrays, make_model
from flower_edge.runtime.clock.devices import Device, Link
from flower_edge.runtime.clock.virtual_clock import VirtualClock
from flower_edge.runtime.local_grid import LocalGrid
from flower_edge.runtime.model_list_messages import MODEL_LIST, ListAnswer, ListQuestion
from flower_edge.runtime.queries import ask_nodes
from flower_edge.submodels.catalogue import Catalogue, Variant, mlp_catalogue
from flower_edge.submodels.sizes import Size

LAYERS = (6, 40, 3)
MODELS = mlp_catalogue(LAYERS, {"a": 1.0, "b": 0.5, "c": 0.25})
X, Y = np.ones((5, 6), np.float32), np.zeros(5, np.int64)


def idle(context: Context, now_s: float | None) -> Conditions:
    return Conditions(load=0.25, memory_free_bytes=10**9)


def asked(question: ListQuestion, **how: Any) -> ListAnswer:
    """What one terminal answers."""
    how = {"source": idle, **how}
    app = model_list(ClientApp(), how.pop("make", lambda: NumpyMLP(LAYERS)), how.pop("example", (X, Y)), **how)
    with LocalGrid(app, nodes=1) as grid:
        answers = ask_nodes(grid, [1000], MODEL_LIST, question.request())
    return ListAnswer.read(answers[1000], question)


def ticking(step_s: Callable[[int], float]) -> tuple[Callable[..., None], Callable[[], float], list[int]]:
    """A step that takes a known time by its model's hidden layer, a clock that knows it, and what was tried."""
    now = [100.0]
    tried: list[int] = []

    def step(model: Any, x: Any, y: Any) -> None:
        assert x.shape == (8, 6)
        tried.append(model.sizes[1])
        now[0] += step_s(model.sizes[1])

    return step, lambda: now[0], tried


def test_each_variant_is_warmed_up_and_timed() -> None:
    # The first step of a size takes three times as long: it is not counted.
    seen: set[int] = set()

    def step_s(width: int) -> float:
        first = width not in seen
        seen.add(width)
        return 0.1 * width * (3.0 if first else 1.0)

    step, clock, tried = ticking(step_s)
    answer = asked(ListQuestion(MODELS, batch=8, steps=2, budget_s=100.0), step=step, clock=clock)
    assert answer.step_s == pytest.approx({"a": 4.0, "b": 2.0, "c": 1.0})
    assert tried == [10] * 3 + [20] * 3 + [40] * 3
    assert answer.conditions.load == 0.25


def test_what_does_not_fit_into_the_budget_is_not_tried() -> None:
    step, clock, tried = ticking(lambda width: 0.1 * width)
    answer = asked(ListQuestion(MODELS, batch=8, steps=1, budget_s=7.0), step=step, clock=clock)
    assert set(answer.step_s) == {"c", "b"}
    assert 40 not in tried


def test_the_lightest_is_tried_whatever_the_budget() -> None:
    step, clock, tried = ticking(lambda width: 10.0)
    answer = asked(ListQuestion(MODELS, batch=8, steps=5, budget_s=0.0), step=step, clock=clock)
    assert answer.step_s == {"c": 10.0}
    assert tried == [10, 10]


def test_what_does_not_fit_into_memory_is_not_tried() -> None:
    free = MODELS["b"].train_bytes(8)
    answer = asked(
        ListQuestion(MODELS, batch=8, steps=1), source=lambda context, now_s: Conditions(memory_free_bytes=free)
    )
    assert set(answer.step_s) == {"c", "b"}


def test_real_steps_of_torch_and_numpy_models_take_time() -> None:
    assert set(asked(ListQuestion(MODELS, steps=1)).step_s) == {"a", "b", "c"}
    torch_mlp = lambda: make_model("mlp", input_shape=(6,), num_classes=3, seed=0, hidden=(40,))  # noqa: E731
    answer = asked(ListQuestion(MODELS, steps=1), make=torch_mlp, example=lambda context: (X, Y))
    assert set(answer.step_s) == {"a", "b", "c"}
    assert answer.odd == ()


def test_a_variant_that_cannot_be_made_costs_itself_alone(caplog: pytest.LogCaptureFixture) -> None:
    def step(model: NumpyMLP, x: Any, y: Any) -> None:
        if model.sizes[1] == 20:
            raise MemoryError("no room")

    with caplog.at_level(logging.WARNING):
        assert set(asked(ListQuestion(MODELS, steps=1), step=step).step_s) == {"a", "c"}
    assert "'b' cannot be tried: MemoryError: no room" in caplog.text


def test_on_a_virtual_clock_nothing_is_timed_but_what_the_simulation_says_is_told() -> None:
    def told(**how: Any) -> dict[str, float]:
        app = model_list(ClientApp(), lambda: NumpyMLP(LAYERS), (X, Y), source=idle, **how)
        question = ListQuestion(MODELS)
        with LocalGrid(app, nodes=1) as local:
            clock = VirtualClock(local, [Device()], [Link()])
            return dict(
                ListAnswer.read(ask_nodes(clock, [1000], MODEL_LIST, question.request())[1000], question).step_s
            )

    assert told() == {}
    found = told(measure=lambda context, now_s, one: one.train_flops / 1e6 if one.name != "b" else None)
    assert found == pytest.approx({"a": MODELS["a"].train_flops / 1e6, "c": MODELS["c"].train_flops / 1e6})


# -- its own choice ---------------------------------------------------------------------------------------------------


def offers(*step_s: float | None) -> Iterator[Offer]:
    for one, seconds in zip(MODELS, step_s, strict=True):
        yield Offer(one, seconds, one.train_bytes(32))


def test_the_largest_within_time_and_memory_is_chosen() -> None:
    free = Conditions(memory_free_bytes=10**9)
    assert largest_within(step_s=0.3)(list(offers(0.4, 0.2, 0.1)), free) == "b"
    assert largest_within(step_s=0.05)(list(offers(0.4, 0.2, 0.1)), free) == "c"
    assert largest_within(step_s=0.3)(list(offers(None, 0.2, 0.1)), free) == "b"
    assert largest_within()(list(offers(None, None, None)), Conditions()) == "a"
    tight = Conditions(memory_free_bytes=2 * MODELS["b"].train_bytes(32))
    assert largest_within(memory_share=0.5)(list(offers(0.4, 0.2, 0.1)), tight) == "b"


def test_a_choice_is_made_with_measured_times_and_travels() -> None:
    step, clock, _ = ticking(lambda width: 0.01 * width)
    question = ListQuestion(MODELS, batch=8, steps=1, budget_s=100.0)
    assert asked(question, step=step, clock=clock, choose=largest_within(step_s=0.21)).chosen == "b"
    # What was not timed is predicted from what was.
    step, clock, _ = ticking(lambda width: 0.01 * width)
    short = ListQuestion(MODELS, batch=8, steps=1, budget_s=0.7)
    answer = asked(short, step=step, clock=clock, choose=largest_within(step_s=0.45))
    assert "a" not in answer.step_s
    assert answer.chosen == "a"


def test_limits_that_are_none_are_refused() -> None:
    with pytest.raises(ConfigError, match="seconds above 0"):
        largest_within(step_s=0.0)
    with pytest.raises(ConfigError, match="memory_share"):
        largest_within(memory_share=0.0)


# -- what travels -----------------------------------------------------------------------------------------------------


def test_a_question_comes_back_as_it_was_put() -> None:
    question = ListQuestion(MODELS, batch=4, steps=2, budget_s=1.5)
    assert ListQuestion.read(question.request()) == question


@pytest.mark.parametrize(
    "entries",
    [
        {"catalogue": 5},
        {"catalogue": "not json"},
        {"catalogue": "[]"},
        {"catalogue": "[" * 100_000},
        {"catalogue": json.dumps([{"name": "a"}])},
        {"batch": 0},
        {"batch": 1.5},
        {"steps": -1},
        {"budget-s": math.nan},
    ],
)
def test_a_question_that_is_none_is_refused(entries: dict[str, Any]) -> None:
    with pytest.raises(WireError, match=r"query\.model_list"):
        ListQuestion.read({**ListQuestion(MODELS).request(), **entries})


def test_lies_are_left_out_by_name_and_the_rest_is_believed() -> None:
    told = {"step-s.a": math.nan, "step-s.b": -1.0, "step-s.c": 0.5, "step-s.z": 0.1, "chosen": "z", "load": 7.0}
    answer = ListAnswer.read({**told, "memory_free_bytes": 1000, "site": "hall"}, ListQuestion(MODELS))
    assert (dict(answer.step_s), answer.chosen) == ({"c": 0.5}, "")
    assert answer.conditions.memory_free_bytes == 1000
    assert len(answer.odd) == 5
    assert "it chose 'z', and the list has a, b, c" in answer.odd


# -- the model in its size --------------------------------------------------------------------------------------------


def test_a_model_is_made_in_the_size_that_is_listed() -> None:
    made = sized(make_model("mlp", input_shape=(6,), num_classes=3, seed=0, hidden=(40,)), MODELS["b"])
    assert {name: array.shape for name, array in get_arrays(made).items()} == dict(MODELS["b"].shapes)
    with pytest.raises(ModelMismatch):
        sized(NumpyMLP((7, 40, 3)), MODELS["b"])
    deep = Variant("d", Size(1.0, 2), 1, 4, 1.0, 1.0, shapes={"weight": (1, 1)})
    with pytest.raises(ModelMismatch, match="has no exits"):
        sized(nn.Linear(1, 1), deep)
    assert Catalogue((deep,)).of_size(Size(1.0, 2)) is deep
