"""`Pair`: an encoder at the end of the producer and a decoder at the start of the consumer, with the wire in between.

    tensors at the connection -> Encoder -> code -> wire form -> Decoder -> tensors at the connection

The layers are new and lie inside no original one. The wire form is the one that is sent (`PairShape.code_wire`), in
training as well: forward it rounds as the wire does, bit for bit, backward the gradient passes straight through, see
`wire_torch`. Nothing here trains.

Pictures: convolutions, the stride in the encoder's first and undone by the decoder's. Sequences and vectors: a linear
map down and up, which begin as the principal components of the activations they are fitted to, beside a small
perceptron that begins at zero; positions of a sequence are not mixed.

Source: Matsubara et al., "SC2 benchmark", TMLR 2023 (encoder and decoder at a cut, trained to the features first).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from ..errors import CodecError, FringeError, ModelMismatch
from .pair_shapes import PairShape
from .wire_torch import carried_one

__all__ = ["Decoder", "Encoder", "Pair"]


class _Scaled(nn.Module):
    """Statistics of the joined tensors, per channel: what the pair works on has mean 0 and deviation 1.

    Buffers, not parameters: measured once, then sent along.
    """

    mean: torch.Tensor
    deviation: torch.Tensor

    def __init__(self, shape: PairShape) -> None:
        super().__init__()
        joined, axis = shape.joined, shape.axis
        wide = [1] * len(joined)
        wide[axis] = joined[axis]
        self.register_buffer("mean", torch.zeros(wide))
        self.register_buffer("deviation", torch.ones(wide))

    def down(self, x: torch.Tensor) -> torch.Tensor:
        return (x - self.mean) / self.deviation

    def up(self, x: torch.Tensor) -> torch.Tensor:
        return x * self.deviation + self.mean


class Encoder(nn.Module):
    """Tensors at a connection to their code.

    Args:
        shape: of the code.
        hidden: channels in between; None takes as many as the tensors have.
    """

    def __init__(self, shape: PairShape, hidden: int | None = None) -> None:
        super().__init__()
        self.shape = shape
        width = shape.joined[shape.axis]
        inner = hidden or width
        self.scaled = _Scaled(shape)
        if len(shape.joined) == 3:
            self.body: nn.Module = nn.Sequential(
                _strided(width, inner, shape.stride),
                nn.BatchNorm2d(inner),
                nn.ReLU(),
                nn.Conv2d(inner, shape.channels, 3, padding=1),
            )
        else:
            self.body = nn.Linear(width, shape.channels)

    def forward(self, *tensors: torch.Tensor) -> torch.Tensor:
        """[batch, *shape] of each tensor to [batch, *code]."""
        joined = torch.cat(tensors, dim=1 + self.shape.axis) if len(tensors) > 1 else tensors[0]
        code: torch.Tensor = self.body(self.scaled.down(joined))
        return code


class Decoder(nn.Module):
    """A code back to tensors as they were at the connection.

    Args:
        shape: of the code.
        hidden: channels in between; None takes as many as the tensors have.
    """

    #: Whether each tensor is known to have no negative number, as behind a ReLU.
    positive: torch.Tensor

    def __init__(self, shape: PairShape, hidden: int | None = None) -> None:
        super().__init__()
        self.shape = shape
        width = shape.joined[shape.axis]
        inner = hidden or width
        self.register_buffer("positive", torch.zeros(len(shape.tensors), dtype=torch.bool))
        self.scaled = _Scaled(shape)
        if len(shape.joined) == 3:
            stride = shape.stride
            self.body: nn.Module = nn.Sequential(
                nn.Conv2d(shape.channels, inner, 3, padding=1),
                nn.BatchNorm2d(inner),
                nn.ReLU(),
                nn.Conv2d(inner, inner * stride**2, 3 if stride <= 2 else 1, padding=1 if stride <= 2 else 0),
                nn.PixelShuffle(stride) if stride > 1 else nn.Identity(),
                nn.BatchNorm2d(inner),
                nn.ReLU(),
                nn.Conv2d(inner, width, 3, padding=1),
            )
        else:
            self.body = _LinearUp(shape.channels, inner, width)

    def forward(self, code: torch.Tensor) -> tuple[torch.Tensor, ...]:
        """[batch, *code] to [batch, *shape] of each tensor."""
        axis = self.shape.axis
        joined = self.scaled.up(self.body(code))
        tensors = torch.split(joined, [shape[axis] for shape in self.shape.tensors], dim=1 + axis)
        # A product with 0 or 1 would turn -0 and infinities; a choice does not.
        return tuple(
            torch.where(positive, tensor.relu(), tensor)
            for positive, tensor in zip(self.positive, tensors, strict=True)
        )


class Pair(nn.Module):
    """Encoder, wire and decoder in one process: what the consumer has of what the producer made.

    Args:
        shape: of the code.
        seed: of the initial parameters; torch's global random state is left as it was found.
        hidden: channels inside encoder and decoder.

    Raises:
        FringeError: no number of channels.
    """

    def __init__(self, shape: PairShape, *, seed: int = 0, hidden: int | None = None) -> None:
        super().__init__()
        if hidden is not None and not (isinstance(hidden, int) and 1 <= hidden <= 4096):
            raise FringeError(
                f"hidden = {hidden!r}: expected channels, 1 to 4096, or None for as many as the tensors have"
            )
        self.shape, self.hidden = shape, hidden
        with torch.random.fork_rng(devices=[]):
            torch.default_generator.manual_seed(seed)
            self.encoder = Encoder(shape, hidden)
            self.decoder = Decoder(shape, hidden)

    def forward(self, *tensors: torch.Tensor) -> tuple[torch.Tensor, ...]:
        """[batch, *shape] of each tensor, to the same as the consumer gets them."""
        decoded: tuple[torch.Tensor, ...] = self.decoder(self.heard(self.encoder(*tensors)))
        return decoded

    def heard(self, code: torch.Tensor) -> torch.Tensor:
        """A code as the other end has it, bit for bit; its gradient passes straight through."""
        try:
            return carried_one(self.shape.form, code)
        except CodecError as error:
            raise FringeError(f"the code of a pair: {error}; if training has diverged, lower its step size") from error

    @torch.no_grad()
    def fit(self, tensors: Sequence[torch.Tensor]) -> None:
        """Measure what the pair is for: means and deviations, which tensors are positive, principal components.

        Args:
            tensors: activations at the connection, [samples, *shape] each; some hundred samples will do.

        Raises:
            FringeError: other tensors than the pair is for.
        """
        check_tensors(self.shape, tensors)
        axis = 1 + self.shape.axis
        joined = torch.cat(list(tensors), dim=axis)
        rows = joined.movedim(axis, -1).reshape(-1, joined.shape[axis]).double()
        deviation = rows.std(dim=0, correction=0)
        # A channel that never moves is left to the mean; a tiny one must not be blown up to the size of the rest.
        deviation = torch.where(deviation > 0, deviation.clamp(min=float(deviation.max()) * 1e-3), 1.0)
        for scaled in (self.encoder.scaled, self.decoder.scaled):
            scaled.mean.copy_(rows.mean(dim=0).reshape(scaled.mean.shape))
            scaled.deviation.copy_(deviation.reshape(scaled.deviation.shape))
        self.decoder.positive.copy_(torch.tensor([bool((tensor >= 0).all()) for tensor in tensors]))
        if isinstance(self.decoder.body, _LinearUp) and isinstance(self.encoder.body, nn.Linear):
            directions = _principal((rows - rows.mean(dim=0)) / deviation, self.shape.channels).to(joined)
            self.encoder.body.weight.copy_(directions)
            self.encoder.body.bias.zero_()
            self.decoder.body.straight.weight.copy_(directions.T)
            self.decoder.body.straight.bias.zero_()

    def arrays(self) -> dict[str, NDArray[Any]]:
        """Copies of all parameters and buffers, by name: `encoder.…` and `decoder.…`."""
        return {name: value.detach().cpu().numpy().copy() for name, value in self.state_dict().items()}

    def set_arrays(self, arrays: dict[str, NDArray[Any]]) -> None:
        """Go back to what `arrays` gave.

        Raises:
            ModelMismatch: arrays of another pair, or numbers that are not finite.
        """
        own = self.state_dict()
        wrong = sorted(set(own) ^ set(arrays))
        wrong += [name for name in own if name in arrays and tuple(own[name].shape) != np.shape(arrays[name])]
        if wrong:
            raise ModelMismatch(
                f"arrays of another pair: {', '.join(wrong[:4])} missing, unknown or of another shape; expected those "
                f"of {self.shape}"
            )
        for name, value in arrays.items():
            kind = np.asarray(value).dtype.kind
            if kind not in "fiub" or not np.isfinite(value).all():
                raise ModelMismatch(f"array {name!r} of a pair holds something else than finite numbers; send it again")
        self.load_state_dict({name: torch.tensor(np.asarray(arrays[name])).to(own[name]) for name in own})


class _LinearUp(nn.Module):
    """A linear map, and beside it a perceptron that begins at zero."""

    def __init__(self, before: int, inner: int, after: int) -> None:
        super().__init__()
        self.straight = nn.Linear(before, after)
        self.widen, self.bent = nn.Linear(before, inner), nn.Linear(inner, after)
        nn.init.zeros_(self.bent.weight)
        nn.init.zeros_(self.bent.bias)

    def forward(self, code: torch.Tensor) -> torch.Tensor:
        out: torch.Tensor = self.straight(code) + self.bent(torch.relu(self.widen(code)))
        return out


def check_tensors(shape: PairShape, tensors: Sequence[torch.Tensor]) -> None:
    """Refuse tensors that a pair of this shape is not for.

    Raises:
        FringeError: another number of them, another shape or dtype.
    """
    came = [tuple(tensor.shape[1:]) for tensor in tensors]
    if came != [tuple(one) for one in shape.tensors] or any(tensor.dtype != torch.float32 for tensor in tensors):
        kinds = ", ".join(f"{one} of {tensor.dtype}" for one, tensor in zip(came, tensors, strict=True))
        raise FringeError(
            f"tensors {kinds} at a connection, expected {', '.join(map(str, shape.tensors))} of torch.float32: make "
            "the shape of what crosses there, and cut where only float32 does"
        )


def _strided(before: int, after: int, stride: int) -> nn.Conv2d:
    """A convolution to exactly 1 / stride of each side, whose kernels overlap."""
    return nn.Conv2d(before, after, 3 if stride == 1 else stride + 2, stride, padding=1, bias=False)


def _principal(rows: torch.Tensor, count: int) -> torch.Tensor:
    """Directions of the largest variance, [count, features]; signs are fixed, so that they are the same everywhere."""
    _, vectors = torch.linalg.eigh(rows.T @ rows / len(rows))
    chosen = vectors.T.flip(0)[:count]
    if len(chosen) < count:
        chosen = torch.cat([chosen, torch.zeros(count - len(chosen), chosen.shape[1], dtype=chosen.dtype)])
    largest = chosen.gather(1, chosen.abs().argmax(dim=1, keepdim=True))
    signed: torch.Tensor = chosen * torch.where(largest < 0, -1.0, 1.0)
    return signed
