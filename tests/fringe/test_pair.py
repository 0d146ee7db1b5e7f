"""Encoder, wire and decoder, and where they stand in a pipeline."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch
from torch import nn

from flower_edge.errors import FringeError, ModelMismatch
from flower_edge.fringe.pair_parts_torch import placed
from flower_edge.fringe.pair_search_torch import tried_shapes
from flower_edge.fringe.pair_shapes import PairShape
from flower_edge.fringe.pair_torch import Pair
from flower_edge.fringe.pipeline_torch import Pipeline, distribute

SHAPES = {
    "picture": PairShape(((6, 8, 8),), 3, 2, 4),
    "stride 4": PairShape(((4, 8, 8),), 5, 4, 2),
    "no stride": PairShape(((4, 5, 7),), 2, 1, 8, per="tensor"),
    "skip": PairShape(((6, 8, 8), (2, 8, 8)), 3, 2, 4),
    "sequence": PairShape(((5, 12),), 4, 1, 4),
    "vector": PairShape(((20,),), 7, 1, 2),
}


def activations(shape: PairShape, samples: int = 12, seed: int = 0) -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return [torch.randn(samples, *one, generator=generator) for one in shape.tensors]


def fitted(shape: PairShape) -> Pair:
    pair = Pair(shape, seed=1)
    pair.fit(activations(shape))
    return pair.eval()


@pytest.mark.parametrize("name", SHAPES)
def test_what_is_evaluated_is_what_the_bytes_say(name: str) -> None:
    shape, pair = SHAPES[name], fitted(SHAPES[name])
    tensors = activations(shape, 4, seed=1)
    with torch.no_grad():
        code = pair.encoder(*tensors)
        frame = shape.wire().encode([code.numpy()])
        sent = pair.decoder(torch.from_numpy(shape.wire().decode(frame)[0]))
        here = pair(*tensors)
    assert tuple(code.shape[1:]) == shape.code
    assert [tuple(one.shape[1:]) for one in here] == list(shape.tensors)
    assert all(torch.equal(a, b) for a, b in zip(here, sent, strict=True))


def test_the_gradient_of_a_rounded_code_is_that_of_the_code() -> None:
    pair = fitted(SHAPES["vector"])
    code = torch.randn(3, 7, requires_grad=True)
    weights = torch.randn(3, 7)
    heard = pair.heard(code)
    assert not torch.equal(heard, code)
    (heard * weights).sum().backward()
    assert code.grad is not None
    assert torch.equal(code.grad, weights)


def test_a_vector_of_few_directions_passes_without_training() -> None:
    generator = torch.Generator().manual_seed(0)
    few = torch.randn(40, 3, generator=generator) @ torch.randn(3, 20, generator=generator) + 1.5
    pair = Pair(PairShape(((20,),), 3, bits=32))
    pair.fit([few])
    with torch.no_grad():
        torch.testing.assert_close(pair(few)[0], few, rtol=1e-4, atol=1e-4)


def test_a_sequence_s_position_learns_nothing_of_later_ones() -> None:
    shape = PairShape(((5, 12),), 4, bits=32)  # ranges of fewer bits are shared along time
    pair = fitted(shape)
    (x,) = activations(shape, 2, seed=2)
    later = x.clone()
    later[:, 3:] += 1
    with torch.no_grad():
        a, b = pair(x)[0], pair(later)[0]
    assert torch.equal(a[:, :3], b[:, :3])
    assert not torch.equal(a[:, 3:], b[:, 3:])


def test_what_was_never_negative_stays_so_and_the_rest_does_not() -> None:
    shape = SHAPES["skip"]
    first, second = activations(shape)
    pair = Pair(shape)
    pair.fit([first.relu(), second])
    with torch.no_grad():
        a, b = pair.eval()(first.relu(), second)
    assert (a >= 0).all()
    assert (b < 0).any()


def test_a_pair_follows_from_its_seed_and_leaves_torch_s_state_alone() -> None:
    before = torch.random.get_rng_state()
    a, b, other = (Pair(SHAPES["picture"], seed=seed).arrays() for seed in (3, 3, 4))
    assert torch.equal(torch.random.get_rng_state(), before)
    assert all(np.array_equal(a[name], b[name]) for name in a)
    assert any(not np.array_equal(a[name], other[name]) for name in a)


def test_arrays_bring_a_pair_back_and_those_of_another_are_refused() -> None:
    shape = SHAPES["picture"]
    pair, again = fitted(shape), Pair(shape, seed=9).eval()
    again.set_arrays(pair.arrays())
    tensors = activations(shape, 3, seed=5)
    with torch.no_grad():
        assert torch.equal(pair(*tensors)[0], again(*tensors)[0])
    with pytest.raises(ModelMismatch, match="arrays of another pair"):
        again.set_arrays(fitted(SHAPES["vector"]).arrays())
    spoilt = pair.arrays()
    spoilt["encoder.body.0.weight"][0] = np.nan
    with pytest.raises(ModelMismatch, match=r"'encoder\.body\.0\.weight' of a pair holds something else than finite"):
        again.set_arrays(spoilt)
    with pytest.raises(FringeError, match="hidden = 0"):
        Pair(shape, hidden=0)


def test_a_code_that_is_not_finite_says_what_to_do() -> None:
    with pytest.raises(FringeError, match="lower its step size"):
        fitted(SHAPES["vector"]).heard(torch.full((1, 7), float("nan")))


def test_tensors_that_a_pair_is_not_for_are_refused() -> None:
    with pytest.raises(FringeError, match=r"expected \(20,\) of torch.float32"):
        Pair(SHAPES["vector"]).fit([torch.zeros(4, 20, dtype=torch.float64)])


def test_channels_that_never_move_do_no_harm() -> None:
    shape = SHAPES["picture"]
    (x,) = activations(shape)
    x[:, 0] = 2.0
    pair = Pair(shape)
    pair.fit([x])
    with torch.no_grad():
        assert torch.isfinite(pair.eval()(x)[0]).all()


def test_of_two_codes_the_one_that_can_say_it_comes_first() -> None:
    shape = PairShape(((20,),), 6, bits=8)
    generator = torch.Generator().manual_seed(0)
    few = torch.randn(60, 3, generator=generator) @ torch.randn(3, 20, generator=generator)
    poor = PairShape(((20,),), 1, bits=8)
    found = tried_shapes([few], [poor, shape], steps=20)
    assert [one.shape for one in found] == [shape, poor]
    assert found[0].error < 0.1 < found[1].error
    with pytest.raises(FringeError, match="expected 10 or more"):
        tried_shapes([few[:9]], [shape])


# -- in a pipeline -----------------------------------------------------------------------------------------------------


class Block(nn.Module):
    """With a skip connection, so that two tensors cross a cut inside."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.norm, self.second = nn.Conv2d(4, 4, 3, padding=1), nn.BatchNorm2d(4), nn.Conv2d(4, 4, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x + self.second(torch.relu(self.norm(self.first(x))))


