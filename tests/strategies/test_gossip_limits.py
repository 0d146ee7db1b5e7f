"""Gossip at its limits: models of any dtype, worlds out of reach, controllers that err, averaging where it is hard."""

from __future__ import annotations

import gc
import tracemalloc
from typing import Any

import numpy as np
import pytest
from flwr.app import ArrayRecord, ConfigRecord, Context, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp
from test_gossip import NODES, Drawn, make_app, model, run

from flower_edge.clients import gossip_mod
from flower_edge.control import Control, Dcent, Equal, Start
from flower_edge.control.controller import State
from flower_edge.errors import ConfigError, ProtocolError, RoundFailed, TopologyError
from flower_edge.runtime import Fault, LocalGrid
from flower_edge.runtime.clock.round_clock import RoundClock
from flower_edge.store import RunFolder
from flower_edge.strategies import Gossip, Hierarchical, Layer, Layered, Metered, blocks
from flower_edge.topology import Topology
from flower_edge.topology.set_ups import set_up
from flower_edge.wire import arrays_of, record_of


def answering(change: Any = None, seen: list[dict[str, Any]] | None = None) -> ClientApp:
    app = ClientApp(mods=[gossip_mod])

    @app.train()
    def train(message: Message, context: Context) -> Message:
        config = message.content.config_records["config"]
        if seen is not None:
            seen.append(dict(config))
            config["mine"] = int(context.node_config["partition-id"])
        arrays = arrays_of(message.content["arrays"])  # type: ignore[arg-type]
        if change is not None:
            change(arrays, int(context.node_config["partition-id"]))
        metrics = MetricRecord({"num-examples": 1})
        return Message(RecordDict({"arrays": record_of(arrays), "metrics": metrics}), reply_to=message)

    return app


# -- models ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("serialise", [False, True])
def test_every_array_keeps_its_dtype_and_shape(serialise: bool) -> None:
    arrays = {
        "half": np.ones(3, np.float16),
        "single": np.ones((2, 2), np.float32),
        "tracked": np.array(7, np.int64),
        "scale": np.array(2.5, np.float32),
        "mask": np.array([True, False]),
        "nothing": np.zeros((0, 3)),
        "bytes": np.arange(4, dtype=np.uint8),
        "wave": np.array([1.0 + 2.0j], np.complex64),
    }

    def change(found: dict[str, np.ndarray], partition: int) -> None:
        found["tracked"] = found["tracked"] + 2 * partition
        found["wave"] = found["wave"] * np.complex64(1j)

    with LocalGrid(answering(change), 3, serialise=serialise) as grid:
        result = Gossip(Equal(), fraction_evaluate=0.0).start(RoundClock(grid), record_of(arrays), 3)
    found = arrays_of(result.arrays)
    assert {name: (array.dtype, array.shape) for name, array in found.items()} == {
        name: (array.dtype, array.shape) for name, array in arrays.items()
    }
    assert found["tracked"] == 7 + 3 * 2
    np.testing.assert_allclose(found["wave"], np.array([(1 + 2j) * 1j**3]))
    np.testing.assert_array_equal(found["mask"], arrays["mask"])


@pytest.mark.parametrize("nodes", [1, 2, 40])
def test_any_number_of_workers(nodes: int) -> None:
    strategy = Gossip(Dcent(step_cap=0.1), world=set_up("nlos", 1, nodes=nodes), fraction_evaluate=0.0)
    result, means = run(strategy, rounds=2, nodes=nodes)
    assert np.isfinite(means).all()
    assert result.train_metrics_clientapp[2]["links"] == nodes * (nodes - 1)


def test_a_large_model_is_not_held_once_per_neighbour() -> None:
    size, nodes = 400_000, 6
    start = record_of({"w": np.zeros(size, np.float32)})
    with LocalGrid(answering(), nodes) as grid:
        # The models stay where they are also at the end: none of them comes to the server.
        strategy = Gossip(Equal(), mailbox="shared-memory", mean_every=100, final="local", fraction_evaluate=0.0)
        strategy.start(RoundClock(grid), start, 2)
        tracemalloc.start()
        # Flower's records are cycles: how many wait for the collector depends on what else is allocated meanwhile.
        often, seldom = (100, 3, 3), gc.get_threshold()
        gc.set_threshold(*often)
        try:
            strategy.start(RoundClock(grid), start, 2)
        finally:
            gc.set_threshold(*seldom)
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
    # Each node's own model stays, and a round at one node takes some copies, in double precision.
    assert peak < (2 * nodes + 16) * 4 * size


