"""Laws of pruning on drawn graphs, and what each kind of layer gives up."""

from __future__ import annotations

from collections import OrderedDict
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from pruning_cases import Pick, masked, part, pictures, residual_pair, settled, state
from torch import fx, nn
from torch.nn import functional

from flower_edge.errors import FringeError
from flower_edge.fringe.pruning_torch import narrow_inputs, narrow_outputs, prune_connection, reader_gram, writer_norms
from flower_edge.models.zoo_torch import CausalBlock, Residual

Pair = tuple[fx.GraphModule, fx.GraphModule]


@st.composite
def blocks(draw: st.DrawFn, before: int, after: int) -> nn.Module:
    """One layer or block from `before` to `after` channels, the side of a picture kept or halved."""
    kinds = ["conv", "norm", "pool", "downsample"] + (["residual", "depthwise"] if before == after else [])
    kind = draw(st.sampled_from(kinds))
    size = draw(st.sampled_from([1, 3]))
    conv = nn.Conv2d(before, after, size, padding=size // 2, bias=draw(st.booleans()))
    if kind == "conv":
        return nn.Sequential(conv, nn.ReLU())
    if kind == "norm":
        return nn.Sequential(conv, nn.BatchNorm2d(after), nn.LeakyReLU(), nn.Dropout(0.1))
    if kind == "pool":
        return nn.Sequential(conv, draw(st.sampled_from([nn.MaxPool2d(2), nn.AvgPool2d(2)])))
    if kind == "depthwise":
        return nn.Sequential(conv, nn.Conv2d(after, after, 3, padding=1, groups=after), nn.Hardtanh())
    return Residual(before, after, 2 if kind == "downsample" else 1)


@st.composite
def connections(draw: st.DrawFn) -> tuple[fx.GraphModule, fx.GraphModule, list[int]]:
    seed = draw(st.integers(0, 99))
    torch.manual_seed(seed)
    widths = [draw(st.integers(2, 5)) for _ in range(3)]
    repeat = draw(st.booleans())  # so that blocks with an identity are drawn
    channels = widths[0] if repeat else widths[1]
    producer = nn.Sequential(nn.Conv2d(1, widths[0], 3, padding=1), draw(blocks(widths[0], channels)))
    consumer = nn.Sequential(
        draw(blocks(channels, channels if repeat else widths[2])), nn.AdaptiveAvgPool2d(2), nn.Flatten()
    )
    keep = draw(st.lists(st.integers(0, channels - 1), min_size=1, max_size=channels, unique=True))
    return part(settled(producer, seed)), part(settled(consumer, seed + 1)), sorted(keep)


@settings(max_examples=12)
@given(connections(), st.booleans())
def test_pruned_parts_compute_the_whole_ones_of_the_masked_tensor(
    drawn: tuple[fx.GraphModule, fx.GraphModule, list[int]], mix: bool
) -> None:
    producer, consumer, keep = drawn
    x = pictures(side=8)
    before = state(producer), state(consumer)
    sent = producer(x)[0]
    channels = sent.shape[1]
    A = np.random.default_rng(0).normal(size=(channels, len(keep))) if mix else None
    found = prune_connection(producer, consumer, keep, A, example=[x])
    narrow = found.producer.part(x)[0]
    torch.testing.assert_close(narrow, sent[:, keep], rtol=1e-4, atol=1e-5)
    assert found.sent_bytes == (sent[0].numel() * 4, narrow[0].numel() * 4)
    full = masked(sent, keep) if A is None else torch.einsum("ck,nkhw->nchw", torch.tensor(A).float(), sent[:, keep])
    torch.testing.assert_close(found.consumer.part(narrow)[0], consumer(full)[0], rtol=1e-3, atol=1e-4)
    assert (state(producer), state(consumer)) == before


@settings(max_examples=5)
@given(connections())
def test_keeping_all_channels_changes_no_bit(drawn: tuple[fx.GraphModule, fx.GraphModule, list[int]]) -> None:
    producer, consumer, _ = drawn
    x = pictures(side=8)
    whole = consumer(*producer(x))[0]
    found = prune_connection(producer, consumer, range(producer(x)[0].shape[1]), example=[x])
    assert torch.equal(found.consumer.part(*found.producer.part(x))[0], whole)
    assert (state(found.producer.part), state(found.consumer.part)) == (state(producer), state(consumer))


@settings(max_examples=5)
@given(connections(), st.data())
def test_pruning_twice_is_pruning_once(drawn: Any, data: st.DataObject) -> None:
    producer, consumer, keep = drawn
    again = sorted(data.draw(st.lists(st.integers(0, len(keep) - 1), min_size=1, unique=True)))
    x = pictures(side=8)
    once = prune_connection(producer, consumer, [keep[n] for n in again], example=[x])
    first = prune_connection(producer, consumer, keep, example=[x])
    twice = prune_connection(first.producer.part, first.consumer.part, again, example=[x])
    assert once.parameters[1] == twice.parameters[1]
    results = [found.consumer.part(*found.producer.part(x))[0] for found in (once, twice)]
    torch.testing.assert_close(*results)


def test_a_residual_block_loses_rows_and_its_identity_a_selection() -> None:
    producer, consumer = residual_pair()
    x = pictures()
    found = prune_connection(producer, consumer, [0, 2, 5], example=[x], allowed=["2", "0"])
    assert found.producer.sliced == ("2.conv2", "2.norm2")
    assert len(found.producer.inserted) == 1
    assert found.consumer.sliced == ("0.conv1",)
    assert len(found.consumer.inserted) == 1
    assert found.producer.part.get_submodule("2.conv2").weight.shape == (3, 6, 3, 3)
    assert found.producer.part.get_submodule("2.norm2").running_var.shape == (3,)
    assert found.consumer.part.get_submodule("0.conv1").weight.shape == (6, 3, 3, 3)
    assert found.sent_bytes == (6 * 36 * 4, 3 * 36 * 4)
    # 3 of 6 rows of conv2, of the norm's weight and bias, and 3 of 6 columns of conv1.
    assert found.parameters[0] - found.parameters[1] == 3 * 6 * 9 + 3 * 2 + 6 * 3 * 9


def test_layers_that_may_not_change_are_the_same_bytes_and_the_wire_is_as_narrow() -> None:
    producer, consumer = residual_pair()
    x = pictures()
    found = prune_connection(producer, consumer, [1, 4], example=[x], allowed=[])
    assert found.producer.sliced == found.consumer.sliced == ()
    assert state(found.producer.part) == state(producer)
    assert state(found.consumer.part) == state(consumer)
    assert found.producer.part(x)[0].shape[1] == 2
    expected = consumer(masked(producer(x)[0], [1, 4]))[0]
    assert torch.equal(found.consumer.part(*found.producer.part(x))[0], expected)
    deep = prune_connection(producer, consumer, [1, 4], example=[x], allowed=["2.conv2", "2.norm2", "0.conv1"])
    rest = ["2.conv2", "2.norm2"], ["0.conv1"]
    assert state(deep.producer.part, rest[0]) == state(producer, rest[0])
    assert state(deep.consumer.part, rest[1]) == state(consumer, rest[1])


def test_a_norm_that_may_not_change_keeps_the_convolution_before_it_whole() -> None:
    producer, _ = residual_pair()
    found = narrow_outputs(producer, 0, [1], example=[pictures()], allowed=["2.conv2"])
    assert found.sliced == ()
    assert torch.equal(found.part(pictures())[0], producer(pictures())[0][:, [1]])


def test_a_downsampling_block_loses_columns_of_both_convolutions_and_nothing_is_inserted() -> None:
    consumer = part(settled(nn.Sequential(Residual(6, 8, 2))))
    found = narrow_inputs(consumer, 0, [0, 3], example=[pictures(channels=6)])
    assert found.sliced == ("0.conv1", "0.shortcut.0")
    assert found.inserted == ()


def test_linear_layers_lose_neurons_and_those_behind_a_flattening_whole_channels() -> None:
    plain = part(nn.Sequential(nn.Flatten(), nn.Linear(36, 8), nn.BatchNorm1d(8), nn.ReLU()))
    reader = part(nn.Sequential(nn.Linear(8, 3)))
    x = pictures()
    found = prune_connection(plain, reader, [0, 7], example=[x])
    assert found.producer.part.get_submodule("1").weight.shape == (2, 36)
    assert found.consumer.part.get_submodule("0").in_features == 2
    flat = part(nn.Sequential(nn.ReLU(), nn.MaxPool2d(2), nn.Flatten(), nn.Linear(6 * 9, 3)))
    given = pictures(channels=6)
    narrow = narrow_inputs(flat, 0, [2, 3], example=[given])
    assert narrow.sliced == ("3",)
    assert narrow.part.get_submodule("3").in_features == 18
    torch.testing.assert_close(narrow.part(given[:, [2, 3]])[0], flat(masked(given, [2, 3]))[0])
    gram = reader_gram(part(nn.Sequential(nn.Flatten(), nn.Linear(54, 3))), 0, example=[pictures(channels=6, side=3)])
    assert gram.shape == (6, 6)
    assert np.all(np.linalg.eigvalsh(gram) > -1e-9)


@pytest.mark.parametrize("kind", [nn.LSTM, nn.GRU, nn.RNN])
@pytest.mark.parametrize("both", [False, True])
def test_a_recurrent_layer_sends_a_selection_and_one_that_reads_loses_columns(
    kind: type[nn.RNNBase], both: bool
) -> None:
    torch.manual_seed(0)
    producer = part(Pick(kind(3, 5, batch_first=True, bidirectional=both)))
    width = 10 if both else 5
    consumer = part(Pick(kind(width, 4, batch_first=True, bidirectional=both)))
    x, keep = torch.randn(2, 7, 3), [0, 2, 4]
    found = prune_connection(producer, consumer, keep, example=[x], axis=2)
    assert found.producer.sliced == ()
    assert found.consumer.sliced == ("layer",)
    assert state(found.producer.part) == state(producer)
    sent = found.producer.part(x)[0]
    assert torch.equal(sent, producer(x)[0][..., keep])
    torch.testing.assert_close(found.consumer.part(sent)[0], consumer(masked(producer(x)[0], keep, 2))[0])
    assert found.parameters[1] < found.parameters[0]


def test_a_transformers_stream_is_refused_with_the_pair_named() -> None:
    torch.manual_seed(0)
    producer, consumer = part(CausalBlock(8, 2)), part(CausalBlock(8, 2))
    with pytest.raises(FringeError, match=r"norm1.*8 features.*encoder and a decoder.*fringe_distillation"):
        prune_connection(producer, consumer, [0, 1], example=[torch.randn(2, 5, 8)], axis=2)
    whole = nn.Sequential(OrderedDict(block=nn.TransformerEncoderLayer(8, 2, batch_first=True)))
    with pytest.raises(FringeError, match="stream of a transformer"):
        narrow_inputs(part(whole), 0, [0], example=[torch.randn(2, 5, 8)], axis=2)


class Awkward(nn.Module):
    """What reads a tensor after it was written to; a layer used twice; a gate of one number per channel."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv2d(4, 4, 1)
        self.twice = nn.Conv2d(4, 4, 1)
        self.gate = nn.Conv2d(4, 4, 1)
        self.scale = nn.Parameter(torch.rand(4, 1, 1))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        a = self.first(x)
        b = functional.relu(a, inplace=True)
        c = self.twice(a) + self.twice(b)
        d = c * torch.sigmoid(self.gate(functional.adaptive_avg_pool2d(c, 1)))
        return (d * self.scale + 0.5).clamp(min=-1)


def test_in_place_steps_shared_layers_and_gates_are_computed_as_before() -> None:
    torch.manual_seed(0)
    producer, consumer, x = part(Awkward()), part(Awkward()), pictures(channels=4)
    found = prune_connection(producer, consumer, [1, 2], example=[x])
    assert "twice" not in (*found.producer.sliced, *found.consumer.sliced)
    assert "gate" in found.producer.sliced
    sent = producer(x)[0]
    torch.testing.assert_close(found.producer.part(x)[0], sent[:, [1, 2]])
    torch.testing.assert_close(found.consumer.part(sent[:, [1, 2]])[0], consumer(masked(sent, [1, 2]))[0])


class Two(nn.Module):
    """Gives the same convolution's output twice, once after a sum."""

    def __init__(self) -> None:
        super().__init__()
        self.one, self.other = nn.Conv2d(1, 4, 1), nn.Conv2d(1, 4, 1)

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        a = self.one(x)
        return a, a + self.other(x)


def test_a_layer_that_makes_another_tensor_too_is_selected_from() -> None:
    producer, x = part(Two()), pictures()
    found = narrow_outputs(producer, 1, [0, 3], example=[x])
    assert found.sliced == ("other",)
    whole, narrow = producer(x), found.part(x)
    assert torch.equal(narrow[0], whole[0])
    torch.testing.assert_close(narrow[1], whole[1][:, [0, 3]])
    assert narrow_outputs(producer, 0, [0], example=[x]).sliced == ()


def test_group_norms_go_by_whole_groups() -> None:
    producer, x = part(nn.Sequential(nn.Conv2d(1, 6, 3), nn.GroupNorm(3, 6))), pictures()
    whole = narrow_outputs(producer, 0, [0, 1, 4, 5], example=[x])
    assert whole.sliced == ("0", "1")
    assert whole.part.get_submodule("1").num_groups == 2
    torch.testing.assert_close(whole.part(x)[0], producer(x)[0][:, [0, 1, 4, 5]])
    assert narrow_outputs(producer, 0, [0, 1, 4], example=[x]).sliced == ()


def test_gradients_flags_and_modes_of_a_part_are_those_of_its_copy() -> None:
    producer, _ = residual_pair()
    producer.get_submodule("0").weight.requires_grad_(False)
    producer.train()
    producer.get_submodule("2.norm1").eval()
    made = narrow_outputs(producer, 0, [0], example=[pictures()]).part
    assert made.training
    assert not made.get_submodule("2.norm1").training
    assert made.get_submodule("2.norm2").training
    assert not made.get_submodule("0").weight.requires_grad
    assert made.get_submodule("2.conv2").weight.requires_grad


def test_l1_norms_are_those_of_the_rows() -> None:
    producer, _ = residual_pair()
    norms = writer_norms(producer, 0, example=[pictures()])
    np.testing.assert_allclose(norms, producer.get_submodule("2.conv2").weight.detach().abs().sum((1, 2, 3)), rtol=1e-6)
    with pytest.raises(FringeError, match="rank_channels"):
        writer_norms(part(Pick(nn.LSTM(3, 4))), 0, example=[torch.zeros(2, 5, 3)], axis=2)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"keep": []}, "keep = "),
        ({"keep": [6]}, "0 .. 5"),
        ({"keep": [2, 1]}, "increasing"),
        ({"tensor": 1}, "tensor 1"),
        ({"axis": 0}, "axis = 0"),
        ({"A": np.zeros((2, 2))}, r"expected finite \[6, 2\]"),
        ({"example": [torch.zeros(2, 3, 6, 6)]}, r"cannot take tensors of shapes \[\(1, 3, 6, 6\)\]"),
    ],
)
def test_what_cannot_be_pruned_is_refused_by_name(changes: dict[str, Any], words: str) -> None:
    told = {"keep": [0, 1], "example": [pictures()], **changes}
    with pytest.raises(FringeError, match=words):
        prune_connection(*residual_pair(), told.pop("keep"), told.pop("A", None), **told)


def test_an_example_is_a_list_with_all_tensors_a_part_takes() -> None:
    producer, _ = residual_pair()
    with pytest.raises(FringeError, match="one tensor; expected a list"):
        narrow_outputs(producer, 0, [0], example=pictures())  # type: ignore[arg-type]
    with pytest.raises(FringeError, match="output 3"):
        narrow_outputs(producer, 3, [0], example=[pictures()])
