"""What a cloud round merges: late edges, edges that were away, a strategy at the centre, terminals that moved."""

from __future__ import annotations

import heapq
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from flwr.app import ArrayRecord, ConfigRecord, Context, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp
from flwr.serverapp import Grid
from flwr.serverapp.strategy import FedAdam, FedAvg, FedAvgM, Krum, Result
from toy import initial_model, same_model, toy_app

from flower_edge.clients import edge_app
from flower_edge.errors import ConfigError, NestingError, RoundFailed
from flower_edge.events import Event
from flower_edge.rounds import Round
from flower_edge.runtime import Device, Fault, Link, LocalGrid, VirtualClock
from flower_edge.store import RunFolder
from flower_edge.strategies import (
    FedAsync,
    FedBuff,
    Handover,
    Hierarchical,
    Layer,
    Layered,
    LayeredGrid,
    LocalTier,
    LowerEdgeRounds,
    Metered,
    Retire,
    blocks,
    constant,
)
from flower_edge.strategies.hierarchy.merging import EdgeResult, merge_edges
from flower_edge.termination import Limits
from flower_edge.wire import arrays_of, record_of

ONE: dict[str, Any] = {"min_train_nodes": 1, "min_evaluate_nodes": 1, "min_available_nodes": 1}
START = record_of({"w": np.zeros(2)})


def goal(node: int) -> np.ndarray:
    return np.array([1.0 + node, (-2.0) ** node])


def seeking_app() -> ClientApp:
    """Every terminal goes a third of the way to its own goal; it has ten times as many examples as its number."""
    app = ClientApp()

    @app.train()
    def train(message: Message, context: Context) -> Message:
        node = int(context.node_config["partition-id"])
        w = arrays_of(message.content["arrays"])["w"]  # type: ignore[arg-type]
        metrics = MetricRecord({"num-examples": 10 * (node + 1), "steps": 1})
        content = RecordDict({"arrays": record_of({"w": w + (goal(node) - w) / 3}), "metrics": metrics})
        return Message(content, reply_to=message)

    @app.evaluate()
    def evaluate(message: Message, context: Context) -> Message:
        w = arrays_of(message.content["arrays"])["w"]  # type: ignore[arg-type]
        metrics = MetricRecord({"num-examples": 10, "loss": float(np.sum(w**2))})
        return Message(RecordDict({"metrics": metrics}), reply_to=message)

    return app


def one_each(cell: str) -> FedAvg:
    return FedAvg(**ONE, fraction_evaluate=0.0)


def run(
    strategy: Any, nodes: int = 4, rounds: int = 4, seconds: list[float] | None = None, **options: Any
) -> tuple[Result, Grid]:
    with LocalGrid(seeking_app(), nodes) as local:
        grid: Grid = local
        if seconds is not None:
            grid = VirtualClock(local, [Device(fixed_s=s) for s in seconds], [Link()] * nodes)
        return strategy.start(grid, START, num_rounds=rounds, **options), grid


def w(result: Result) -> np.ndarray:
    assert result.arrays is not None
    return arrays_of(result.arrays)["w"]


def recorded(folder: Path, strategy: Any, **options: Any) -> tuple[Result, RunFolder]:
    with RunFolder.create("test", config={}, seed=0, root=folder) as run_folder:
        result, _ = run(strategy, run=run_folder, **options)
        run_folder.finish({})
    return result, RunFolder.open("latest", root=folder)


# -- drift -----------------------------------------------------------------------------------------------------------


def test_divergence_is_the_distance_between_an_edge_and_the_merge(tmp_path: Path) -> None:
    result, folder = recorded(tmp_path, Hierarchical(one_each, cells=blocks(2)), nodes=2, rounds=1)
    rows = {row.cell: row.number("divergence") for row in folder.rows("train") if row.cell}
    for node in range(2):
        assert rows[f"edge-{node}"] == pytest.approx(float(np.linalg.norm(goal(node) / 3 - w(result))))
    (row,) = folder.rows("nodes")
    assert row.number("divergence") == pytest.approx((1 * rows["edge-0"] + 2 * rows["edge-1"]) / 3)
    assert row.number("divergence_max") == pytest.approx(max(rows.values()))


