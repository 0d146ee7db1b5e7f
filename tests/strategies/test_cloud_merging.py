"""What the centre merges: by a strategy of its own, with a layer around it, numbers and models of any kind."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from flwr.app import ArrayRecord
from flwr.serverapp.strategy import FedAdam, FedAvg, FedAvgM, Krum
from seeking_toy import ONE, goal, one_each, recorded, run, w

from flower_edge.errors import ConfigError, NestingError, RoundFailed
from flower_edge.events import Event
from flower_edge.rounds import Round
from flower_edge.store import RunFolder
from flower_edge.strategies import (
    Hierarchical,
    Layer,
    Layered,
    blocks,
)
from flower_edge.strategies.hierarchy.merging import EdgeResult, merge_edges
from flower_edge.wire import arrays_of, record_of


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


def test_a_centre_with_too_few_edges_waits_where_waiting_was_asked_for(tmp_path: Path) -> None:
    strategy = Hierarchical(one_each, cells=blocks(1), centre=FedAvg(), idle_s=5.0)
    _, folder = recorded(tmp_path, strategy, nodes=2, rounds=2, seconds=[1.0, 1.0])
    assert [row.values["what"] for row in folder.rows("event")] == ["idle", "idle"]


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
