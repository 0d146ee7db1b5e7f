"""Healing: what it may move, what it keeps, and that it helps."""

from __future__ import annotations

from functools import partial

import pytest
import torch
from pruning_cases import Pick, part, pictures, residual_pair, settled, state
from torch import fx, nn

from flower_edge.errors import FringeError
from flower_edge.fringe.digest_torch import digest
from flower_edge.fringe.fitting_torch import Recipe
from flower_edge.fringe.freezing_torch import freeze
from flower_edge.fringe.fringe_torch import Fringe, fringe
from flower_edge.fringe.healing_torch import distil_fringe, heal_locally, run_parts
from flower_edge.fringe.pipeline_torch import Pipeline, distribute
from flower_edge.fringe.pruning_pipeline_torch import heal, prune, rank, received
from flower_edge.fringe.pruning_torch import prune_connection, rank_channels, run_part
from flower_edge.fringe.sections_torch import before_and_after, up_to
from flower_edge.fringe.wire_forms import WireForm
from flower_edge.models import make_model

Pair = tuple[fx.GraphModule, fx.GraphModule]
LAYERS = ["2.conv2", "2.norm2", "0.conv1"]
SHORT = Recipe(epochs=3, batch_size=16, lr=3e-3)


def pruned_pair(mapped: bool = True) -> tuple[Pair, Pair, torch.Tensor]:
    producer, consumer = residual_pair()
    x = pictures(120)
    ranking = rank_channels(producer, consumer, [x])
    keep = ranking.keep(2)
    found = prune_connection(
        producer, consumer, keep, ranking.map(keep) if mapped else None, example=[x], allowed=["2", "0"]
    )
    return (producer, consumer), (found.producer.part, found.consumer.part), x


def test_local_healing_lowers_the_error_and_moves_the_named_layers_only() -> None:
    whole, pruned, x = pruned_pair(mapped=False)
    before = [state(one) for one in (*whole, *pruned)]
    frozen = [state(one, LAYERS) for one in pruned]
    buffers = [{name: b.clone() for name, b in one.named_buffers()} for one in pruned]
    found = heal_locally(whole, pruned, [x], LAYERS, recipe=SHORT)
    assert found.healed
    assert min(found.fit.losses) == found.fit.losses[found.fit.best] < 0.95 * found.fit.losses[0]
    assert [state(one) for one in (*whole, *pruned)] == before
    assert [state(one, LAYERS) for one in found.parts] == frozen
    for one, old in zip(found.parts, buffers, strict=True):
        for name, buffer in one.named_buffers():
            assert torch.equal(buffer, old[name]), name
    assert [state(one) for one in found.parts] != before[2:]


def test_healing_that_does_not_raise_the_score_is_dropped() -> None:
    whole, pruned, x = pruned_pair()
    found = heal_locally(whole, pruned, [x], LAYERS, recipe=SHORT, score=lambda a, b: 0.5)
    assert not found.healed
    assert found.scores == (0.5, 0.5)
    assert found.fit.best > 0
    assert [state(one) for one in found.parts] == [state(one) for one in pruned]
    for one, old in zip(found.parts, pruned, strict=True):  # maps that were put in as well
        assert all(torch.equal(a, b) for a, b in zip(one.parameters(), old.parameters(), strict=True))


def test_training_that_only_hurts_ends_where_it_began() -> None:
    whole, pruned, x = pruned_pair()
    found = heal_locally(whole, pruned, [x], LAYERS, recipe=Recipe(epochs=2, lr=30.0))
    assert not found.healed
    assert found.fit.best == 0
    assert [state(one) for one in found.parts] == [state(one) for one in pruned]


def test_the_same_seed_heals_to_the_same_bits_and_torchs_random_state_is_left_alone() -> None:
    whole, pruned, x = pruned_pair()
    random = torch.get_rng_state()
    one, again = (heal_locally(whole, pruned, [x], LAYERS, recipe=Recipe(epochs=1, seed=5)) for _ in range(2))
    other = heal_locally(whole, pruned, [x], LAYERS, recipe=Recipe(epochs=1, seed=6))
    assert [state(p) for p in one.parts] == [state(p) for p in again.parts] != [state(p) for p in other.parts]
    assert torch.equal(torch.get_rng_state(), random)


