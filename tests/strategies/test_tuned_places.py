"""`Tuned` where it stands: at an edge, beside other layers, around other strategies, in a checkpoint."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest
from flwr.app import ConfigRecord, Context, Message, RecordDict
from flwr.clientapp import ClientApp
from flwr.serverapp.strategy import FedAvg, FedProx
from toy import initial_model, toy_app
from tuned_cases import NODES, START, Keeping, doubling, layer, run, telling_app

from flower_edge.clients import codec_mod, edge_app
from flower_edge.clients.tuning import report
from flower_edge.codecs import Eden
from flower_edge.codecs import Identity as IdentityCodec
from flower_edge.errors import ConfigError, NestingError, ResumeError
from flower_edge.rounds import Round
from flower_edge.runtime.local_grid import LocalGrid
from flower_edge.store import RunFolder, tree_from_bytes, tree_to_bytes
from flower_edge.strategies import Admitted, Compressed, Hierarchical, Layer, Layered, LocalTier, blocks
from flower_edge.strategies.filtering.filtered import Filtered
from flower_edge.strategies.tuned import Tuned
from flower_edge.tuning import HYPERPARAMETER_RECORD, PROPOSED_KEY, LogScale, Value
from flower_edge.wire import record_of


def test_every_edge_has_proposals_of_its_own(tmp_path: Any) -> None:
    def tell(node: int, values: dict[str, Value]) -> tuple[Mapping[str, Any], Any]:
        return {"lr": 0.5 if node < 3 else 0.002}, None

    seen: list[tuple[int, dict[str, Value]]] = []
    centre = Hierarchical(
        edge=lambda cell: Layered(FedAvg(fraction_evaluate=0.0), layer()), cells=blocks(2), edge_rounds=2
    )
    folder = RunFolder.create("tuned", config={}, seed=1, root=tmp_path)
    with LocalGrid(telling_app(tell, seen), NODES) as grid, folder:
        Layered(centre).start(grid, initial_model(), num_rounds=2, run=folder)
        told = [(row.round, row.values["what"], row.values["tuned_lr"]) for row in folder.rows("event")]
    last = dict(seen)
    assert [last[node]["lr"] for node in range(NODES)] == [0.5] * 3 + [0.002] * 3
    # Two cells, two edge rounds in each of two cloud rounds.
    assert sorted(told) == sorted([(r, "proposed", lr) for r in (1, 2) for lr in (0.5, 0.002) for _ in range(2)])


def test_an_edge_in_a_process_of_its_own_keeps_its_proposals_from_visit_to_visit() -> None:
    seen: list[tuple[int, dict[str, Value]]] = []

    def edge(cell: str) -> Layered:
        return Layered(FedAvg(fraction_evaluate=0.0), layer())

    def members(cell: str, context: Context) -> list[dict[str, bool | int | float | str]]:
        first = 3 * int(context.node_config["partition-id"])
        return [{"partition-id": first + i, "num-partitions": NODES} for i in range(3)]

    with LocalGrid(edge_app(telling_app(doubling, seen), edge, members), 2) as edges:
        Hierarchical(tier=LocalTier(), edge_rounds=2).start(edges, initial_model(), num_rounds=2)
    rates = {node: [values["lr"] for other, values in seen if other == node] for node in range(NODES)}
    for rate in rates.values():
        np.testing.assert_allclose(rate, [0.01, 0.02, 0.04, 0.08])  # type: ignore[arg-type]


def test_proposals_and_reports_survive_flowers_own_serialisation() -> None:
    strategy = Keeping()
    with LocalGrid(telling_app(doubling), NODES, serialise=True) as grid:
        Layered(strategy, layer()).start(grid, initial_model(), num_rounds=1)
    assert strategy.kept[0].states[0].proposal["lr"] == pytest.approx(0.02)


@pytest.mark.parametrize("below", [Admitted(), Compressed(IdentityCodec())], ids=["admitted", "compressed"])
def test_reports_pass_the_layers_below(below: Layer[Any]) -> None:
    inner = telling_app(doubling)
    app = ClientApp(mods=[codec_mod]) if isinstance(below, Compressed) else inner
    if app is not inner:

        @app.train()
        def train(message: Message, context: Context) -> Message:
            return inner(message, context)

    assert run(app, layer(), below, rounds=1).proposal["lr"] == pytest.approx(0.02)


def test_a_refused_reply_has_no_say() -> None:
    def tell(node: int, values: dict[str, Value]) -> tuple[Mapping[str, Any], Any]:
        return {"lr": 1.0 if node == 2 else 0.02}, None

    inner = telling_app(tell)
    app = ClientApp()

    @app.train()
    def train(message: Message, context: Context) -> Message:
        reply = inner(message, context)
        if context.node_config["partition-id"] == 2:
            reply.content["arrays"] = record_of({"weight": np.full(6, np.nan, np.float32), "bias": np.zeros(1)})
        return reply

    assert run(app, layer(trim=0.0), rounds=1).proposal["lr"] > 0.02  # type: ignore[operator]
    assert run(app, layer(trim=0.0), Filtered(seed=1), rounds=1).proposal["lr"] == 0.02


def test_fedprox_is_told_its_own_mu_by_the_terminals() -> None:
    seen: list[float] = []

    def mod(message: Message, context: Context, call_next: Any) -> Message:
        seen.append(float(message.content.config_records["config"]["proximal-mu"]))  # type: ignore[arg-type]
        reply: Message = call_next(message, context)
        reply.content = report(reply.content, {"proximal-mu": 0.4})
        return reply

    tuned = Tuned({"proximal-mu": LogScale(1e-3, 1.0)}, {"proximal-mu": 0.2})
    with LocalGrid(toy_app([mod]), 2) as grid:
        strategy = FedProx(fraction_evaluate=0.0, proximal_mu=0.9)
        Layered(strategy, tuned).start(grid, initial_model(), num_rounds=2)
    assert seen == [0.2, 0.2, 0.4, 0.4]


def test_around_hierarchical_it_is_refused_with_the_right_place() -> None:
    with pytest.raises(NestingError, match=r"edge=lambda cell: Layered\(FedAvg\(\), Tuned"):
        Layered(Hierarchical(edge=lambda cell: FedAvg(), cells=blocks(2)), layer())


def test_replies_folded_into_one_are_refused() -> None:
    with pytest.raises(NestingError, match="fold"):
        Layered(FedAvg(), layer(), Compressed(Eden(bits=1), fold=True))


# -- checkpoints -----------------------------------------------------------------------------------------------------


def test_a_run_cut_in_two_proposes_what_an_uncut_one_does(tmp_path: Any) -> None:
    def start(rounds: int, folder: RunFolder, resume: bool) -> list[tuple[int, dict[str, Value]]]:
        seen: list[tuple[int, dict[str, Value]]] = []
        with LocalGrid(telling_app(doubling, seen), NODES) as grid:
            strategy = Layered(FedAvg(fraction_evaluate=0.0), layer(explore=0.5))
            strategy.start(grid, initial_model(), num_rounds=rounds, run=folder, resume=resume)
        return sorted(seen[-NODES:], key=lambda told: told[0])

    with RunFolder.create("whole", config={}, seed=1, root=tmp_path) as whole:
        uncut = start(4, whole, False)
    with RunFolder.create("cut", config={}, seed=1, root=tmp_path) as cut:
        start(2, cut, False)
        assert start(4, cut, True) == uncut


def test_a_checkpoint_of_other_hyperparameters_is_refused() -> None:
    tuned = layer()
    saved = tree_from_bytes(tree_to_bytes(tuned.dump(tuned.init())))
    with pytest.raises(ResumeError, match="the checkpoint proposes"):
        Tuned({"lr": LogScale(0.1, 1.0)}, {"lr": 0.2}).load(saved)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"explore": 1.5}, "explore"),
        ({"explore": True}, "explore"),
        ({"trim": 0.9}, "trim"),
        ({"by_score": "best"}, "by_score"),
        ({"config_key": HYPERPARAMETER_RECORD}, "config_key"),
    ],
    ids=str,
)
def test_arguments_out_of_range_are_refused_by_name(options: dict[str, Any], words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        layer(**options)


def test_messages_keep_what_else_they_carry() -> None:
    tuned = layer()
    content = RecordDict(
        {"arrays": initial_model(), "config": ConfigRecord({"lr": 9.0, "x": 1}), "own": ConfigRecord()}
    )
    with LocalGrid(toy_app(), 1):
        messages, _ = tuned.outbound(tuned.init(), Round(1), [Message(content, 1000, "train")])
    sent = messages[0].content
    assert list(sent) == ["arrays", "config", "own"]
    assert dict(sent.config_records["config"].items()) == {**START, "x": 1, PROPOSED_KEY: list(START)}
    assert dict(content.config_records["config"].items()) == {"lr": 9.0, "x": 1}