def pictured() -> Pipeline:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = nn.Sequential(nn.Conv2d(1, 4, 3, padding=1), Block(), nn.ReLU(), nn.Flatten(), nn.Linear(256, 3)).eval()
        return distribute(model, torch.randn(2, 1, 8, 8), ["camera", "gateway", "cloud"], ["1.norm", "2"])


def test_a_pipeline_with_pairs_sends_the_codes_and_nothing_else() -> None:
    pipeline = pictured()
    x = torch.randn(5, 1, 8, 8, generator=torch.Generator().manual_seed(1))
    whole = pipeline.run(x)
    shapes = [
        PairShape(tuple(spec.shape for spec in wire.specs), 2, 2, 4) for wire in pipeline.wires
    ]  # the first of two tensors
    assert [len(shape.tensors) for shape in shapes] == [2, 1]
    pairs = {number: Pair(shape, seed=number).eval() for number, shape in enumerate(shapes)}
    new = placed(pipeline, pairs)
    with torch.no_grad():
        tensors = pipeline.parts[0].module(x)
        tensors = pipeline.parts[1].module(*pairs[0](*tensors))
        (by_hand,) = pipeline.parts[2].module(*pairs[1](*tensors))
    assert torch.equal(new.run(x), by_hand)
    assert [one.size_bytes for one in new.connections] == [shape.size_bytes for shape in shapes]
    assert torch.equal(pipeline.run(x), whole)
    held, before = new.named_tensors(), pipeline.named_tensors()
    assert all(held[name] is tensor for name, tensor in before.items())
    added = set(held) - set(before)
    assert {name.split(".")[0] for name in added} == {"encoder_0", "decoder_0", "encoder_1", "decoder_1"}
    # A part by itself gives what its connection carries: the seam a server stands on.
    (code,) = new.parts[0].step([x.numpy()])
    assert len(new.wires[0].encode([code[:1]])) == shapes[0].size_bytes


def test_a_pipeline_with_pairs_can_be_copied_and_brought_back() -> None:
    pipeline = pictured()
    shape = PairShape(((4, 8, 8),), 2, 2, 4)
    new = placed(pipeline, {1: fitted(shape)})
    x = torch.randn(3, 1, 8, 8)
    again = placed(copy.deepcopy(pipeline), {1: Pair(shape, seed=8)}).with_state(new.state())
    assert torch.equal(again.run(x), new.run(x))
    assert torch.equal(new.copied().run(x), new.run(x))


def test_pairs_that_have_no_place_are_refused() -> None:
    pipeline = pictured()
    pair = Pair(PairShape(((4, 8, 8),), 2, 2, 4))
    with pytest.raises(FringeError, match="connection 2: expected 0 to 1"):
        placed(pipeline, {2: pair})
    with pytest.raises(FringeError, match="a pair for tensors"):
        placed(pipeline, {0: pair})
    with pytest.raises(FringeError, match="connection 1 has a pair already"):
        placed(placed(pipeline, {1: pair}), {1: pair})


def test_whole_numbers_are_refused_by_name() -> None:
    class Counting(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.before, self.table, self.after = nn.Linear(4, 4), nn.Embedding(2, 4), nn.Linear(4, 2)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            signs = (x > 0).long()
            out: torch.Tensor = self.after(self.before(x) + self.table(signs).sum(dim=1))
            return out

    pipeline = distribute(Counting(), torch.randn(2, 4), ["a", "b"], ["before"])
    with pytest.raises(FringeError, match=r"of int64 crosses connection 0; a pair takes float32 only"):
        placed(pipeline, {0: Pair(PairShape(((4,), (4,)), 2))})