def test_edge_rounds_are_halved_when_the_edges_drift_apart_and_it_is_told(tmp_path: Path) -> None:
    class Away(FedAvg):
        """Its edge runs away, further every round."""

        def aggregate_train(self, server_round: int, replies: Any) -> Any:
            arrays, metrics = super().aggregate_train(server_round, replies)
            assert arrays is not None
            return record_of({"w": arrays_of(arrays)["w"] + 2.0**server_round}), metrics

        def state_dict(self) -> dict[str, Any]:
            return {}

        def load_state_dict(self, state: Any) -> None:
            pass

    strategy = Hierarchical(
        lambda cell: Away(**ONE, fraction_evaluate=0.0) if cell == "edge-0" else one_each(cell),
        cells=blocks(2),
        edge_rounds=4,
        lower=LowerEdgeRounds(growth=2.0),
    )
    _, folder = recorded(tmp_path, strategy, nodes=2, rounds=4)
    told = [row.values for row in folder.rows("event") if row.values.get("what") == "edge-rounds-lowered"]
    assert [event["edge_rounds"] for event in told][:1] == [2]
    used = [row.number("edge_rounds") for row in folder.rows("nodes")]
    assert used[0] == used[1] == 4.0
    assert used[2] == 2.0
    assert strategy.edge_rounds == 4, "what the user wrote stays"


def test_without_drift_edge_rounds_stay() -> None:
    strategy = Hierarchical(one_each, cells=blocks(2), edge_rounds=4, lower=LowerEdgeRounds())
    run(strategy, rounds=5)
    assert strategy.progress.edge_rounds == 4


# -- a strategy at the centre ----------------------------------------------------------------------------------------


def test_a_server_optimiser_at_the_centre_is_the_flat_one_when_edges_only_add_up() -> None:
    options: dict[str, Any] = {"eta": 0.1, "beta_1": 0.9, "beta_2": 0.99, "tau": 0.01, "fraction_evaluate": 0.0}
    flat, _ = run(FedAdam(**options), rounds=5)
    tiers, _ = run(Hierarchical(one_each, cells=blocks(2), centre=FedAdam(**options)), rounds=5)
    np.testing.assert_allclose(w(tiers), w(flat), rtol=1e-6)


def test_an_edge_with_momentum_goes_on_from_the_centres_model_and_not_from_its_own_last_one() -> None:
    def momentum(cell: str) -> FedAvgM:
        return FedAvgM(**ONE, fraction_evaluate=0.0, server_learning_rate=1.0, server_momentum=0.5)

    result, _ = run(Hierarchical(momentum, cells=blocks(2)), nodes=2, rounds=4)
    model, speed = np.zeros(2), [np.zeros(2), np.zeros(2)]
    for _ in range(4):
        speed = [0.5 * speed[edge] + (goal(edge) - model) / 3 for edge in range(2)]
        model = model + (speed[0] + 2 * speed[1]) / 3
    np.testing.assert_allclose(w(result), model, rtol=1e-9)


def test_fedavg_at_the_centre_is_the_default_up_to_rounding() -> None:
    own, _ = run(Hierarchical(one_each, cells=blocks(4), edge_rounds=2))
    flowers, _ = run(Hierarchical(one_each, cells=blocks(4), edge_rounds=2, centre=FedAvg()))
    np.testing.assert_allclose(w(flowers), w(own), rtol=1e-6)


def test_krum_at_the_centre_takes_one_edge_as_it_is() -> None:
    krum = Hierarchical(one_each, cells=blocks(4), centre=Krum(num_malicious_nodes=1))
    result, _ = run(krum, rounds=1)
    assert any(np.allclose(w(result), goal(node) / 3) for node in range(4))


def test_a_centre_that_needs_more_edges_than_there_are_says_so_instead_of_waiting() -> None:
    strategy = Hierarchical(one_each, cells=blocks(2), centre=FedAvg(min_available_nodes=3))
    with pytest.raises(RoundFailed, match="2 edges can be asked and FedAvg at the centre needs 3"):
        run(strategy)


def test_what_is_no_strategy_for_the_centre_is_refused() -> None:
    with pytest.raises(ConfigError, match="pass a Flower strategy whose nodes are the edges"):
        Hierarchical(one_each, centre=FedAvg)  # type: ignore[arg-type]
    with pytest.raises(NestingError, match="Layered"):
        Hierarchical(one_each, centre=Layered(FedAvg()))
    with pytest.raises(NestingError, match="brings its own start"):
        Hierarchical(one_each, centre=Hierarchical(one_each))


def test_the_centres_momentum_survives_a_stop(tmp_path: Path) -> None:
    def strategy() -> Hierarchical:
        return Hierarchical(one_each, cells=blocks(2), centre=FedAdam(eta=0.1, beta_1=0.9))

    whole, _ = run(strategy(), rounds=4)
    with RunFolder.create("test", config={}, seed=0, root=tmp_path) as folder:
        run(strategy(), rounds=2, run=folder)
        rest, _ = run(strategy(), rounds=4, run=folder, resume=True)
    np.testing.assert_array_equal(w(rest), w(whole))


# -- edges the centre does not wait for --------------------------------------------------------------------------------