def test_a_model_that_is_no_number_any_more_stops_nobody_and_shows(tmp_path: Any) -> None:
    def change(found: dict[str, np.ndarray], partition: int) -> None:
        if partition == 1:
            found["weight"] = found["weight"] * np.nan

    result, means = run(Gossip(Equal(), fraction_evaluate=0.0, converged_below=1e9), rounds=3, app=answering(change))
    assert np.isnan(means[0]).all()
    told = result.train_metrics_clientapp
    assert [told[number].get("distance") for number in (1, 2, 3)] == [None, np.inf, np.inf]
    with RunFolder.create("test", config={}, seed=0, root=tmp_path) as folder, LocalGrid(answering(change), 3) as grid:
        Gossip(Equal(), fraction_evaluate=0.0).start(RoundClock(grid), model(), 2, run=folder)


def test_what_the_train_config_says_reaches_every_train_function_and_none_sees_anothers_notes() -> None:
    seen: list[dict[str, Any]] = []
    with LocalGrid(answering(seen=seen), 3) as grid:
        Gossip(Equal()).start(RoundClock(grid), model(), 2, train_config=ConfigRecord({"lr": 0.5}))
    assert seen == [{"lr": 0.5, "server-round": number} for number in (1, 2) for _ in range(3)]


def test_a_worker_with_more_than_a_megabyte_keeps_it_in_a_file(tmp_path: Any) -> None:
    node = {"num-partitions": 2, "state-dir": str(tmp_path)}
    with LocalGrid(answering(), [{**node, "partition-id": k} for k in range(2)]) as grid:
        Gossip(Equal(), fraction_evaluate=0.0).start(RoundClock(grid), record_of({"w": np.zeros(300_000)}), 2)
    assert sum(path.stat().st_size for path in tmp_path.rglob("*") if path.is_file()) > 2 * 300_000 * 8


# -- worlds and controllers ------------------------------------------------------------------------------------------


class Fading:
    """One second of P, one link out of reach in each round from the second on; all of them in the fourth."""

    def __init__(self, nodes: int = NODES) -> None:
        self.topology = Topology.complete(nodes)
        self.budget_hz = np.full(nodes, 1e6)

    def positions_m(self, round: int) -> None:
        return None

    def processing_s(self, round: int) -> np.ndarray:
        return np.ones(self.topology.nodes)

    def spectral_efficiency(self, round: int) -> np.ndarray:
        found = np.full(self.topology.links, 2.0)
        if round >= 2:
            found[round % self.topology.links] = 0.0
        return found if round != 4 else 0.0 * found

    def latency_s(self, round: int) -> np.ndarray:
        return np.zeros(self.topology.links)


@pytest.mark.parametrize("mailbox", ["relay", "shared-memory"])
@pytest.mark.parametrize(
    ("controller", "signalling", "staleness"),
    [(Equal(), "rows", 0), (Equal(), "rows", 1), (Dcent(step_cap=0.1), "scalars", 0)],
)
def test_nobody_waits_for_a_link_that_carries_nothing_and_nothing_comes_over_it(
    mailbox: Any, controller: Any, signalling: Any, staleness: int
) -> None:
    strategy = Gossip(
        controller, world=Fading(), mailbox=mailbox, signalling=signalling, staleness=staleness, fraction_evaluate=0.0
    )
    result, _ = run(strategy, rounds=7)
    told = result.train_metrics_clientapp
    assert all(np.isfinite(list(found.values())).all() for found in told.values() if "distance" in found)
    assert told[2]["out_of_reach"] == 1
    assert told[4]["round_time_s"] == pytest.approx(1.0)
    if not staleness:
        assert "distance" not in told[5]
        assert told[7]["distance"] > 0