def test_modes_flags_and_gradients_are_left_as_they_were() -> None:
    whole, pruned, x = pruned_pair()
    pruned[0].train()
    for parameter in pruned[1].parameters():
        parameter.requires_grad_(False)
    found = heal_locally(whole, pruned, [x], LAYERS, recipe=Recipe(epochs=1))
    assert found.parts[0].training
    assert not found.parts[1].training
    assert pruned[0].get_submodule("2.norm1").training
    assert not any(p.requires_grad for p in found.parts[1].parameters())
    assert all(p.grad is None for one in (*found.parts, *pruned, *whole) for p in one.parameters())


def test_distilling_the_fringe_nears_the_teachers_scores_and_leaves_the_rest() -> None:
    whole, pruned, x = pruned_pair(mapped=False)
    teacher = run_parts(whole, [x])[0].detach()
    found = distil_fringe(pruned, [x], teacher, LAYERS, recipe=SHORT)
    assert found.healed
    assert found.fit.losses[found.fit.best] < found.fit.losses[0]
    assert [state(one, LAYERS) for one in found.parts] == [state(one, LAYERS) for one in pruned]


def test_a_wire_is_trained_through() -> None:
    whole, pruned, x = pruned_pair()

    def coarse(tensors: tuple[torch.Tensor, ...]) -> list[torch.Tensor]:
        return [t + (torch.round(t.detach() * 2) / 2 - t.detach()) for t in tensors]

    plain = heal_locally(whole, pruned, [x], LAYERS, recipe=SHORT)
    found = heal_locally(whole, pruned, [x], LAYERS, carry=coarse, recipe=SHORT)
    assert found.fit.losses[0] > plain.fit.losses[0]
    assert found.healed
    assert torch.equal(run_parts(pruned, [x], [coarse])[0], pruned[1](*coarse(pruned[0](x)))[0])


def test_the_two_halves_of_a_part_compute_the_part_wherever_it_is_cut() -> None:
    _, consumer = residual_pair()
    x = pictures(channels=6)
    whole = consumer(x)[0]
    for number in range(len(consumer.graph.nodes)):
        first, second = before_and_after(consumer, number)
        assert torch.equal(second(*first(x))[0], whole)
        held = [id(p) for half in (first, second) for p in half.parameters()]
        assert sorted(held) == sorted(id(p) for p in consumer.parameters())


def test_the_target_is_the_sum_at_the_end_of_the_block() -> None:
    _, consumer = residual_pair()
    nodes = list(consumer.graph.nodes)
    last = next(number for number, node in enumerate(nodes) if node.target == "0.conv1")
    (name,) = up_to(consumer, last)
    assert name == "add"


@pytest.mark.parametrize(
    ("layers", "words"), [(["2.conv9"], "no part has a layer '2.conv9'"), ([], "with no parameters"), ("2", r"\['2'\]")]
)
def test_layers_that_are_not_there_are_refused(layers: list[str], words: str) -> None:
    whole, pruned, x = pruned_pair()
    if not layers:  # no map to train either
        pruned = (pruned[0], whole[1])
    with pytest.raises(FringeError, match=words):
        heal_locally(whole, pruned, [x], layers, recipe=SHORT)


def test_recipes_samples_scores_and_carries_that_cannot_be_are_refused() -> None:
    whole, pruned, x = pruned_pair()
    for told in ({"epochs": -1}, {"lr": 0.0}, {"batch_size": 0}, {"held_out": 1.0}):
        with pytest.raises(FringeError, match="held_out between 0 and 1"):
            Recipe(**told)  # type: ignore[arg-type]
    with pytest.raises(FringeError, match="1 samples"):
        heal_locally(whole, pruned, [x[:1]], LAYERS)
    with pytest.raises(FringeError, match="3 scores for 120"):
        distil_fringe(pruned, [x], torch.zeros(3, 4), LAYERS)
    with pytest.raises(FringeError, match=r"\[4\] per sample, the teacher \[5\]"):
        distil_fringe(pruned, [x], torch.zeros(120, 5), LAYERS)
    with pytest.raises(FringeError, match="0 carries for 2 parts"):
        run_parts(pruned, [x], [])
    with pytest.raises(FringeError, match="loss of nan"):
        heal_locally(whole, pruned, [x], LAYERS, carry=lambda t: [one * float("nan") for one in t])


