"""A node whose model is changed within the round is paid for all of its work: the sum of its parts where they lie."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest
from change_toy import BATCH, SLICE, STEPS, app, run
from flwr.serverapp.strategy import FedAvg
from submodel_toy import GROUPS, SIZES, numbers, whole

from flower_edge.clients.steps import step_mod
from flower_edge.events import Event
from flower_edge.models import EvalResult, NumpyMLP
from flower_edge.rewards.budget import Budget
from flower_edge.rewards.enrolment import Enrolment
from flower_edge.rewards.rule import RewardRule
from flower_edge.runtime.steps.decisions import Continue, Decision, Progress, Renew
from flower_edge.strategies import Layered
from flower_edge.strategies.provision.changing import ChangeSize
from flower_edge.strategies.provision.sub_models import SubModels
from flower_edge.strategies.rewards.payments import Terms, weights_of
from flower_edge.strategies.rewards.rewarded import Rewarded, RewardedState
from flower_edge.strategies.rewards.state import Given, Pending
from flower_edge.updates.manifest import whole_manifest
from flower_edge.wire import model_spec

_X = np.random.default_rng(8).normal(size=(60, SIZES[0])).astype(np.float32)
_Y = _X[:, : SIZES[-1]].argmax(axis=1)


def evaluate(arrays: Mapping[str, np.ndarray]) -> EvalResult:
    model = NumpyMLP(SIZES)
    model.load(arrays)
    scores = model.scores(_X).astype(float)
    loss = np.log(np.exp(scores).sum(axis=1)) - scores[np.arange(len(_Y)), _Y]
    return EvalResult(float(loss.mean()), float((scores.argmax(axis=1) == _Y).mean()), len(_Y))


class Looking(Rewarded):
    """Keeps the replies it has measured and what it has told."""

    def __init__(self, **how: Any) -> None:
        super().__init__(evaluate, budget=Budget(1_000_000), seed=3, **how)
        self.seen: list[Pending] = []
        self.values: list[float] = []
        self.told: list[Event] = []

    def _worth(self, replies: list[Pending], *rest: Any) -> Any:
        self.seen += replies
        worth = super()._worth(replies, *rest)
        assert worth.found is not None
        self.values += worth.found.values
        return worth

    def events(self, state: RewardedState) -> tuple[list[Event], RewardedState]:
        told, state = super().events(state)
        self.told += told
        return told, state


def paid(layer: Looking, wishes: Any = None, still: frozenset[tuple[int, int]] = frozenset()) -> dict[str, Event]:
    """One round of three nodes; those in `still` (partition, first step) send that part back as they were given it."""

    def lazy(message: Any, context: Any, call_next: Any) -> Any:
        given = message.content["arrays"]
        reply = call_next(message, context)
        first = message.content["config"].get("step-first", 0)
        if (context.node_config["partition-id"], first) in still:
            reply.content["arrays"] = given
        return reply

    strategy = SubModels(FedAvg(fraction_evaluate=0.0), GROUPS, assign=1.0, sizes=(1.0, 0.5, 0.25), scaler=False)
    layer.manifest = strategy.manifest_of
    run(Layered(strategy, layer), ChangeSize(strategy), client=app(wishes, mods=(step_mod, lazy)))
    return {event.node: event for event in layer.told if event.what == "rewarded"}


def test_both_parts_are_measured_where_they_lie_and_the_pay_is_for_their_sum() -> None:
    layer = Looking(rule=RewardRule(size=None, recency=None, frequency=None), absent="idle", method="exact")
    found = paid(layer, {(0, 1, 4): "smaller-model"})
    parts = [pending for pending in layer.seen if pending.key == "0"]
    assert [(p.arrays["linear0.weight"].shape[0], p.told_examples) for p in parts] == [
        (8, 5 * BATCH),
        (4, (STEPS - 5) * BATCH),
    ]
    scores = dict.fromkeys(found, 0.0)
    for pending, value in zip(layer.seen, layer.values, strict=True):
        scores[pending.key] += max(value, 0.0)
    assert len(layer.values) == 4
    for key, event in found.items():
        assert event.values["micro"] == pytest.approx(1_000_000 * scores[key] / sum(scores.values()), abs=2)


def test_who_has_done_nothing_in_the_first_part_is_paid_for_the_second() -> None:
    wishes = {(0, 1, 0): "smaller-model"}
    found = paid(Looking(), wishes, still=frozenset({(0, 0)}))
    assert int(found["0"].values["micro"]) > 0
    found = paid(Looking(), wishes, still=frozenset({(0, 0), (0, 1)}))
    assert int(found["0"].values["micro"]) == 0
    assert "unchanged" in found["0"].text


def test_the_parts_of_a_node_weigh_together_what_one_reply_would() -> None:
    given = Given(1, 1, whole(), whole_manifest(model_spec(whole())), "0")

    def reply(key: str, examples: float | None, number: int = 1) -> Pending:
        of = Given(number, number, given.sent, given.manifest, key)
        return Pending(key, of, numbers(whole()), False, True, examples, None, None)

    terms = Terms(RewardRule(), None, "", True)
    assert weights_of([reply("0", 30), reply("0", 10), reply("1", 1e9)], terms) == [0.75, 0.25, 1.0]
    assert weights_of([reply("0", None), reply("0", 10), reply("1", 5)], terms) == [0.0, 1.0, 1.0]
    assert weights_of([reply("0", 0.0), reply("0", None)], terms) == [0.5, 0.5]
    # Late work of another round is work of its own.
    assert weights_of([reply("0", 30), reply("0", 10, number=2)], terms) == [1.0, 1.0]
    enrolled = Terms(RewardRule(), {"0": Enrolment(most_examples=40), "1": Enrolment(most_examples=7)}, "", True)
    assert weights_of([reply("0", 30), reply("0", 10), reply("1", 1e9)], enrolled) == [30.0, 10.0, 7.0]


def test_without_sub_models_both_parts_count_too() -> None:
    def decide(progress: Progress) -> Decision:
        if progress.node_id == 1000 and not progress.renewals:
            return Renew({"arrays": whole(5)})
        return Continue()

    layer = Looking()
    run(Layered(FedAvg(fraction_evaluate=0.0), layer), decide)
    assert [pending.key for pending in layer.seen] == ["0", "0", "1", "2"]
    assert [p.told_examples for p in layer.seen[:2]] == [SLICE * BATCH, (STEPS - SLICE) * BATCH]
