"""The session of split learning as a state machine, and who gets into a federation when."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from flwr.app import Context
from split_toy import MERGE, device_app, fedavg, number_of, samples, small, split, start
from toy import same_model

from flower_edge.errors import ConfigError, NotEnoughNodes, ProtocolError
from flower_edge.runtime import GridProxy, LocalGrid
from flower_edge.runtime.clock.devices import Device, Link
from flower_edge.runtime.clock.virtual_clock import VirtualClock
from flower_edge.runtime.splitting.messages import Offered
from flower_edge.splitting.planner import FixedCut
from flower_edge.splitting.standardise import Standard
from flower_edge.strategies.splitting.session import EnrolRules, Phase, Session, Standing


def offered(samples: int) -> Offered:
    return Offered(requests=True, samples=samples)


def asked(session: Session, *numbers: int) -> Session:
    session.enrol(range(3))
    for number in numbers:
        session.requested(number, offered(10))
    return session


# -- the machine by itself -------------------------------------------------------------------------------------------


def test_it_waits_until_all_enrolled_have_asked() -> None:
    session = asked(Session(EnrolRules(timeout_s=60.0)), 0, 2)
    assert session.wait(0.0)
    session.requested(1, offered(10))
    assert not session.wait(59.0)
    assert session.phase is Phase.PREPARE


def test_who_has_not_asked_when_the_time_is_over_is_dropped() -> None:
    session = asked(Session(EnrolRules(timeout_s=60.0)), 0, 2)
    assert session.wait(5.0)
    assert session.wait(64.9)
    assert not session.wait(65.0)
    assert session.with_standing(Standing.DROPPED) == [1]


def test_too_few_samples_are_no_request() -> None:
    session = Session(EnrolRules(least_samples=20))
    session.enrol([0])
    session.requested(0, offered(19))
    assert session.with_standing(Standing.REQUESTED) == []
    session.requested(0, offered(20))
    assert session.with_standing(Standing.REQUESTED) == [0]


def test_too_few_devices_in_time_end_the_session_and_say_why() -> None:
    session = asked(Session(EnrolRules(min_devices=2, timeout_s=1.0)), 0)
    assert session.wait(0.0)
    with pytest.raises(NotEnoughNodes, match=r"1 of the 2 devices .*device 1: it did not answer"):
        session.wait(1.0)


def test_a_device_with_another_model_is_refused_and_the_others_begin() -> None:
    session = asked(Session(EnrolRules()), 0, 1, 2)
    session.wait(0.0)
    session.ready(0, "a" * 64, "a" * 64)
    session.ready(1, "b" * 64, "a" * 64)
    session.begin()
    assert session.members == [0]
    assert "has digest bbbbbbbbbbbb" in session.devices[1].why
    assert session.with_standing(Standing.DROPPED) == [2]
    assert session.phase is Phase.TRAIN


def test_merges_alternate_with_training_and_out_of_turn_they_are_refused() -> None:
    session = asked(Session(EnrolRules()), 0, 1, 2)
    session.wait(0.0)
    with pytest.raises(ProtocolError, match="'prepare' was used as one in 'train'"):
        session.merging()
    for number in range(3):
        session.ready(number, "a", "a")
    session.begin()
    session.merging()
    session.merged()
    session.done("enough")
    session.training_goes_on()
    assert [event.values["phase"] for event in session.take_events() if event.what == "split-phase"] == [
        "prepare",
        "ready",
        "train",
        "aggregate",
        "train",
        "done",
        "train",
    ]


def test_a_session_is_the_same_after_a_checkpoint() -> None:
    session = asked(Session(EnrolRules()), 0, 2)
    again = Session(EnrolRules())
    again.load_state_dict(session.state_dict())
    assert (again.phase, again.devices) == (session.phase, session.devices)


@pytest.mark.parametrize("rule", [{"min_devices": 0}, {"timeout_s": -1.0}, {"poll_s": 0.0}, {"least_samples": 0.5}])
def test_rules_that_cannot_be_are_refused_by_name(rule: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match=next(iter(rule))):
        EnrolRules(**rule)


# -- in a federation -------------------------------------------------------------------------------------------------


class Growing:
    """Devices whose data come in with every question: so many samples at a time."""

    def __init__(self, each: dict[int, int]) -> None:
        self.each, self.calls = each, dict.fromkeys(each, 0)

    def __call__(self, context: Context) -> tuple[np.ndarray, np.ndarray]:
        number = number_of(context)
        self.calls[number] += 1
        x, y = samples(number)
        have = min(len(x), self.each[number] * self.calls[number])
        return x[:have], y[:have]


def clocked(local: LocalGrid) -> VirtualClock:
    return VirtualClock(GridProxy(local), [Device()] * 3, [Link()] * 3)


def test_the_cloud_waits_in_virtual_time_until_all_have_enough_data_and_says_for_whom(
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level("INFO", "flwr.edge")
    data = Growing({0: 14, 1: 2, 2: 18})
    strategy = split(planner=FixedCut(2), enrol=EnrolRules(least_samples=10, poll_s=7.0, expected=3))
    with LocalGrid(device_app(data=data), 3) as local:
        grid = clocked(local)
        strategy.start(grid, start(), 1)
        assert grid.now_s >= 4 * 7.0
    assert [row["device"] for row in strategy.history] == [0, 1, 2]
    told = [message.strip() for message in caplog.messages if "waiting for" in message]
    assert told == ["waiting for 1 of 3 devices (1) to have 10 samples, for up to 600 s: EnrolRules(timeout_s=...)"]


def test_who_is_too_late_is_dropped_and_joins_at_a_merge() -> None:
    data = Growing({0: 14, 1: 3, 2: 18})
    strategy = split(
        planner=FixedCut(2), enrol=EnrolRules(least_samples=10, poll_s=5.0, timeout_s=5.0), steps_per_round=1
    )
    with LocalGrid(device_app(data=data), 3) as local:
        strategy.start(clocked(local), start(), 5 * MERGE)
    took_part = {row["round"]: 0 for row in strategy.history}
    for row in strategy.history:
        took_part[row["round"]] += 1
    assert [took_part[round] for round in (1, 2)] == [2, 2]
    assert took_part[5 * MERGE] == 3
    joined = min(round for round, count in took_part.items() if count == 3)
    assert (int(joined) - 1) % MERGE == 0


def test_a_device_that_appears_later_joins_at_the_next_merge() -> None:
    strategy = split(planner=FixedCut(2), merge_every=2)
    with LocalGrid(device_app(), 3) as grid:
        ids = list(grid.get_node_ids())
        grid.disconnect(ids[2])

        def comes(round: int, arrays: Any) -> None:
            if round == 1:
                grid.connect(ids[2])

        strategy.start(grid, start(), 4, evaluate_fn=comes)
    assert [row["device"] for row in strategy.history] == [0, 1, 0, 1, 0, 1, 2, 0, 1, 2]


@pytest.mark.parametrize(
    ("models", "why"),
    [
        ({"small": lambda input_shape, num_classes: small(input_shape, num_classes + 1)}, "its model has digest"),
        ({}, "no such model here"),
    ],
    ids=["another", "none"],
)
def test_devices_that_build_another_model_are_refused_and_the_error_says_so(models: Any, why: str) -> None:
    with LocalGrid(device_app(models=models), 3) as grid, pytest.raises(NotEnoughNodes, match=why):
        split(planner=FixedCut(2)).start(grid, start(), 1)


@pytest.mark.parametrize("kind", ["z-score", "log"])
def test_samples_are_standardised_alike_everywhere_and_the_same_spec_is_kept(kind: Any) -> None:
    strategy = split(planner=FixedCut(2), standardise=kind)
    with LocalGrid(device_app(), 3) as grid:
        found = strategy.start(grid, start(), MERGE).arrays
    assert strategy.standard is not None
    assert not strategy.standard.needs_moments
    pooled = np.concatenate([samples(number)[0] for number in range(3)])
    if kind == "z-score":
        np.testing.assert_allclose(strategy.standard.apply(pooled).mean(axis=0), 0.0, atol=1e-6)
    again = Standard.from_config(strategy.state_dict()["federation"]["standard"])
    assert again == strategy.standard
    assert found is not None
    assert not same_model(found, fedavg(1))