def asynchronous(
    seconds: list[float], buffer: int, mixing: float, against: str, rounds: int, s: Any
) -> tuple[np.ndarray, float]:
    """The thirty-line version: one terminal per edge, an event queue, the equations of the papers."""
    now, model, version, busy = 0.0, np.zeros(2), 0, {}
    queue: list[tuple[float, int]] = []
    for _ in range(rounds):
        for edge, took in enumerate(seconds):
            if edge not in busy:
                busy[edge] = (version, model.copy())
                heapq.heappush(queue, (now + took, edge))
        came = []
        while len(came) < buffer and queue:
            now, edge = heapq.heappop(queue)
            came.append((edge, *busy.pop(edge)))
        total = sum(edge + 1 for edge, _, _ in came)
        mean = np.zeros(2)
        for edge, began, base in came:
            own = base + (goal(edge) - base) / 3
            step = own - (base if against == "version" else model)
            mean += (edge + 1) / total * (model + s(version - began) * step)
        model, version = model + mixing * (mean - model), version + 1
    return model, now


#: No two edges ever come at the same moment.
SECONDS = [1.0, 2.3, 7.01, 3.17]


@pytest.mark.parametrize("against", ["version", "current"])
@pytest.mark.parametrize(("buffer", "mixing"), [(1, 1.0), (1, 0.3), (2, 1.0), (3, 0.5)])
def test_late_edges_are_merged_as_the_equations_say(buffer: int, mixing: float, against: Any) -> None:
    strategy = Hierarchical(one_each, cells=blocks(4), asynchronous=FedBuff(buffer, mixing, against=against))
    result, grid = run(strategy, rounds=9, seconds=SECONDS)
    model, now_s = asynchronous(SECONDS, buffer, mixing, against, 9, lambda tau: (1 + tau) ** -0.5)
    np.testing.assert_allclose(w(result), model, rtol=1e-12)
    assert isinstance(grid, VirtualClock)
    assert grid.now_s == pytest.approx(now_s)


def test_fedbuff_with_a_buffer_of_one_is_fedasync() -> None:
    one, _ = run(
        Hierarchical(one_each, cells=blocks(4), asynchronous=FedBuff(1, 0.6, against="current")), 4, 9, SECONDS
    )
    other, _ = run(Hierarchical(one_each, cells=blocks(4), asynchronous=FedAsync(0.6)), 4, 9, SECONDS)
    np.testing.assert_array_equal(w(one), w(other))
    # w <- w + α s(τ) (w_e − w), one edge at a time
    model, _ = asynchronous(SECONDS, 1, 0.6, "current", 9, lambda tau: (1 + tau) ** -0.5)
    np.testing.assert_allclose(w(other), model, rtol=1e-12)


@pytest.mark.parametrize("seconds", [None, SECONDS])
def test_a_buffer_of_all_edges_is_the_synchronous_merge_bit_for_bit(seconds: list[float] | None) -> None:
    sync, _ = run(Hierarchical(one_each, cells=blocks(4), edge_rounds=2), seconds=seconds)
    buffered, _ = run(Hierarchical(one_each, cells=blocks(4), edge_rounds=2, asynchronous=FedBuff(4)), seconds=seconds)
    np.testing.assert_array_equal(w(buffered), w(sync))


def test_a_slow_edge_holds_nobody_up() -> None:
    seconds = [1.0, 1.0, 1.0, 100.0]
    _, waited = run(Hierarchical(one_each, cells=blocks(4)), rounds=5, seconds=seconds)
    _, went_on = run(Hierarchical(one_each, cells=blocks(4), asynchronous=FedBuff(3)), rounds=5, seconds=seconds)
    assert isinstance(waited, VirtualClock)
    assert isinstance(went_on, VirtualClock)
    assert (waited.now_s, went_on.now_s) == (500.0, 5.0)


def test_an_edge_that_is_too_late_is_dropped_by_name_and_begins_anew(tmp_path: Path) -> None:
    strategy = Hierarchical(one_each, cells=blocks(2), asynchronous=FedBuff(1, max_staleness=2, staleness=constant()))
    _, folder = recorded(tmp_path, strategy, nodes=2, rounds=8, seconds=[1.0, 3.5])
    dropped = [row for row in folder.rows("event") if row.values["what"] == "cell-skipped"]
    assert dropped
    assert {row.cell for row in dropped} == {"edge-1"}
    assert "began 3 versions ago, and at most 2 are merged" in str(dropped[0].values["text"])


def test_how_late_an_edge_was_and_what_it_counted_is_recorded(tmp_path: Path) -> None:
    strategy = Hierarchical(one_each, cells=blocks(2), asynchronous=FedBuff(1))
    _, folder = recorded(tmp_path, strategy, nodes=2, rounds=6, seconds=[1.0, 3.5])
    late = [row for row in folder.rows("event") if row.values["what"] == "late-merged"]
    assert late
    assert late[0].cell == "edge-1"
    assert late[0].values["scale"] == pytest.approx((1 + int(late[0].values["staleness"])) ** -0.5)


