"""The autoencoder: published sizes, NumPy beside torch, and codebooks that were altered."""

from __future__ import annotations

import numpy as np
import pytest

from flower_edge.codecs.lgc.codebook import codebook_bytes, read_codebook
from flower_edge.codecs.lgc.model import CHANNELS, Autoencoder, Shape, cells, first_weights
from flower_edge.errors import CodecError

SMALL = Shape((8, 16, 32, 8, 4))


def model(shape: Shape = SMALL, seed: int = 0) -> Autoencoder:
    return Autoencoder(shape, first_weights(shape, seed))


def test_the_published_channels_make_173_thousand_parameters_and_44_per_decoder() -> None:
    shape = Shape(CHANNELS)
    assert (shape.encoder_params, shape.decoder_params) == (172_996, 43_682)
    assert first_weights(shape, 0, decoders=8).size == 172_996 + 8 * 43_682


@pytest.mark.parametrize("k", [0, 1, 15, 16, 17, 917])
def test_a_code_has_four_numbers_per_sixteen_values_and_decodes_to_as_many_values(k: int) -> None:
    code = model().encode(np.ones(k, np.float32))
    assert code.shape == (4, cells(k))
    assert model().decode(code, k).shape == (k,)


@pytest.mark.parametrize("innovation", [True, False])
@pytest.mark.parametrize("k", [1, 5, 17, 917, 128 * 16 * 2 + 40])
def test_numpy_codes_what_torch_was_trained_to_code(k: int, innovation: bool) -> None:
    torch = pytest.importorskip("torch")
    from flower_edge.codecs.lgc.training_torch import decode_torch, encode_torch

    shape, rng = Shape(CHANNELS, innovation), np.random.default_rng(k)
    net = Autoencoder(shape, (0.1 * rng.normal(size=shape.params)).astype(np.float32))
    x, channel = rng.normal(size=(2, 1, k)).astype(np.float32)
    flat = torch.from_numpy(net.weights)
    code = encode_torch(shape, flat, torch.from_numpy(x))
    np.testing.assert_allclose(net.encode(x[0]), code[0].numpy(), atol=1e-5)
    known = channel if innovation else None
    out = decode_torch(shape, flat, code, k, None if known is None else torch.from_numpy(known))
    decoded = net.decode(code[0].numpy(), k, None if known is None else known[0])
    np.testing.assert_allclose(decoded, out[0].numpy(), atol=1e-5)


def test_a_codebook_is_two_bytes_per_weight_and_says_which_weights_and_the_how_manyth() -> None:
    data = codebook_bytes(model(), 3)
    book = read_codebook(data, SMALL)
    assert len(data) == 26 + 2 * SMALL.params
    assert book.number == 3
    np.testing.assert_array_equal(book.model.weights, model().weights.astype(np.float16).astype(np.float32))
    assert codebook_bytes(book.model, 3) == data
    assert read_codebook(codebook_bytes(model(seed=1), 3), SMALL).epoch != book.epoch
    assert read_codebook(codebook_bytes(model(), 4), SMALL).epoch != book.epoch


def test_a_codebook_with_any_bit_altered_is_refused() -> None:
    data = codebook_bytes(model(), 0)
    for place in [*range(40), *range(40, len(data), 97), len(data) - 1]:
        bad = bytearray(data)
        bad[place] ^= 1 << place % 8
        with pytest.raises(CodecError, match="resend"):
            read_codebook(bytes(bad), SMALL)


def test_a_codebook_of_another_length_or_shape_is_refused_before_anything_is_made_of_it() -> None:
    data = codebook_bytes(model(), 0)
    for bad in (b"", data[:-1], data + b"\0", data[:26], b"\x80\x04K\x01."):
        with pytest.raises(CodecError, match=f"expected {len(data)}"):
            read_codebook(bad, SMALL)
    same_length = Shape((8, 16, 32, 8, 4), innovation=False)
    with pytest.raises(CodecError, match="expected"):
        read_codebook(data, same_length)


def test_weights_that_are_not_finite_are_not_published() -> None:
    weights = first_weights(SMALL, 0)
    weights[7] = np.nan
    with pytest.raises(CodecError, match="diverged"):
        codebook_bytes(Autoencoder(SMALL, weights), 0)


@pytest.mark.parametrize("channels", [(8, 16, 32, 8), (8, 16, 32, 8, 0), (8, 16, 32, 1, 4), (8, 16, 32, 8, 10**9)])
def test_channels_that_make_no_autoencoder_are_refused(channels: tuple[int, ...]) -> None:
    with pytest.raises(CodecError, match="channels"):
        Shape(channels)