class Erring(Drawn):
    """Decides something else than there is."""

    def __init__(self, control: Control, when: int) -> None:
        super().__init__()
        self.control, self.when = control, when

    def init(self, start: Start) -> tuple[Control, State]:
        found, state = super().init(start)
        return (self.control if self.when == 0 else found), state

    def step(self, state: State, observation: Any) -> tuple[Control, State]:
        return self.control, state


@pytest.mark.parametrize("when", [0, 1])
@pytest.mark.parametrize(
    ("control", "why"),
    [
        (Control(np.ones(3), np.ones(2), np.ones(3)), "20 finite values"),
        (Control(np.full(20, 0.5), np.zeros(5), np.ones(20)), "sum to"),
        (Control(np.full(20, 0.25), np.zeros(5), np.zeros(20)), "no band"),
    ],
)
def test_a_controller_that_decides_what_cannot_be_is_named(control: Control, why: str, when: int) -> None:
    with pytest.raises((RoundFailed, TopologyError), match=f"Erring.*{why}"):
        run(Gossip(Erring(control, when)))


@pytest.mark.parametrize("count", [3, 8])
def test_a_world_that_is_too_small_is_refused_and_one_that_is_larger_narrowed(count: int) -> None:
    strategy = Gossip(Equal(), world=set_up("nlos", 1, nodes=count), fraction_evaluate=0.0)
    if count < NODES:
        with pytest.raises(ConfigError, match="5 nodes take part and the world has 3"):
            run(strategy)
    else:
        run(strategy)
        assert strategy.group is not None
        assert strategy.group.topology.nodes == NODES


def test_where_nobody_is_on_the_grid_it_says_how_to_wait() -> None:
    with pytest.raises(ProtocolError, match="expected_nodes"):
        run(Gossip(), nodes=0)


def test_a_gap_cannot_be_kept_by_a_server_that_is_told_no_weights() -> None:
    with pytest.raises(ConfigError, match="gap_min"):
        Gossip(Dcent(gap_min=0.1), signalling="scalars")


# -- averaging and the end -------------------------------------------------------------------------------------------


class Clairvoyant(Drawn):
    """Wants to see the coming round, and would put its own rows in force in the averaging ones, too."""

    clairvoyant = True


@pytest.mark.parametrize(
    ("controller", "staleness", "mailbox"),
    [
        (Drawn(2), 2, "relay"),
        (Drawn(2), 2, "shared-memory"),
        (Clairvoyant(2), 0, "relay"),
    ],
)
def test_averaging_ends_at_the_mean_whatever_the_rounds_were_like(
    controller: Any, staleness: int, mailbox: Any
) -> None:
    world = set_up("nlos-per-device", 0, nodes=NODES)
    _, means = run(Gossip(controller, world=world, staleness=staleness, mailbox=mailbox, fraction_evaluate=0.0))
    strategy = Gossip(
        controller,
        world=world,
        staleness=staleness,
        mailbox=mailbox,
        final="averaging",
        averaged_to=1e-6,
        fraction_evaluate=0.0,
    )
    result, _ = run(strategy)
    np.testing.assert_allclose(arrays_of(result.arrays)["weight"], means[-1], rtol=1e-5)
    # They do agree, and not only their mean.
    assert strategy.distance < 1e-6


def test_averaging_acts_inside_layers_and_is_recorded_and_a_finished_run_that_is_resumed_averages_again(
    tmp_path: Any,
) -> None:
    def strategy() -> Layered:
        return Layered(Gossip(Drawn(2), final="averaging", averaged_to=1e-9, fraction_evaluate=0.0), Metered())

    with RunFolder.create("test", config={}, seed=0, root=tmp_path) as folder, LocalGrid(make_app(), NODES) as grid:
        whole = strategy().start(RoundClock(grid), model(), 3, run=folder)
        again = strategy().start(RoundClock(grid), model(), 3, run=folder, resume=True)
    opened = RunFolder.open("latest", root=tmp_path)
    assert [row.values["what"] for row in opened.rows("event")].count("averaged") == 2
    for name, array in arrays_of(whole.arrays).items():
        np.testing.assert_array_equal(opened.load_model()[name], arrays_of(again.arrays)[name])
        np.testing.assert_allclose(arrays_of(again.arrays)[name], array, rtol=1e-8)