def test_edges_in_clientapps_are_merged_as_they_come() -> None:
    def members(cell: str, context: Context) -> list[dict[str, int]]:
        return [{"partition-id": int(context.node_config["partition-id"]), "num-partitions": 4}]

    strategy = Hierarchical(tier=LocalTier(), asynchronous=FedBuff(1))
    with LocalGrid(edge_app(seeking_app(), one_each, members), 4) as local:
        clock = VirtualClock(local, [Device(step_s=s) for s in SECONDS], [Link()] * 4)
        result = strategy.start(clock, START, num_rounds=9)
    model, now_s = asynchronous(SECONDS, 1, 1.0, "version", 9, lambda tau: (1 + tau) ** -0.5)
    np.testing.assert_allclose(w(result), model, rtol=1e-12)
    assert clock.now_s == pytest.approx(now_s)


def test_layers_of_the_centre_see_late_edges_too() -> None:
    strategy = Layered(Hierarchical(one_each, cells=blocks(2), asynchronous=FedBuff(1)), Metered())
    result, _ = run(strategy, nodes=2, rounds=5, seconds=[1.0, 3.5])
    model, _ = asynchronous([1.0, 3.5], 1, 1.0, "version", 5, lambda tau: (1 + tau) ** -0.5)
    np.testing.assert_allclose(w(result), model, rtol=1e-12)