def pipeline() -> Pipeline:
    model = make_model("resnet", input_shape=(1, 8, 8), num_classes=4, seed=0)
    return distribute(settled(model).eval(), pictures(2, side=8), ["camera", "gateway", "server"], ["block1", "block2"])


def pruned_pipeline(keep: tuple[int, int] = (2, 3)) -> tuple[Pipeline, Pipeline, Fringe, torch.Tensor]:
    whole, x = pipeline(), pictures(100, side=8)
    layers, new = fringe(whole), whole
    for connection, count in enumerate(keep):
        ranking = rank(new, connection, x, layers)
        kept = ranking.keep(count)
        new = prune(new, connection, kept, ranking.map(kept), fringe=layers)
    return whole, new, layers, x


def test_a_pipeline_sends_fewer_bytes_on_both_connections_and_the_frozen_arrays_are_the_same_bytes() -> None:
    whole, new, layers, x = pruned_pipeline()
    frozen = layers.frozen(whole)
    before, whole_digest = digest(whole, frozen), digest(whole)
    saved = [a.size_bytes - b.size_bytes for a, b in zip(whole.connections, new.connections, strict=True)]
    assert saved == [6 * 64 * 4, 13 * 16 * 4]
    assert new.version == whole.version + 2
    healed, found = heal(whole, new, 0, x, layers, recipe=SHORT)
    assert found.healed
    assert healed.version == new.version + 1
    assert digest(new, frozen) == digest(healed, frozen) == before
    assert digest(whole) == whole_digest
    assert digest(healed, layers.arrays(whole)) != digest(new, layers.arrays(whole))


def test_healing_goes_through_the_wire_of_the_connection_and_scores_pipelines() -> None:
    whole, new, layers, x = pruned_pipeline((2, 16))
    rough = new.formed({0: WireForm(bits=4), 1: WireForm(bits=4)})
    seen: list[Pipeline] = []

    def score(one: Pipeline) -> float:
        seen.append(one)
        return -float((one.crossing(x)[1][0] - whole.crossing(x)[1][0]).square().mean())

    healed, found = heal(whole, rough, 0, x, layers, recipe=SHORT, score=score)
    assert found.healed
    assert found.scores is not None
    assert found.scores[1] > found.scores[0]
    assert [wire.forms for wire in healed.wires] == [wire.forms for wire in rough.wires]
    assert len(seen) == 2
    dropped, _ = heal(whole, rough, 0, x, layers, recipe=SHORT, score=lambda one: 0.0)
    assert dropped is rough


def test_a_connection_is_compared_in_the_channels_that_the_next_one_still_sends() -> None:
    whole, x = pipeline(), pictures(60, side=8)
    layers = fringe(whole)
    new = prune(prune(whole, 1, [0, 3, 7, 8, 15], fringe=layers), 1, [1, 2, 4], fringe=layers)
    _, found = heal(whole, new, 0, x, layers, recipe=Recipe(epochs=0))
    assert found.fit.losses[0] < 1e-9  # connection 0 is whole, and the gateway's channels 3, 7 and 15 are as they were
    other = new.part("gateway").module
    narrowed = next(node for node in other.graph.nodes if node.meta.get("flower_edge_kept"))
    assert narrowed.meta["flower_edge_kept"][1] == (3, 7, 15)
    pairs = [(p.parts[0].module, p.parts[1].module) for p in (whole, pipeline())]
    for node in list(pairs[1][1].graph.nodes):
        node._rename(f"{node.name}_other")
    with pytest.raises(FringeError, match="no step 'add"):
        heal_locally(pairs[0], pairs[1], [x], layers.layers("gateway"), recipe=Recipe(epochs=0))


