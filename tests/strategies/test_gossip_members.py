"""Who takes part in gossip: workers that come, go, flap, restart under other node ids, and what each was given."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pytest
from flwr.app import ArrayRecord, Context, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp
from flwr.serverapp import Grid
from test_gossip import NODES, Drawn, make_app, model, run

from flower_edge.clients import answer_properties, gossip_mod
from flower_edge.control import Dcent, Equal
from flower_edge.errors import NotEnoughNodes, ResumeError
from flower_edge.runtime import Fault, GridProxy, LocalGrid
from flower_edge.runtime.clock.round_clock import RoundClock
from flower_edge.runtime.joined_grid import JoinedGrid, server_worker
from flower_edge.runtime.node_state import NodeState
from flower_edge.store import RunFolder
from flower_edge.strategies import Gossip, Layer, Layered
from flower_edge.topology import Topology
from flower_edge.topology.set_ups import set_up
from flower_edge.wire import arrays_of


class Flapping(RoundClock):
    """Shows those nodes that `there` names in each round; rounds are counted by whoever looks."""

    number = 1

    def __init__(self, inner: Grid, there: Callable[[int, int], bool]) -> None:
        super().__init__(inner)
        self._there = there

    def get_node_ids(self) -> list[int]:
        return [node for node in super().get_node_ids() if self._there(self.number, node)]


def flap(strategy: Any, there: Callable[[int, int], bool], rounds: int, nodes: int = NODES) -> Any:
    with LocalGrid(make_app(), nodes) as grid:
        clock = Flapping(grid, there)

        def look(number: int, arrays: ArrayRecord) -> MetricRecord | None:
            clock.number = number + 1
            return None

        return strategy.start(clock, model(), rounds, evaluate_fn=look)


def environments(strategy: Gossip) -> list[str]:
    """Collects the events of a run."""
    heard: list[str] = []
    events = strategy.events

    def noting() -> Any:
        told = events()
        heard.extend(event.what for event in told)
        return told

    strategy.events = noting  # type: ignore[method-assign]
    return heard


def test_a_worker_that_is_away_for_a_while_is_waited_for_and_goes_on_from_its_model() -> None:
    strategy = Gossip(Equal(), fraction_evaluate=0.0, away_rounds=3)
    heard = environments(strategy)
    flap(strategy, lambda number, node: node != 1002 or number not in (3, 4), 6)
    assert "environment" not in heard
    assert "lost-model" not in heard


def test_who_is_away_for_long_is_given_up_and_comes_back_as_anybody_else() -> None:
    strategy = Gossip(Equal(), fraction_evaluate=0.0, away_rounds=2)
    heard = environments(strategy)
    result = flap(strategy, lambda number, node: node != 1002 or not 3 <= number <= 6, 8)
    assert heard.count("environment") == 2
    assert "lost-model" not in heard
    assert result.train_metrics_clientapp[6]["links"] == 12
    assert result.train_metrics_clientapp[8]["links"] == 20


def test_somebody_who_comes_does_not_cost_another_who_is_briefly_away_its_place() -> None:
    strategy = Gossip(Equal(), fraction_evaluate=0.0)
    flap(strategy, lambda number, node: node != (1004 if number < 3 else 1001) or number > 3, 5)
    assert strategy.group is not None
    assert list(strategy.group.env.numbers) == [0, 1, 2, 3, 4]
    assert not strategy.group.fresh


def test_a_layer_that_lets_others_take_part_in_each_round_leaves_one_group() -> None:
    class Alternating(Layer[None]):
        def narrow(self, state: None, round: Any, grid: Grid, nodes: list[int]) -> tuple[list[int], None]:
            return [node for k, node in enumerate(nodes) if k != round.cloud % len(nodes)], state

    strategy = Gossip(Equal(), fraction_evaluate=0.0)
    heard = environments(strategy)
    with LocalGrid(make_app(), NODES) as grid:
        result = Layered(strategy, Alternating()).start(RoundClock(grid), model(), 8)
    assert heard.count("environment") == 1
    assert all("distance" in result.train_metrics_clientapp[number] for number in range(4, 9))


@pytest.mark.parametrize("mailbox", ["relay", "shared-memory"])
def test_a_round_in_which_nobody_is_there_changes_nothing(mailbox: Any) -> None:
    strategy = Gossip(Equal(), mailbox=mailbox, fraction_evaluate=0.0)
    result = flap(strategy, lambda number, node: number != 3, 5)
    assert sorted(result.train_metrics_clientapp) == [1, 2, 4, 5]
    # What was posted before is mixed when somebody is there again.
    whole = flap(Gossip(Equal(), fraction_evaluate=0.0), lambda number, node: True, 4)
    apart = [list(run.train_metrics_clientapp.values())[-1]["distance"] for run in (result, whole)]
    assert apart[0] == pytest.approx(apart[1], rel=1e-3)


@pytest.mark.parametrize("signalling", ["rows", "requirements", "scalars"])
@pytest.mark.parametrize("mailbox", ["relay", "shared-memory"])
def test_workers_come_and_go_with_every_way_of_signalling(signalling: Any, mailbox: Any) -> None:
    strategy = Gossip(
        Dcent(step_cap=0.1),
        world=set_up("nlos", 2, nodes=NODES),
        signalling=signalling,
        mailbox=mailbox,
        fraction_evaluate=0.0,
        away_rounds=2,
    )

    def there(number: int, node: int) -> bool:
        return not (node == 1000 and number >= 6) and not (node == 1004 and number < 4)

    result = flap(strategy, there, 10)
    assert len(result.train_metrics_clientapp) == 10
    assert strategy.group is not None
    assert list(strategy.group.env.numbers) == [1, 2, 3, 4]
    assert np.isfinite(arrays_of(result.arrays)["weight"]).all()


@pytest.mark.parametrize("signalling", ["requirements", "scalars"])
@pytest.mark.parametrize(
    "controller",
    [Dcent(step_cap=0.3, smoothing=0.4), Dcent(step_cap=0.3, prune_below=0.08, probe_every=2, silent_after=1)],
)
def test_a_worker_that_was_away_holds_the_row_that_the_server_believes_it_holds(
    signalling: Any, controller: Dcent
) -> None:
    strategy = Gossip(
        controller, world=set_up("nlos-per-device", 3, nodes=NODES), signalling=signalling, fraction_evaluate=0.0
    )
    mixing: list[Any] = []

    def look(number: int, arrays: ArrayRecord) -> MetricRecord | None:
        mixing.append(None if strategy.group is None else strategy.group.mixing)
        return None

    with LocalGrid(make_app(), NODES, script=[Fault(2, "silent", at=3), Fault(2, "raise", at=6)]) as grid:
        strategy.start(RoundClock(grid), model(), 12, evaluate_fn=look)
        assert strategy.group is not None
        for i in range(NODES):
            kept: Any = NodeState(grid.context_of(1000 + i), "gossip").load()
            row = strategy.group.topology.row(i)
            np.testing.assert_allclose(kept["row"]["weights"], mixing[-2].weights[row], atol=1e-12)
            np.testing.assert_allclose(kept["row"]["bandwidth_hz"], mixing[-2].bandwidth_hz[row], rtol=1e-9)


def test_when_no_stable_workers_are_to_be_had_the_others_go_on() -> None:
    asked: list[int] = []

    def three(grid: Grid, nodes: Sequence[int]) -> list[int]:
        asked.append(len(nodes))
        if len(nodes) < 3:
            raise NotEnoughNodes(f"{len(nodes)} nodes, 3 workers are wanted")
        return list(nodes[:3])

    strategy = Gossip(Equal(), workers=three, fraction_evaluate=0.0, away_rounds=2)
    result = flap(strategy, lambda number, node: number < 3 or node not in (1000, 1003, 1004), 8)
    assert len(result.train_metrics_clientapp) == 8
    assert asked == [5, 2, 2]


# -- who is who ------------------------------------------------------------------------------------------------------


class Anonymous(Grid):
    """A Grid that does not tell who its nodes are, as Flower's own."""

    def __init__(self, inner: LocalGrid, hidden: set[int]) -> None:
        self._inner, self.hidden = inner, hidden

    def set_run(self, run: Any) -> None:
        self._inner.set_run(run)

    @property
    def run(self) -> Any:
        return self._inner.run

    def create_message(self, *args: Any, **kwargs: Any) -> Message:
        return self._inner.create_message(*args, **kwargs)

    def get_node_ids(self) -> list[int]:
        return [node for node in self._inner.get_node_ids() if node not in self.hidden]

    def get_nodes(self) -> Any:
        return self._inner.get_nodes()

    def push_messages(self, messages: Any) -> Any:
        return self._inner.push_messages(messages)

    def pull_messages(self, message_ids: Any) -> Any:
        return self._inner.pull_messages(message_ids)

    def send_and_receive(self, messages: Any, *, timeout: float | None = None) -> Any:
        return self._inner.send_and_receive(messages, timeout=timeout)


