"""What a gossiping group tells of itself, and how often it is asked: events, a watched worker, evaluations."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from flwr.app import ConfigRecord
from test_gossip import NODES, Drawn, make_app, model, run

from flower_edge.control import (
    Auto,
    BaseKPlus1,
    Dcent,
    DoublyStochastic,
    Equal,
    Matcha,
    OnePeerExponential,
    WeightsOnly,
)
from flower_edge.errors import ConfigError
from flower_edge.monitoring import RunFollower
from flower_edge.runtime import LocalGrid
from flower_edge.runtime.clock.round_clock import RoundClock
from flower_edge.store import RunFolder
from flower_edge.strategies import Gossip, Hierarchical, Layered, Metered, blocks
from flower_edge.topology.set_ups import set_up


def happened(strategy: Any, root: Path, rounds: int = 4, nodes: int = NODES) -> list[dict[str, Any]]:
    with RunFolder.create("test", config={}, seed=0, root=root) as folder, LocalGrid(make_app(), nodes) as grid:
        strategy.start(RoundClock(grid), model(), rounds, run=folder)
    return [dict(row.values) for row in RunFolder.open("latest", root=root).rows("event")]


# -- links -----------------------------------------------------------------------------------------------------------

SCHEDULES: dict[str, Any] = {
    "one peer": OnePeerExponential(),
    "base 2": BaseKPlus1(),
    "matcha": Matcha(),
    "auto": Auto(tries=50),
    "reworked": WeightsOnly(OnePeerExponential()),
    "reworked twice": DoublyStochastic(WeightsOnly(Matcha())),
}


@pytest.mark.parametrize("name", SCHEDULES)
def test_links_that_come_and_go_by_a_schedule_are_no_news(tmp_path: Path, name: str) -> None:
    world = set_up("nlos", 1, nodes=NODES)
    told = happened(Gossip(SCHEDULES[name], world=world, fraction_evaluate=0.0), tmp_path)
    assert not {"pruned", "revived"} & {event["what"] for event in told}


def test_links_in_use_are_recorded_with_what_they_carry_and_take(tmp_path: Path) -> None:
    world = set_up("nlos", 1, nodes=NODES)
    strategy = Gossip(Equal(), world=world, payload_bits=61_706 * 32, fraction_evaluate=0.0)
    with (
        RunFolder.create("test", config={}, seed=0, path=tmp_path / "r") as folder,
        LocalGrid(make_app(), NODES) as grid,
    ):
        strategy.start(RoundClock(grid), model(), 2, run=folder)
    follower = RunFollower(tmp_path / "r")
    links = follower.look().links_now()
    assert strategy.group is not None
    assert len(links) == strategy.group.topology.links
    assert {link.round for link in links} == {2}
    assert {link.sender for link in links} == {link.receiver for link in links} == set(map(str, range(NODES)))
    for link in links:
        assert link.bandwidth_bps is not None
        assert link.delay_s is not None
        # What a link takes is what it carries, and no more: D = B S C.
        assert link.bandwidth_bps * link.delay_s == pytest.approx(61_706 * 32, rel=1e-3)
    weight = dict.fromkeys(map(str, range(NODES)), 0.0)
    for link in links:
        assert link.weight is not None
        weight[link.receiver] += link.weight
    assert all(0.0 < sum_ < 1.0 for sum_ in weight.values())


REACTING: dict[str, Any] = {
    "drawn anew": Drawn(),
    "reworked": WeightsOnly(Drawn()),
    "pruned": Dcent(step_cap=0.3, prune_below=0.15),
}


@pytest.mark.parametrize("name", REACTING)
def test_links_that_are_given_up_for_what_was_measured_are_told(tmp_path: Path, name: str) -> None:
    world = set_up("nlos", 1, nodes=NODES)
    strategy = Gossip(REACTING[name], world=world, payload_bits=61_706 * 32, fraction_evaluate=0.0)
    assert "pruned" in {event["what"] for event in happened(strategy, tmp_path, rounds=8)}


# -- a watched worker ------------------------------------------------------------------------------------------------


def test_a_watched_worker_that_can_never_be_is_refused_in_the_first_round() -> None:
    strategy = Gossip(Equal(), world=set_up("nlos", 1, nodes=NODES), watch=9)
    with pytest.raises(ConfigError, match=r"watch = 9: .*the workers are 0, 1, 2, 3, 4; the world has no node"):
        run(strategy)


@pytest.mark.parametrize("watch", [-1, 1.0, "3"])
def test_a_watched_worker_has_a_number(watch: Any) -> None:
    with pytest.raises(ConfigError, match="watch = "):
        Gossip(Equal(), watch=watch)


def test_a_watched_worker_that_is_not_there_yet_is_told(tmp_path: Path) -> None:
    told = happened(Gossip(Equal(), watch=7), tmp_path)
    texts = [event["text"] for event in told if event["what"] == "unwatched"]
    assert texts == ["nobody is worker 7, who is to be watched; the workers are 0, 1, 2, 3, 4"]


def test_in_a_hierarchy_the_cell_that_has_the_watched_worker_records_it(tmp_path: Path) -> None:
    hierarchy = Hierarchical(edge=lambda cell: Gossip(Equal(), watch=3), cells=blocks(2))
    assert [event["what"] for event in happened(hierarchy, tmp_path)].count("unwatched") == 1


# -- evaluations -----------------------------------------------------------------------------------------------------


def counted(strategy: Any, rounds: int, **kwargs: Any) -> tuple[list[int], list[int]]:
    """Rounds with metrics of an evaluation, and how many evaluation messages went out in each round."""
    sent: list[int] = []
    inner = strategy.strategy if isinstance(strategy, Layered) else strategy
    configure = inner.configure_evaluate

    def counting(*args: Any) -> Any:
        messages = list(configure(*args))
        sent.append(len(messages))
        return messages

    inner.configure_evaluate = counting
    result, _ = run(strategy, rounds=rounds, **kwargs)
    return sorted(result.evaluate_metrics_clientapp), sent


@pytest.mark.parametrize("layered", [False, True])
def test_evaluation_messages_go_out_every_few_rounds_and_in_the_last(layered: bool) -> None:
    strategy = Gossip(Equal(), evaluate_every=3)
    found, sent = counted(Layered(strategy, Metered()) if layered else strategy, 8)
    assert found == [3, 6, 8]
    assert sent == [0, 0, NODES, 0, 0, NODES, 0, NODES]


def test_what_is_evaluated_does_not_depend_on_how_often() -> None:
    often, _ = run(Gossip(Drawn()), rounds=4)
    seldom, _ = run(Gossip(Drawn(), evaluate_every=2), rounds=4)
    for number, told in seldom.evaluate_metrics_clientapp.items():
        assert dict(told) == dict(often.evaluate_metrics_clientapp[number])
    assert len(seldom.evaluate_metrics_clientapp) == 2


def test_where_the_last_round_is_not_known_only_every_few_are_evaluated() -> None:
    strategy = Gossip(Equal(), evaluate_every=2)
    run(strategy, rounds=3)
    with LocalGrid(make_app(), NODES) as grid:
        # Somebody else's loop: nothing is left of the run before.
        asked = [len(list(strategy.configure_evaluate(number, model(), ConfigRecord(), grid))) for number in (1, 2, 3)]
    assert [count > 0 for count in asked] == [False, True, False]


def test_a_resumed_run_evaluates_its_own_last_round(tmp_path: Path) -> None:
    with RunFolder.create("test", config={}, seed=0, root=tmp_path) as folder, LocalGrid(make_app(), NODES) as grid:
        Gossip(Equal(), evaluate_every=2).start(RoundClock(grid), model(), 2, run=folder)
        again = Gossip(Equal(), evaluate_every=2).start(RoundClock(grid), model(), 5, run=folder, resume=True)
    assert sorted(again.evaluate_metrics_clientapp) == [2, 4, 5]


def test_rounds_between_evaluations_are_counted() -> None:
    with pytest.raises(ConfigError, match="evaluate_every = 0"):
        Gossip(Equal(), evaluate_every=0)


# -- what a run is not told ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("layered", [False, True])
def test_idle_time_is_refused_with_what_to_take_instead(layered: bool) -> None:
    strategy: Any = Layered(Gossip(Equal()), Metered()) if layered else Gossip(Equal())
    with LocalGrid(make_app(), NODES) as grid, pytest.raises(ConfigError, match=r"idle_s.*expected_nodes"):
        strategy.start(RoundClock(grid), model(), 1, idle_s=5.0)


def test_an_option_that_gossip_does_not_have_is_named() -> None:
    with LocalGrid(make_app(), NODES) as grid, pytest.raises(ConfigError, match=r"\['patience'\].*run= and resume=$"):
        Gossip(Equal()).start(RoundClock(grid), model(), 1, patience=5.0)
