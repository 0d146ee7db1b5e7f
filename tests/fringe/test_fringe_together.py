"""Pruning, pairs, freezing, healing and state, one after the other on the same pipeline, and what strangers hand in."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from pruning_cases import settled
from torch import nn

from flower_edge.errors import FringeError, FrozenMoved
from flower_edge.fringe.digest_torch import digest, digests
from flower_edge.fringe.distil_recipe import DistilRecipe
from flower_edge.fringe.distil_torch import distil
from flower_edge.fringe.distil_training_torch import DistilData, DistilTraining
from flower_edge.fringe.fitting_torch import Recipe
from flower_edge.fringe.freezing_torch import freeze
from flower_edge.fringe.fringe_torch import fringe
from flower_edge.fringe.pair_parts_torch import placed
from flower_edge.fringe.pair_search_torch import tried_shapes
from flower_edge.fringe.pair_shapes import PairShape
from flower_edge.fringe.pair_torch import Pair
from flower_edge.fringe.pipeline_torch import Pipeline, distribute
from flower_edge.fringe.pruned_layers_torch import Map
from flower_edge.fringe.pruning_pipeline_torch import heal, prune, rank
from flower_edge.fringe.removal_torch import removable, without
from flower_edge.fringe.wire import TensorSpec, Wire
from flower_edge.fringe.wire_forms import WireForm
from flower_edge.models.zoo_torch import Residual
from flower_edge.store import tree_from_bytes, tree_to_bytes

ONE_EPOCH = Recipe(epochs=1, lr=5e-3, batch_size=16)
SHORT = DistilRecipe(regress_epochs=1, distil_epochs=1)


def made(*layers: nn.Module) -> nn.Sequential:
    """Weights that do not follow from what ran before."""
    generator = torch.Generator().manual_seed(0)
    model = nn.Sequential(*layers)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(0.5 * torch.randn(parameter.shape, generator=generator))
    return model.eval()


def residual(cut: str = "2") -> Pipeline:
    """Three machines; the last cut lies behind a block. `cut` "2.norm2" leaves two tensors to send."""
    model = made(
        nn.Conv2d(1, 6, 3, padding=1), nn.ReLU(), Residual(6, 6, 1), Residual(6, 8, 2), nn.AdaptiveAvgPool2d(1),
        nn.Flatten(), nn.Linear(8, 3),
    )  # fmt: skip
    return distribute(settled(model), pictures(2), ["camera", "gateway", "cloud"], [cut, "3"])


def pictures(samples: int = 40) -> torch.Tensor:
    return torch.randn(samples, 1, 6, 6, generator=torch.Generator().manual_seed(3))


class Shifted(nn.Module):
    """Adds numbers that are no parameters: kept in no state, or in the state."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.last = nn.Linear(6, 8), nn.Linear(8, 3)
        self.register_buffer("shift", torch.linspace(-1, 1, 8), persistent=False)
        self.register_buffer("scale", torch.linspace(1, 2, 8))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        out: torch.Tensor = self.last(torch.relu(self.first(x) + self.shift) * self.scale)
        return out


def shifted() -> tuple[Pipeline, torch.Tensor]:
    x = torch.randn(30, 6, generator=torch.Generator().manual_seed(0))
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = Shifted().eval()
    return distribute(model, x[:2], ["a", "b"], ["relu"]), x


# -- one after the other ---------------------------------------------------------------------------------------------


def test_the_fringe_of_a_pruned_pipeline_is_that_of_the_whole_one() -> None:
    whole = residual("2.norm2")
    found = fringe(whole, 2)
    pruned = whole
    for tensor in (0, 1):
        pruned = prune(pruned, 0, [0, 2], torch.ones(6, 2), fringe=found, tensor=tensor)
    put_in = [name for part in pruned.parts for name in dict(part.module.named_modules()) if "ed_" in name]
    assert put_in
    assert fringe(pruned, 2) == found


def test_the_inputs_of_a_part_come_first_whatever_is_put_in_behind_them() -> None:
    whole = residual("2.norm2")
    pruned = prune(whole, 0, [0, 2], torch.ones(6, 2), fringe=fringe(whole))
    steps = [node.op for node in pruned.part("gateway").module.graph.nodes]
    assert steps[:2] == ["placeholder", "placeholder"]