def test_where_averaging_fails_the_result_is_the_mean_by_the_server() -> None:
    _, means = run(Gossip(Equal(), fraction_evaluate=0.0), rounds=3)
    script = [Fault(node, "raise", at=5) for node in range(NODES)]
    result, _ = run(Gossip(Drawn(), final="averaging", fraction_evaluate=0.0), rounds=3, script=script)
    _, plain = run(Gossip(Drawn(), fraction_evaluate=0.0), rounds=3)
    np.testing.assert_array_equal(arrays_of(result.arrays)["weight"], plain[-1])
    assert len(means) == 3


def test_a_run_that_converged_stays_so_when_it_is_resumed(tmp_path: Any) -> None:
    with RunFolder.create("test", config={}, seed=0, root=tmp_path) as folder, LocalGrid(make_app(), NODES) as grid:
        first = Gossip(Equal(), converged_below=900.0).start(RoundClock(grid), model(), 9, run=folder)
        again = Gossip(Equal(), converged_below=900.0).start(RoundClock(grid), model(), 9, run=folder, resume=True)
    assert len(first.train_metrics_clientapp) < 9
    assert again.train_metrics_clientapp.keys() == first.train_metrics_clientapp.keys()


def test_a_layer_may_end_gossip_and_local_models_stay_where_they_are() -> None:
    class Enough(Layer[None]):
        def stop(self, state: None, round: Any) -> str | None:
            return "enough" if round.cloud == 2 else None

    strategy = Gossip(Equal(), final="local")
    with LocalGrid(make_app(), NODES) as grid:
        result = Layered(strategy, Enough()).start(RoundClock(grid), model(), 5)
    assert len(result.train_metrics_clientapp) == 2


@pytest.mark.parametrize("signalling", ["rows", "requirements", "scalars"])
def test_cells_gossip_under_a_centre_with_every_way_of_signalling(signalling: Any) -> None:
    ends = []
    for way in ("rows", signalling):
        hierarchy = Hierarchical(
            edge=lambda cell, way=way: Gossip(  # type: ignore[misc]
                Dcent(step_cap=0.2), world=set_up("nlos", 5, nodes=6), signalling=way, fraction_evaluate=0.0
            ),
            cells=blocks(2),
            edge_rounds=3,
            seed=3,
        )
        ends.append(run(hierarchy, rounds=3, nodes=6)[1])
    np.testing.assert_allclose(ends[0], ends[1], rtol=1e-12)


def test_what_happens_in_a_gossiping_cell_is_recorded_with_its_name(tmp_path: Any) -> None:
    hierarchy = Hierarchical(edge=lambda cell: Gossip(Drawn()), cells=blocks(2), edge_rounds=2)
    with RunFolder.create("test", config={}, seed=0, root=tmp_path) as folder, LocalGrid(make_app(), NODES) as grid:
        hierarchy.start(RoundClock(grid), model(), 2, run=folder)
    rows = RunFolder.open("latest", root=tmp_path).rows("event")
    assert {(row.cell, row.values["what"]) for row in rows} >= {("edge-0", "pruned"), ("edge-0", "revived")}


def test_a_mean_every_few_rounds_is_the_same_mean() -> None:
    _, each = run(Gossip(Drawn(), mailbox="shared-memory", fraction_evaluate=0.0), rounds=6)
    _, some = run(Gossip(Drawn(), mailbox="shared-memory", mean_every=3, fraction_evaluate=0.0), rounds=6)
    np.testing.assert_array_equal(some[5], each[5])
    np.testing.assert_array_equal(some[4], some[2])


def test_the_watched_worker_is_recorded_beside_the_mean() -> None:
    result, _ = run(Gossip(Equal(), watch=3), rounds=2)
    told: ArrayRecord | Any = result.evaluate_metrics_clientapp[2]
    assert {"accuracy", "accuracy_worst", "accuracy_watched"} <= set(told)
    assert told["accuracy_worst"] <= told["accuracy_watched"]