def test_an_asynchronous_run_can_be_stopped_and_goes_on(tmp_path: Path) -> None:
    def strategy() -> Hierarchical:
        return Hierarchical(one_each, cells=blocks(3), asynchronous=FedBuff(1))

    with RunFolder.create("test", config={}, seed=0, root=tmp_path) as folder:
        run(strategy(), nodes=3, rounds=4, seconds=SECONDS[:3], run=folder)
        went_on = strategy()
        result, _ = run(went_on, nodes=3, rounds=8, seconds=SECONDS[:3], run=folder, resume=True)
    assert went_on.progress.version == 8
    assert np.isfinite(w(result)).all()


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"buffer": 0}, "buffer = 0"),
        ({"buffer": 1, "mixing": 0.0}, "mixing = 0.0"),
        ({"buffer": 1, "max_staleness": -1}, "max_staleness = -1"),
        ({"buffer": 1, "against": "both"}, "against = 'both'"),
    ],
)
def test_a_rule_that_cannot_be_is_refused(options: dict[str, Any], words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        FedBuff(**options)


# -- edges out of the centre's reach -----------------------------------------------------------------------------------


def away(rounds: set[int]) -> Any:
    def reachable(round: Round, cell: str) -> bool:
        return cell != "edge-1" or round.cloud not in rounds

    return reachable


@pytest.mark.parametrize("out", [{2}, {2, 3}, {3, 4}, {5}])
def test_an_edge_out_of_reach_trains_on_and_uploads_what_it_learned_since(out: set[int], tmp_path: Path) -> None:
    strategy = Hierarchical(one_each, cells=blocks(2), reachable=away(out))
    result, folder = recorded(tmp_path, strategy, nodes=2, rounds=5)
    # While away it goes on from the model it last sent up; what it has learned since is added to the centre's.
    model, version, began = np.zeros(2), 0, 0
    sent = own = None
    for number in range(1, 6):
        zero = model + (goal(0) - model) / 3
        if number in out:
            assert sent is not None
            own = (sent if own is None else own) + (goal(1) - (sent if own is None else own)) / 3
            model, version = zero, version + 1
            continue
        if own is not None:
            own = own + (goal(1) - own) / 3
            one = model + (1 + version - began) ** -0.5 * (own - sent)
            sent, own = own, None
        else:
            one = model + (goal(1) - model) / 3
            sent, began = one, version
        model, version = (zero + 2 * one) / 3, version + 1
    np.testing.assert_allclose(w(result), model, rtol=1e-12)
    texts = [str(row.values["text"]) for row in folder.rows("event")]
    assert sum("out of the centre's reach; it trains on alone" in text for text in texts) == len(out)
    if max(out) < 5:
        assert any(row.values["what"] == "late-merged" for row in folder.rows("event"))


def test_an_edge_that_never_had_a_model_waits(tmp_path: Path) -> None:
    result, folder = recorded(tmp_path, Hierarchical(one_each, cells=blocks(2), reachable=away({1})), nodes=2, rounds=1)
    np.testing.assert_allclose(w(result), goal(0) / 3)
    assert any("has no model yet and waits" in str(row.values["text"]) for row in folder.rows("event"))


def test_a_run_stopped_while_an_edge_is_away_loses_nothing(tmp_path: Path) -> None:
    def strategy() -> Hierarchical:
        return Hierarchical(one_each, cells=blocks(2), reachable=away({2, 3}))

    whole, _ = run(strategy(), nodes=2, rounds=5)
    with RunFolder.create("test", config={}, seed=0, root=tmp_path) as folder:
        run(strategy(), nodes=2, rounds=3, run=folder)
        rest, _ = run(strategy(), nodes=2, rounds=5, run=folder, resume=True)
    np.testing.assert_array_equal(w(rest), w(whole))


# -- terminals that move -----------------------------------------------------------------------------------------------


class Wandering:
    """Terminal 0 is in the first cell in the first edge round and in the second afterwards; the others stay."""

    moving = True

    def __call__(self, grid: Grid, round: Round) -> Mapping[str, list[int]]:
        first = round.edge <= 1
        zero, *others = list(grid.get_node_ids())
        return {"a": [*([zero] if first else []), *others[:2]], "b": [*others[2:], *([] if first else [zero])]}


def test_a_terminal_that_moved_counts_once_where_it_was_accepted_last(tmp_path: Path) -> None:
    strategy = Hierarchical(one_each, cells=Wandering(), edge_rounds=2)
    _, folder = recorded(tmp_path, strategy, nodes=5, rounds=1, seconds=[1.0] * 5)
    examples = {row.cell: row.number("num-examples") for row in folder.rows("train") if row.cell}
    assert examples == {"a": 20.0 + 30.0, "b": 40.0 + 50.0 + 10.0}


def test_an_edge_whose_terminals_all_moved_on_has_nothing_to_merge(tmp_path: Path) -> None:
    class Leaving:
        moving = True

        def __call__(self, grid: Grid, round: Round) -> Mapping[str, list[int]]:
            nodes = list(grid.get_node_ids())
            return {"a": nodes[:1] if round.edge <= 1 else [], "b": nodes[1:] if round.edge <= 1 else nodes}

    result, folder = recorded(
        tmp_path, Hierarchical(one_each, cells=Leaving(), edge_rounds=2), nodes=2, rounds=1, seconds=[1.0, 1.0]
    )
    texts = [str(row.values["text"]) for row in folder.rows("event")]
    assert any("all of them are counted at b" in text for text in texts)
    first = goal(1) / 3
    second = (1 * (first + (goal(0) - first) / 3) + 2 * (first + (goal(1) - first) / 3)) / 3
    np.testing.assert_allclose(w(result), second)


def test_a_round_in_which_everybody_is_away_lets_time_pass_and_keeps_the_model(tmp_path: Path) -> None:
    class OutFirst:
        moving = True

        def __call__(self, grid: Grid, round: Round) -> Mapping[str, list[int]]:
            return {"a": list(grid.get_node_ids()) if round.cloud > 1 else []}

    with pytest.raises(RoundFailed, match="idle_s= lets time pass"):
        run(Hierarchical(one_each, cells=OutFirst()), nodes=2, seconds=[1.0, 1.0])
    strategy = Hierarchical(one_each, cells=OutFirst(), idle_s=30.0)
    result, folder = recorded(tmp_path, strategy, nodes=2, rounds=2, seconds=[1.0, 1.0])
    np.testing.assert_allclose(w(result), (goal(0) + 2 * goal(1)) / 9)
    (idle,) = [row for row in folder.rows("event") if row.values["what"] == "idle"]
    assert (idle.round, idle.virtual_s) == (1, 30.0)


def test_cells_that_do_not_move_are_asked_once_per_cloud_round() -> None:
    asked = []

    def cells(grid: Grid, round: Round) -> Mapping[str, list[int]]:
        asked.append(round.cloud)
        return {"a": list(grid.get_node_ids())}

    run(Hierarchical(one_each, cells=cells, edge_rounds=3), rounds=2)
    assert asked == [1, 2]


def test_toy_models_are_the_same_with_and_without_a_moving_cell_that_never_moves() -> None:
    class Still:
        moving = True

        def __call__(self, grid: Grid, round: Round) -> Mapping[str, list[int]]:
            return {"edge-0": list(grid.get_node_ids())}

    def model(cells: Any) -> ArrayRecord:
        with LocalGrid(toy_app(), 5) as grid:
            strategy = Hierarchical(lambda cell: FedAvg(fraction_train=0.6), cells=cells, edge_rounds=2, seed=3)
            found = strategy.start(grid, initial_model(), num_rounds=3, train_config=ConfigRecord()).arrays
        assert found is not None
        return found

    assert same_model(model(Still()), model(blocks(1)))


# -- what a review found -----------------------------------------------------------------------------------------------


def test_an_edge_whose_reply_comes_when_its_cell_is_not_listed_is_merged_and_asked_again() -> None:
    asked: list[tuple[int, str]] = []

    class Told(Layer[None]):
        def outbound(self, state: None, round: Round, messages: list[Message]) -> tuple[list[Message], None]:
            asked.extend((round.cloud, round.cell) for _ in messages[:1])
            return messages, state

    def cells(grid: Grid, round: Round) -> Mapping[str, list[int]]:
        fast, slow = list(grid.get_node_ids())
        return {"fast": [fast]} if 2 <= round.cloud <= 4 else {"fast": [fast], "slow": [slow]}

    strategy = Hierarchical(
        lambda cell: Layered(one_each(cell), Told()), cells=cells, asynchronous=FedBuff(1, staleness=constant())
    )
    run(strategy, nodes=2, rounds=8, seconds=[1.0, 2.5])
    assert [number for number, cell in asked if cell == "slow"][:2] == [1, 5]


@pytest.mark.parametrize("direction", ["outbound", "inbound"])
def test_a_layer_that_drops_an_edge_once_does_not_lose_it_for_good(direction: str, tmp_path: Path) -> None:
    class Drops(Layer[int]):
        def init(self) -> int:
            return 0

        def _without_first(self, state: int, round: Round, messages: list[Message]) -> tuple[list[Message], int]:
            if round.cloud == 1 and round.kind == "train" and messages:
                return messages[1:], state + 1
            return messages, state

    setattr(Drops, direction, Drops._without_first)
    strategy = Layered(Hierarchical(one_each, cells=blocks(2), asynchronous=FedBuff(1), idle_s=0.5), Drops())
    _, folder = recorded(tmp_path, strategy, nodes=2, rounds=6, seconds=[1.0, 1.3])
    replied = {row.cell for row in folder.rows("train") if row.cell and row.number("num-examples")}
    assert replied == {"edge-0", "edge-1"}


def edges_of_one(app: ClientApp) -> ClientApp:
    def members(cell: str, context: Context) -> list[dict[str, int]]:
        return [{"partition-id": int(context.node_config["partition-id"]), "num-partitions": 3}]

    return edge_app(app, one_each, members)


def test_a_silent_edge_is_given_up_and_asked_again() -> None:
    strategy = Hierarchical(tier=LocalTier(poll_s=0.01), asynchronous=FedBuff(3))
    silent = [Fault(2, "silent", at=1)]
    begun_s = time.monotonic()
    with LocalGrid(edges_of_one(seeking_app()), 3, script=silent) as grid:
        strategy.start(grid, START, num_rounds=4, timeout=1.0)
    assert strategy.progress.under_way == {}
    assert time.monotonic() - begun_s < 8, "one wait, and not one per round"


def test_an_edge_away_beyond_the_limit_is_not_merged_and_its_lateness_is_the_true_one(tmp_path: Path) -> None:
    def strategy(limit: int | None) -> Hierarchical:
        return Hierarchical(
            one_each, cells=blocks(2), reachable=away({2, 3, 4}), asynchronous=FedBuff(2, max_staleness=limit)
        )

    _, late = recorded(tmp_path / "late", strategy(None), nodes=2, rounds=5)
    (event,) = [row.values for row in late.rows("event") if row.values["what"] == "late-merged"]
    assert event["staleness"] == 4
    _, dropped = recorded(tmp_path / "dropped", strategy(2), nodes=2, rounds=5)
    assert not [row for row in dropped.rows("event") if row.values["what"] == "late-merged"]
    assert any("began 4 versions ago" in str(row.values["text"]) for row in dropped.rows("event"))


class Refuses(Layer[None]):
    """Lets no merge through in some rounds."""

    def __init__(self, rounds: set[int]) -> None:
        self.rounds = rounds

    def merged(self, state: None, round: Round, before: ArrayRecord, after: ArrayRecord) -> tuple[ArrayRecord, None]:
        return (before if round.cloud in self.rounds else after), state


def test_momentum_at_the_centre_goes_on_from_the_model_in_force() -> None:
    def momentum() -> FedAvgM:
        return FedAvgM(**ONE, fraction_evaluate=0.0, server_learning_rate=0.5, server_momentum=0.0)

    flat, _ = run(Layered(momentum(), Refuses({1, 2})), nodes=2, rounds=3)
    tiers, _ = run(Layered(Hierarchical(one_each, cells=blocks(2), centre=momentum()), Refuses({1, 2})), 2, 3)
    np.testing.assert_allclose(w(tiers), w(flat), rtol=1e-9)


def test_a_merge_that_is_refused_is_no_version() -> None:
    inner = Hierarchical(one_each, cells=blocks(2))
    run(Layered(inner, Refuses({2, 3})), nodes=2, rounds=4)
    assert inner.progress.version == 2


def test_one_edge_alone_says_nothing_about_drift() -> None:
    rule = LowerEdgeRounds()
    assert rule.next(8, 0.0, 1.0) == (8, 1.0)
    assert rule.next(8, float("nan"), 1.0) == (8, 1.0)
    with pytest.raises(ConfigError, match="needs the drift of several edges"):
        Hierarchical(one_each, lower=rule, asynchronous=FedBuff(1))


def test_a_returning_terminal_finds_what_was_known_of_it_after_a_resume(tmp_path: Path) -> None:
    class Changing:
        """Terminal 0 changes its cell every cloud round; told as `Coverage` tells it."""

        moving = True

        def __init__(self) -> None:
            self.at, self.told = 0, 0

        def __call__(self, grid: Grid, round: Round) -> Mapping[str, list[int]]:
            self.at = round.cloud
            zero, *others = list(grid.get_node_ids())
            cells = {"a": others[:2], "b": others[2:]}
            cells["a" if round.cloud % 2 else "b"].append(zero)
            return cells

        def handed_over(self) -> list[Handover]:
            moved = self.at > max(1, self.told)
            self.told = self.at
            source, target = ("b", "a") if self.at % 2 else ("a", "b")
            return [Handover("0", 1000, source, target, time_s=0.0)] if moved else []

        def state_dict(self) -> dict[str, int]:
            return {"told": self.told}

        def load_state_dict(self, state: Mapping[str, int]) -> None:
            self.told = state["told"]

    def strategy() -> Hierarchical:
        return Hierarchical(
            lambda cell: Layered(one_each(cell), Retire(Limits(rounds=2), for_rounds=1, at_least=1)),
            cells=Changing(),
            seed=1,
            idle_s=0.01,
        )

    whole, _ = run(strategy(), nodes=5, rounds=5)
    for cut in (1, 2, 3, 4):
        with RunFolder.create(f"cut-{cut}", config={}, seed=0, root=tmp_path) as folder:
            run(strategy(), nodes=5, rounds=cut, run=folder)
            rest, _ = run(strategy(), nodes=5, rounds=5, run=folder, resume=True)
        np.testing.assert_array_equal(w(rest), w(whole))


def test_terminals_that_are_no_edges_are_told_apart_by_name() -> None:
    with LocalGrid(seeking_app(), 3) as grid, pytest.raises(RoundFailed, match=r"is no edge.*edge_app"):
        Hierarchical(tier=LocalTier(), edge_rounds=5).start(grid, START, num_rounds=1)


def test_one_strategy_for_two_cells_is_refused() -> None:
    shared = one_each("")
    with pytest.raises(ConfigError, match="make a new one for every cell"):
        run(Hierarchical(lambda cell: shared, cells=blocks(2)))


def test_a_centre_that_cannot_merge_is_named_and_numbers_that_not_all_edges_tell_do_no_harm(tmp_path: Path) -> None:
    class Broken(FedAvg):
        def aggregate_train(self, server_round: int, replies: Any) -> Any:
            raise ValueError("no idea")

    with pytest.raises(RoundFailed, match=r"Broken at the centre could not merge 2 edges: ValueError: no idea"):
        run(Hierarchical(one_each, cells=blocks(2), centre=Broken()))

    class Talks(FedAvg):
        def aggregate_train(self, server_round: int, replies: Any) -> Any:
            arrays, metrics = super().aggregate_train(server_round, replies)
            assert metrics is not None
            metrics["extra"] = 1.0
            return arrays, metrics

    def edge(cell: str) -> FedAvg:
        return Talks(**ONE, fraction_evaluate=0.0) if cell == "edge-0" else one_each(cell)

    result, _ = run(Hierarchical(edge, cells=blocks(2), centre=FedAvg()), rounds=2)
    assert np.isfinite(w(result)).all()


def test_a_centre_with_too_few_edges_waits_where_waiting_was_asked_for(tmp_path: Path) -> None:
    strategy = Hierarchical(one_each, cells=blocks(1), centre=FedAvg(), idle_s=5.0)
    _, folder = recorded(tmp_path, strategy, nodes=2, rounds=2, seconds=[1.0, 1.0])
    assert [row.values["what"] for row in folder.rows("event")] == ["idle", "idle"]


def test_an_edges_numbers_may_be_numpys(tmp_path: Path) -> None:
    class Counts(Layer[None]):
        def metrics(self, state: None) -> Mapping[str, float]:
            return {"norm": np.float32(0.5), "many": np.int64(3)}  # type: ignore[dict-item]

        def events(self, state: None) -> tuple[list[Event], None]:
            return [Event("counted", "counted", time_s=0.0, values={"many": np.int64(3)})], state  # type: ignore[dict-item]

    result, folder = recorded(
        tmp_path, Hierarchical(lambda cell: Layered(one_each(cell), Counts())), nodes=2, rounds=1, seconds=[1.0, 1.0]
    )
    assert result.arrays is not None
    rows = [row for row in folder.rows("event") if row.values["what"] == "counted"]
    assert rows
    assert {(row.values["many"], row.virtual_s) for row in rows} == {(3, 0.0)}
    assert any(row.values.get("norm") == 0.5 for row in folder.rows("traffic"))


def test_complex_models_keep_their_imaginary_parts() -> None:
    spec = {"w": ((1,), "complex128")}
    results = [
        EdgeResult(cell, record_of({"w": np.array([value])}), 1.0, {}, {})
        for cell, value in (("a", 1 + 2j), ("b", 3 + 4j))
    ]
    assert arrays_of(merge_edges(results, spec))["w"][0] == 2 + 3j


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"edge": FedAvg}, "edge is a FedAvg; pass a factory"),
        ({"edge": 3}, "edge = 3: expected a factory"),
        ({"cells": 3}, "cells = 3: expected a cell function"),
        ({"cells": {"a": [1]}}, "expected a cell function"),
        ({"reachable": True}, "reachable = True: expected a function"),
        ({"asynchronous": 2}, "asynchronous = 2: expected FedBuff"),
        ({"asynchronous": FedBuff}, "expected FedBuff"),
        ({"lower": 1.5}, "lower = 1.5: expected LowerEdgeRounds"),
        ({"idle_s": "5"}, "idle_s = '5'"),
        ({"seed": "7"}, "seed = '7'"),
        ({"centre": FedAdam(), "asynchronous": FedBuff(1)}, "needs 2 edges and FedBuff"),
    ],
)
def test_an_argument_of_another_kind_is_refused_when_it_is_given(options: dict[str, Any], words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        Hierarchical(**{"edge": one_each, **options})


def test_cells_may_come_from_numpy_and_nonsense_is_named() -> None:
    def cells(grid: Grid, round: Round) -> Any:
        return {"a": np.array(list(grid.get_node_ids()))}

    assert run(Hierarchical(one_each, cells=cells, seed=np.int64(3)), rounds=1)  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match="returned a list; expected"):
        run(Hierarchical(one_each, cells=lambda grid, round: [1000]))  # type: ignore[arg-type, return-value]
    with pytest.raises(ConfigError, match="listed twice in the cell"):
        run(Hierarchical(one_each, cells=lambda grid, round: {"a": [1000, 1000]}))
    with pytest.raises(ConfigError, match="is no Flower strategy; return a new one"):
        run(Hierarchical(lambda cell: None))  # type: ignore[arg-type, return-value]