def test_a_recurrent_pipeline_is_ranked_pruned_and_healed_on_both_connections() -> None:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        layers: list[nn.Module] = [nn.LSTM(4, 12, batch_first=True), nn.GRU(12, 8, batch_first=True)]
        model = nn.Sequential(*(Pick(layer) for layer in layers), nn.Linear(8, 3)).eval()
        x = torch.randn(60, 5, 4)
    whole = distribute(model, x[:2], ["a", "b", "c"], ["0", "1"])
    found, new = fringe(whole), whole
    for connection, count in ((0, 4), (1, 3)):
        ranking = rank(new, connection, x, found, axis=2)
        keep = ranking.keep(count)
        new = prune(new, connection, keep, ranking.map(keep), fringe=found, axis=2)
        new, _ = heal(whole, new, connection, x, found, recipe=SHORT)
    assert [wire.specs[0].shape for wire in new.wires] == [(5, 4), (5, 3)]
    assert new.part("b").module.get_submodule("1.layer").weight_ih_l0.shape == (24, 4)
    assert (new.run(x) - whole.run(x)).square().mean() < whole.run(x).var()


def test_a_part_gets_what_the_parts_and_wires_before_it_give() -> None:
    whole, _, _, x = pruned_pipeline((8, 16))
    assert torch.equal(received(whole, 0, x)[0], x)
    sent = whole.crossing(x)
    assert torch.equal(received(whole, 2, x)[0], sent[1][0])
    with pytest.raises(FringeError, match="connection 2"):
        prune(whole, 2, [0], fringe=fringe(whole))


def test_pruning_all_of_nothing_gives_the_same_output_and_another_host_repeats_it_and_loads_the_arrays() -> None:
    whole, x = pipeline(), pictures(6, side=8)
    layers = fringe(whole)
    same = prune(whole, 0, range(8), fringe=layers)
    assert torch.equal(same.run(x), whole.run(x))
    new = prune(whole, 0, [0, 2, 3], fringe=layers)
    healed, _ = heal(whole, new, 0, pictures(40, side=8), layers, recipe=Recipe(epochs=1))
    there = prune(pipeline(), 0, [0, 2, 3], fringe=layers).with_state(healed.state())
    assert torch.equal(there.run(x), healed.run(x))


def test_frozen_layers_with_their_guards_are_pruned_around() -> None:
    whole = pipeline()
    layers = fringe(whole)
    freeze(whole, layers)
    new = prune(whole, 0, [1, 2], fringe=layers)
    module = new.part("camera").module
    assert module.get_submodule("block1.conv2").weight.shape[0] == 2
    assert not module.get_submodule("conv").weight.requires_grad
    module.train()
    norm = module.get_submodule("norm")
    before = norm.running_mean.clone()
    module(pictures(side=8))
    assert torch.equal(norm.running_mean, before)


def test_batches_and_parts_without_samples_are_run_alike() -> None:
    producer, _ = residual_pair()
    x = pictures(7)
    torch.testing.assert_close(run_part(producer, [x], 2)[0], run_part(producer, [x])[0])
    assert run_part(part(nn.Sequential(nn.Linear(3, 2))), [torch.zeros(0, 3)])[0].shape == (0, 2)
    assert partial(run_part, producer)([x])[0].requires_grad is False


def test_a_tensor_that_a_machine_only_passes_on_is_told_by_what_its_map_makes_of_it() -> None:
    model = make_model("resnet", input_shape=(1, 8, 8), num_classes=4, seed=0).eval()
    x = torch.randn(40, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    # The shortcut of a block crosses both connections; in the middle nothing is computed of it.
    whole = distribute(model, x[:2], ["a", "b", "c"], ["block1.conv1", "block1.conv2"])
    layers = fringe(whole, 1)
    ranking = rank(whole, 0, x, fringe=layers)
    for keep in (ranking.keep(4), ranking.keep(3)):
        for mapped in (ranking.map(keep), None):
            pruned = prune(whole, 0, keep, mapped, fringe=layers)
            healed, _ = heal(whole, pruned, 0, x, layers, recipe=Recipe(epochs=1))
            assert healed.run(x).shape == whole.run(x).shape