def test_a_number_once_given_stays_where_nodes_do_not_say_who_they_are() -> None:
    strategy = Gossip(Equal(), topology=Topology.complete(NODES), fraction_evaluate=0.0, away_rounds=1)
    with LocalGrid(make_app(), NODES) as local:
        grid = Anonymous(local, {1004})

        def look(number: int, arrays: ArrayRecord) -> MetricRecord | None:
            grid.hidden = {1004} if number < 2 else {1001, 1004} if number < 5 else {1001}
            return None

        strategy.start(RoundClock(grid), model(), 7, evaluate_fn=look)
    assert strategy.group is not None
    assert strategy.group.env.by_node == {1000: 0, 1004: 1, 1002: 2, 1003: 3}


def test_the_server_as_a_worker_is_the_node_of_the_world_that_its_partition_says() -> None:
    configs = [{"partition-id": k, "num-partitions": 4} for k in (1, 2, 3)]
    strategy = Gossip(Equal(), world=set_up("nlos", 1, nodes=4), fraction_evaluate=0.0)
    with LocalGrid(make_app(), configs) as others, server_worker(make_app(), 0, 4) as own:
        strategy.start(RoundClock(JoinedGrid(others, own)), model(), 2)
    assert strategy.group is not None
    assert strategy.group.env.by_node == {2: 0, 1000: 1, 1001: 2, 1002: 3}