def test_without_a_clock_the_last_edge_round_counts_whichever_edge_ran_first(tmp_path: Path) -> None:
    class Back:
        """Terminal 0 is in the second cell in the first edge round and in the first one in the second."""

        moving = True

        def __call__(self, grid: Grid, round: Round) -> Mapping[str, list[int]]:
            zero, one, two = list(grid.get_node_ids())
            return {"a": [one], "b": [zero, two]} if round.edge <= 1 else {"a": [zero, one], "b": [two]}

    strategy = Hierarchical(one_each, cells=Back(), edge_rounds=2)
    _, folder = recorded(tmp_path, strategy, nodes=3, rounds=1)
    examples = {row.cell: row.number("num-examples") for row in folder.rows("train") if row.cell}
    assert examples == {"a": 10.0 + 20.0, "b": 30.0}


def test_what_comes_with_a_terminal_while_a_layer_asks_is_not_lost() -> None:
    class Knows(Layer[dict[str, int]]):
        """Takes its time when it narrows, and keeps what it is handed."""

        def init(self) -> dict[str, int]:
            return {"7": 1}

        def narrow(
            self, state: dict[str, int], round: Round, grid: Grid, nodes: list[int]
        ) -> tuple[list[int], dict[str, int]]:
            sessions[0].take_over(5, [("Knows", 3)])
            given.append(sessions[0].hand_over(7))
            return nodes, {**state, "asked": 1}

        def hand_over(self, state: dict[str, int], node_id: int) -> tuple[Any, dict[str, int]]:
            left = {key: value for key, value in state.items() if key != str(node_id)}
            return state.get(str(node_id)), left

        def take_over(self, state: dict[str, int], node_id: int, parcel: Any) -> dict[str, int]:
            return {**state, str(node_id): parcel}

    sessions: list[LayeredGrid] = []
    given: list[Any] = []
    with LocalGrid(seeking_app(), 2) as grid:
        sessions.append(LayeredGrid(grid, [Knows()]))
        list(sessions[0].get_node_ids())
    assert given == [[("Knows", 1)]]
    assert sessions[0].states == [{"asked": 1, "5": 3}]