def test_maps_that_pruning_put_in_may_learn_and_are_not_frozen() -> None:
    whole, x = residual("2.norm2"), pictures()
    found = fringe(whole)
    pruned = prune(whole, 0, [0, 3], torch.full((6, 2), 0.3), fringe=found)
    maps = [name for part in pruned.parts for name, one in part.module.named_modules() if isinstance(one, Map)]
    proof = freeze(pruned, found)
    healed, what = heal(whole, pruned, 0, x, found, recipe=ONE_EPOCH)
    assert what.healed
    assert maps
    assert digest(healed, [f"{maps[0]}.weight"]) != digest(pruned, [f"{maps[0]}.weight"])
    proof.check(healed)
    assert digest(healed, found.frozen(whole)) == digest(whole, found.frozen(whole))


def test_both_connections_are_pruned_and_healed_twice_where_two_tensors_cross_one() -> None:
    whole, x = residual("2.norm2"), pictures()
    found = fringe(whole)
    pipeline = whole
    for connection in (0, 1, 0, 1):
        ranking = rank(pipeline, connection, x, found)
        keep = ranking.keep(len(ranking.removed) // 2)
        before = pipeline.connections[connection].size_bytes
        proof = freeze(pipeline, found)
        pipeline = prune(pipeline, connection, keep, ranking.map(keep), fringe=found)
        pipeline, _ = heal(whole, pipeline, connection, x, found, recipe=ONE_EPOCH)
        proof.check(pipeline)
        assert pipeline.connections[connection].size_bytes < before
    assert digest(whole) == digest(residual("2.norm2"))


def test_a_pair_goes_to_a_pruned_connection_and_pruning_to_the_code_of_a_pair() -> None:
    whole, x = residual(), pictures()
    found = fringe(whole)
    pruned = prune(whole, 0, [0, 2, 4], fringe=found)
    result = distil(pruned, {0: PairShape(((3, 6, 6),), 2)}, x, teacher=whole, recipe=SHORT)
    frozen = found.frozen(whole)
    for pipeline in (result.pipeline, prune(result.pipeline, 0, [1], fringe=found)):
        healed, _ = heal(whole, pipeline, 0, x, found, recipe=ONE_EPOCH)
        assert digest(healed, frozen) == digest(whole, frozen)
        state = tree_from_bytes(tree_to_bytes(healed.state()))
        assert torch.equal(pipeline.with_state(state).run(x), healed.run(x))
    with pytest.raises(FringeError, match="connection 0 has a pair already"):
        distil(result.pipeline, {0: 60}, x, recipe=SHORT)


def test_norms_without_weights_and_constants_do_not_keep_a_fringe_from_healing() -> None:
    model = made(nn.Conv2d(1, 6, 3), nn.BatchNorm2d(6, affine=False), nn.ReLU(), nn.Conv2d(6, 4, 3), nn.Flatten())
    whole, x = distribute(model, pictures(2), ["a", "b"], ["2"]), pictures()
    found = fringe(whole)
    assert "1" in found.layers()
    assert heal(whole, prune(whole, 0, [0, 1], fringe=found), 0, x, found, recipe=ONE_EPOCH)[1].healed
    constants, x = shifted()
    found = fringe(constants, 2)
    assert found.layers() == ("first", "last")
    assert heal(constants, prune(constants, 0, [0, 1], fringe=found), 0, x, found, recipe=ONE_EPOCH)[1].healed


def test_what_a_model_keeps_out_of_its_state_stays_out_of_that_of_copies() -> None:
    whole, x = shifted()
    found = fringe(whole)
    pair = Pair(PairShape(((8,),), 3)).eval()
    for pipeline in (whole, prune(whole, 0, [1, 5], fringe=found), placed(whole, {0: pair})):
        assert not any("shift" in arrays for arrays in pipeline.state()["parts"].values())
        again = pipeline.copied().with_state(pipeline.state())
        assert again.state()["parts"].keys() == pipeline.state()["parts"].keys()
        assert all(again.state()["parts"][m].keys() == pipeline.state()["parts"][m].keys() for m in whole.machines)
        assert torch.equal(again.run(x), pipeline.run(x))


def test_a_block_with_a_constant_inside_can_be_left_out() -> None:
    class Moved(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.linear = nn.Linear(6, 6)
            self.register_buffer("by", torch.ones(6))

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            out: torch.Tensor = self.linear(x) + self.by
            return out

    whole = distribute(made(nn.Linear(6, 6), Moved(), nn.ReLU(), nn.Linear(6, 2)), torch.ones(2, 6), ["a", "b"], ["2"])
    assert ("a", "1") in removable(whole, fringe(whole))
    assert not [name for name in without(whole, "a", "1").part("a").arrays() if name.startswith("1.")]


@pytest.mark.parametrize("form", [WireForm(), WireForm(4)])
def test_healing_that_diverges_ends_and_leaves_what_there_was(form: WireForm) -> None:
    whole, x = residual(), pictures()
    pruned = prune(whole, 0, [0, 1], fringe=fringe(whole)).formed({0: form})
    same, found = heal(whole, pruned, 0, x, fringe(whole), recipe=Recipe(epochs=4, lr=1e30, batch_size=8))
    assert same is pruned
    assert not found.healed
    assert len(found.fit.losses) == 2


def test_healing_sees_what_the_wire_of_its_connection_makes_of_tensors() -> None:
    whole, x = residual(), pictures(16)
    pruned = prune(whole, 0, [0, 1], fringe=fringe(whole))
    errors = [
        heal(whole, one, 0, x, fringe(whole), recipe=Recipe(epochs=0))[1].fit.losses[0]
        for one in (pruned, pruned.formed({0: WireForm(8, fraction=0.1)}))
    ]
    assert errors[1] > errors[0]


# -- where it is called from -----------------------------------------------------------------------------------------


def test_who_evaluates_without_gradients_may_heal_and_distil_there() -> None:
    whole, x = residual(), pictures(16)
    found = fringe(whole)
    pruned = prune(whole, 0, [0, 1], fringe=found)

    def both() -> tuple[object, ...]:
        healed, _ = heal(whole, pruned, 0, x, found, recipe=ONE_EPOCH)
        tried = tried_shapes(whole.crossing(x)[0], [PairShape(((6, 6, 6),), 2)], steps=2)
        return digest(healed), digest(distil(whole, {0: 80}, x, recipe=SHORT).pipeline), tried

    outside = both()
    with torch.no_grad():
        assert both() == outside


def test_healing_moves_no_running_statistic_of_parts_that_were_left_in_training_mode() -> None:
    whole, x = residual(), pictures()
    found = fringe(whole)
    pruned = prune(whole, 0, [0, 1], fringe=found)
    wanted, _ = heal(whole, pruned, 0, x, found, recipe=ONE_EPOCH)
    left = pruned.copied()
    for part in left.parts:
        part.module.train()
    healed, what = heal(whole, left, 0, x, found, recipe=ONE_EPOCH)
    assert what.healed
    assert digest(healed) == digest(wanted)


def test_a_server_s_step_is_that_of_evaluation_whatever_mode_a_part_was_left_in() -> None:
    whole, x = residual(), pictures(3)
    wanted = whole.parts[0].step([x.numpy()])[0]
    before = digest(whole)
    whole.parts[0].module.train()
    assert np.array_equal(whole.parts[0].step([x.numpy()])[0], wanted)
    assert digest(whole) == before
    assert whole.parts[0].module.training


def test_a_digest_knows_the_dtype_and_the_shape_beside_the_bytes() -> None:
    zeros = torch.zeros(4), torch.zeros(2, 2), torch.zeros(4, dtype=torch.int32), torch.zeros(2, dtype=torch.float64)
    assert len({digests({"w": one})["w"] for one in zeros}) == 4


def test_a_pipeline_is_told_in_a_line() -> None:
    assert len(repr(residual())) < 250


# -- what strangers hand in ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("x", "words"),
    [
        (pictures(2).numpy(), r"type ndarray, expected a tensor \[batch, 1, 6, 6\]"),
        (pictures(2).double(), "float64, expected"),
        (torch.zeros(2, 3, 6, 6), r"shape \(2, 3, 6, 6\)"),
        (torch.zeros(1, 6, 6), r"shape \(1, 6, 6\)"),
    ],
)
def test_an_input_of_another_kind_is_named_with_what_was_expected(x: Any, words: str) -> None:
    for call in (residual().run, residual().crossing):
        with pytest.raises(FringeError, match=words):
            call(x)


@pytest.mark.parametrize(
    "call",
    [
        lambda p: p.formed({"0": WireForm(8)}),
        lambda p: p.formed({0: 8}),
        lambda p: p.with_state(7),
        lambda p: p.with_state({**p.state(), "wires": 5}),
        lambda p: p.with_state({**p.state(), "parts": 5}),
        lambda p: p.with_state({**p.state(), "version": "x"}),
        lambda p: prune(p, 0, [0.5, 1.7], fringe=fringe(p)),
        lambda p: prune(p, 0.0, [0], fringe=fringe(p)),
        lambda p: heal(p, p, 0, pictures(), fringe(p, 0)),
        lambda p: heal(residual("0"), p, 0, pictures(), fringe(p), recipe=ONE_EPOCH),
        lambda p: heal(p, distribute(made(nn.Flatten(), nn.Linear(36, 3)), pictures(2), ["camera", "gateway"], ["0"]),
                       0, pictures(), fringe(p)),
        lambda p: distil(p, {"0": 100}, pictures()),
        lambda p: distil(p, {0: "100"}, pictures()),
        lambda p: distil(p, {0: 100}, pictures(), np.zeros(3, np.int64)),
        lambda p: PairShape(((4, 8, 8),), channels=1.5),  # type: ignore[arg-type]
        lambda p: PairShape((4, 8, 8), channels=1),  # type: ignore[arg-type]
        lambda p: Recipe(epochs=1.5),  # type: ignore[arg-type]
        lambda p: Recipe(lr=float("inf")),
        lambda p: DistilRecipe(regress_lr="x"),  # type: ignore[arg-type]
    ],
)  # fmt: skip
def test_wrong_arguments_are_answered_with_a_fringe_error(call: Callable[[Pipeline], object]) -> None:
    with pytest.raises(FringeError, match=r"expected|use |give |name "):
        call(residual())


def test_labels_may_be_whole_numbers_of_any_width() -> None:
    whole, x = residual(), pictures()
    y = np.arange(len(x)) % 3
    found = [distil(whole, {0: 100}, x, y.astype(kind), recipe=SHORT) for kind in (np.int64, np.int32, np.uint8)]
    assert len({digest(one.pipeline) for one in found}) == 1


def test_a_training_is_not_taken_up_with_other_labels_or_another_validation_set() -> None:
    whole, x = residual(), pictures(12)
    y = torch.arange(12) % 3

    def training(y: torch.Tensor, validation: torch.Tensor, state: dict[str, Any] | None = None) -> DistilTraining:
        data = DistilData(x, y, whole.run(x), validation, y.numpy(), lambda outputs, labels: 0.0)
        return DistilTraining(whole, {0: PairShape(((6, 6, 6),), 2)}, data, SHORT, state)

    state = training(y, x).state()
    training(y, x, state)
    for other in ((y + 1, x), (y, x + 1)):
        with pytest.raises(FringeError, match="another data"):
            training(*other, state)


def test_an_original_tensor_that_somebody_moves_is_noticed_in_the_same_epoch() -> None:
    whole, x = residual(), pictures(12)

    def moves(outputs: np.ndarray, labels: np.ndarray) -> float:
        with torch.no_grad():
            whole.named_tensors()["6.bias"].add_(1)
        return 0.0

    data = DistilData(x, None, whole.run(x), x, np.zeros(12), moves)
    training = DistilTraining(whole, {0: PairShape(((6, 6, 6),), 2)}, data, SHORT)
    training.epoch()  # of regression, which scores nothing
    with pytest.raises(FrozenMoved, match=r"6\.bias"):
        training.epoch()


def test_a_tensor_without_numbers_crosses_in_every_form() -> None:
    for form in (WireForm(8), WireForm(8, fraction=0.5), WireForm(16, per="tensor")):
        wire = Wire.plain([TensorSpec("none", (2, 0, 3))]).formed(form)
        sent = wire.encode([np.zeros((4, 2, 0, 3), np.float32)])
        assert len(sent) == wire.size_bytes(4)
        assert wire.decode(sent)[0].shape == (4, 2, 0, 3)