@pytest.mark.parametrize("kept", [True, False])
def test_a_run_resumed_with_new_node_ids_knows_its_workers_by_their_partition(tmp_path: Any, kept: bool) -> None:
    app = make_app()
    answer_properties(app)

    def nodes(kept: bool) -> list[dict[str, Any]]:
        found = [
            {"partition-id": k, "num-partitions": NODES, "state-dir": str(tmp_path / "nodes")} for k in range(NODES)
        ]
        return found if kept else found[::-1]

    strategy, named = Gossip(Drawn(), fraction_evaluate=0.0), {"run_config": {"run-name": "one"}}
    heard = environments(strategy)
    with RunFolder.create("test", config={}, seed=0, root=tmp_path) as folder:
        with LocalGrid(app, nodes(True), **named) as grid:  # type: ignore[arg-type]
            Gossip(Drawn(), fraction_evaluate=0.0).start(GridProxy(Anonymous(grid, set())), model(), 3, run=folder)
        with LocalGrid(app, nodes(kept), first_node_id=5000, **named) as other:  # type: ignore[arg-type]
            result = strategy.start(GridProxy(Anonymous(other, set())), model(), 6, run=folder, resume=True)
    assert strategy.group is not None
    expected = {5000 + k: node["partition-id"] for k, node in enumerate(nodes(kept))}
    assert dict(strategy.group.env.by_node) == expected
    assert strategy.group.defined_in == 1
    assert heard.count("lost-model") == NODES  # memory in RAM is gone with the processes
    assert np.isfinite(arrays_of(result.arrays)["weight"]).all()
    assert "environment" not in heard


def test_a_checkpoint_of_another_kind_of_gossip_is_refused_by_what_differs(tmp_path: Any) -> None:
    with RunFolder.create("test", config={}, seed=0, root=tmp_path) as folder:
        with LocalGrid(make_app(), NODES) as grid:
            Gossip(Equal()).start(RoundClock(grid), model(), 1, run=folder)
        with LocalGrid(make_app(), NODES) as grid, pytest.raises(ResumeError, match=r"controller = 'Equal'.*'Dcent'"):
            Gossip(Dcent()).start(RoundClock(grid), model(), 2, run=folder, resume=True)


# -- data sets -------------------------------------------------------------------------------------------------------


def recording(seen: list[tuple[str, int, bool]]) -> ClientApp:
    app = ClientApp(mods=[gossip_mod])

    @app.train()
    def train(message: Message, context: Context) -> Message:
        partition = int(context.node_config["partition-id"])
        seen.append(("train", partition, "data" in message.content))
        metrics = MetricRecord({"num-examples": 1})
        return Message(RecordDict({"arrays": message.content["arrays"], "metrics": metrics}), reply_to=message)

    @app.evaluate()
    def evaluate(message: Message, context: Context) -> Message:
        seen.append(("evaluate", int(context.node_config["partition-id"]), "data" in message.content))
        return Message(RecordDict({"metrics": MetricRecord({"num-examples": 1})}), reply_to=message)

    return app


@pytest.mark.parametrize("evaluate", ["own", "mean"])
def test_a_worker_that_was_away_when_data_sets_were_handed_out_gets_its_own_later(evaluate: Any) -> None:
    seen: list[tuple[str, int, bool]] = []
    strategy = Gossip(Equal(), dataset=lambda number: {"x": np.full(2, number)}, evaluate=evaluate)
    run(strategy, rounds=4, app=recording(seen), script=[Fault(node=1, kind="silent", at=1)])
    assert all(had for kind, _, had in seen if kind == "train")
    # After round 1 worker 1 has never heard of anything.
    assert [place for kind, place, had in seen if kind == "evaluate" and not had] in ([], [1])
    assert sum(kind == "train" and place == 1 for kind, place, _ in seen) >= 2


def test_a_worker_that_lost_everything_gets_its_data_set_again() -> None:
    seen: list[tuple[str, int, bool]] = []
    handed: list[int] = []

    def dataset(number: int) -> dict[str, np.ndarray]:
        handed.append(number)
        return {"x": np.full(2, number)}

    strategy = Gossip(Equal(), dataset=dataset, fraction_evaluate=0.0)
    with LocalGrid(recording(seen), NODES) as grid:

        def look(number: int, arrays: ArrayRecord) -> MetricRecord | None:
            if number == 2:
                grid.context_of(1003).state.clear()
            return None

        strategy.start(RoundClock(grid), model(), 5, evaluate_fn=look)
    assert handed == [0, 1, 2, 3, 4, 3]
    assert all(had for _, _, had in seen)
