"""The torch models our scenarios train: small, of the literature, each a chain of modules.

Every function gives an `nn.Sequential`, so a model can be cut between any two of its members. Nothing here trains.

Sources: LeCun et al., "Gradient-based learning applied to document recognition", 1998 (LeNet-5); He et al., "Deep
residual learning for image recognition", 2016; Vaswani et al., "Attention is all you need", 2017.
"""

from __future__ import annotations

import inspect
from collections import OrderedDict
from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import Any

import torch
from torch import nn
from torch.nn import Module as Module
from torch.nn import functional

from ..errors import ConfigError


def lenet5(input_shape: Sequence[int], num_classes: int) -> nn.Sequential:
    """LeNet-5 with ReLU, max pooling and full second layer: 61,706 parameters for one channel and ten classes.

    Departures from 1998, all usual: ReLU for the scaled tanh, max pooling without weights, every map of the second
    convolution sees all six of the first, and a linear layer at the end.

    Args:
        input_shape: [channels, 32, 32], or [channels, 28, 28], which is padded to 32.
        num_classes: scores.

    Raises:
        ConfigError: another input shape.
    """
    channels, side = _picture("lenet5", input_shape, least=28)
    if side not in (28, 32):
        raise ConfigError(f"lenet5 for pictures of {side}x{side}; use 28x28 or 32x32: load_dataset(..., size=28)")
    return _chain(
        conv1=nn.Conv2d(channels, 6, 5, padding=2 if side == 28 else 0),
        relu1=nn.ReLU(),
        pool1=nn.MaxPool2d(2),
        conv2=nn.Conv2d(6, 16, 5),
        relu2=nn.ReLU(),
        pool2=nn.MaxPool2d(2),
        flatten=nn.Flatten(),
        linear1=nn.Linear(400, 120),
        relu3=nn.ReLU(),
        linear2=nn.Linear(120, 84),
        relu4=nn.ReLU(),
        linear3=nn.Linear(84, num_classes),
    )


def mlp(sizes: Sequence[int]) -> nn.Sequential:
    """Layers of `sizes` units with ReLU between them, inputs first, classes last; array names as `NumpyMLP`.

    Raises:
        ConfigError: fewer than two sizes, or one below 1.
    """
    if len(sizes) < 2 or min(sizes) < 1:
        raise ConfigError(f"sizes = {list(sizes)}; give inputs, hidden layers and classes, for example [64, 32, 10]")
    members: dict[str, nn.Module] = {"flatten": nn.Flatten()}
    for layer, (before, after) in enumerate(pairwise(sizes)):
        if layer:
            members[f"relu{layer - 1}"] = nn.ReLU()
        members[f"linear{layer}"] = nn.Linear(before, after)
    return _chain(**members)


def logistic(input_shape: Sequence[int], num_classes: int) -> nn.Sequential:
    """Multinomial logistic regression: `mlp` without a hidden layer."""
    return mlp([_inputs(input_shape), num_classes])


def cnn(input_shape: Sequence[int], num_classes: int) -> nn.Sequential:
    """Two 3x3 convolutions of 16 and 32 maps, each halved by max pooling, and a linear layer.

    Args:
        input_shape: [channels, side, side], side at least 4.
        num_classes: scores.

    Raises:
        ConfigError: another input shape.
    """
    channels, side = _picture("cnn", input_shape, least=4)
    return _chain(
        conv1=nn.Conv2d(channels, 16, 3, padding=1),
        relu1=nn.ReLU(),
        pool1=nn.MaxPool2d(2),
        conv2=nn.Conv2d(16, 32, 3, padding=1),
        relu2=nn.ReLU(),
        pool2=nn.MaxPool2d(2),
        flatten=nn.Flatten(),
        linear=nn.Linear(32 * (side // 4) ** 2, num_classes),
    )


class Residual(nn.Module):
    """Two 3x3 convolutions with BatchNorm beside a short cut; the first may halve the picture (stride 2)."""

    def __init__(self, before: int, after: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(before, after, 3, stride, padding=1, bias=False)
        self.norm1 = nn.BatchNorm2d(after)
        self.conv2 = nn.Conv2d(after, after, 3, padding=1, bias=False)
        self.norm2 = nn.BatchNorm2d(after)
        same = before == after and stride == 1
        self.shortcut = (
            nn.Identity()
            if same
            else nn.Sequential(nn.Conv2d(before, after, 1, stride, bias=False), nn.BatchNorm2d(after))
        )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """[batch, before, side, side] to [batch, after, side / stride, side / stride]."""
        inner = functional.relu(self.norm1(self.conv1(x)))
        return functional.relu(self.norm2(self.conv2(inner)) + self.shortcut(x))


def resnet(input_shape: Sequence[int], num_classes: int) -> nn.Sequential:
    """A residual network of one block each of 8, 16 and 32 maps, with BatchNorm.

    Args:
        input_shape: [channels, side, side], side at least 8.
        num_classes: scores.

    Raises:
        ConfigError: another input shape.
    """
    channels, _ = _picture("resnet", input_shape, least=8)
    return _chain(
        conv=nn.Conv2d(channels, 8, 3, padding=1, bias=False),
        norm=nn.BatchNorm2d(8),
        relu=nn.ReLU(),
        block1=Residual(8, 8, stride=1),
        block2=Residual(8, 16, stride=2),
        block3=Residual(16, 32, stride=2),
        pool=nn.AdaptiveAvgPool2d(1),
        flatten=nn.Flatten(),
        linear=nn.Linear(32, num_classes),
    )


class Embed(nn.Module):
    """Symbols to vectors: a learned vector per symbol plus one per position."""

    def __init__(self, symbols: int, context: int, width: int) -> None:
        super().__init__()
        self.symbol = nn.Embedding(symbols, width)
        self.position = nn.Embedding(context, width)
        # Small, as in GPT-2: with deviation 1 the residual stream starts far larger than what the blocks add to it.
        for table in (self.symbol, self.position):
            nn.init.normal_(table.weight, std=0.02)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """int64 [batch, context] to [batch, context, width]; shorter contexts are fine."""
        places = torch.arange(x.shape[1], device=x.device)
        out: torch.Tensor = self.symbol(x) + self.position(places)
        return out


class CausalBlock(nn.Module):
    """Attention to earlier positions, then a two-layer perceptron; both normalised before and added to the input."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.norm1 = nn.LayerNorm(width)
        self.query_key_value = nn.Linear(width, 3 * width)
        self.mixed = nn.Linear(width, width)
        self.norm2 = nn.LayerNorm(width)
        self.widen = nn.Linear(width, 4 * width)
        self.narrow = nn.Linear(4 * width, width)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """[batch, context, width] to the same."""
        batch, context, width = x.shape
        split = self.query_key_value(self.norm1(x)).reshape(batch, context, 3, self.heads, width // self.heads)
        query, key, value = split.permute(2, 0, 3, 1, 4)
        seen = functional.scaled_dot_product_attention(query, key, value, is_causal=True)
        x = x + self.mixed(seen.transpose(1, 2).reshape(batch, context, width))
        out: torch.Tensor = x + self.narrow(functional.gelu(self.widen(self.norm2(x))))
        return out


def char_transformer(
    input_shape: Sequence[int], num_classes: int, *, width: int = 64, heads: int = 4, blocks: int = 2
) -> nn.Sequential:
    """A decoder-only transformer that scores the next symbol at every position.

    Args:
        input_shape: [context], the longest sequence.
        num_classes: symbols, in and out.
        width: of the vectors, a multiple of heads.
        heads: of attention.
        blocks: how many.

    Raises:
        ConfigError: another input shape, or a width the heads cannot share.
    """
    if len(input_shape) != 1:
        raise ConfigError(f"char-transformer for samples of shape {tuple(input_shape)}; it reads [context] symbols")
    if min(width, heads, blocks) < 1 or width % heads:
        raise ConfigError(
            f"width = {width}, heads = {heads}, blocks = {blocks}; use a width that is a multiple of heads"
        )
    members: dict[str, nn.Module] = {"embed": Embed(num_classes, input_shape[0], width)}
    members |= {f"block{number}": CausalBlock(width, heads) for number in range(1, blocks + 1)}
    return _chain(**members, norm=nn.LayerNorm(width), linear=nn.Linear(width, num_classes))


def _mlp_for(input_shape: Sequence[int], num_classes: int, *, hidden: Sequence[int] = (64,)) -> nn.Sequential:
    return mlp([_inputs(input_shape), *hidden, num_classes])


#: The models by the names run configs use.
ZOO: dict[str, Callable[..., nn.Sequential]] = {
    "lenet5": lenet5,
    "logistic": logistic,
    "mlp": _mlp_for,
    "cnn": cnn,
    "resnet": resnet,
    "char-transformer": char_transformer,
}


def make_model(name: str, *, input_shape: Sequence[int], num_classes: int, seed: int, **options: Any) -> nn.Sequential:
    """A model by name, with initial parameters that follow from `seed` and nothing else.

    torch's global random state is left as it was found.

    Args:
        name: a key of `ZOO`.
        input_shape: of one sample, `Dataset.input_shape`.
        num_classes: `Dataset.num_classes`.
        seed: initial parameters.
        options: "mlp" takes hidden=(64,), "char-transformer" width=64, heads=4 and blocks=2.

    Raises:
        ConfigError: an unknown name or option, a shape the model cannot take, or a negative seed.
    """
    if name not in ZOO:
        raise ConfigError(f"unknown torch model {name!r}; use one of {', '.join(ZOO)}")
    known = [
        option for option in inspect.signature(ZOO[name]).parameters if option not in ("input_shape", "num_classes")
    ]
    unknown = sorted(set(options) - set(known))
    if unknown:
        has = f"it has {', '.join(known)}" if known else "it has none"
        raise ConfigError(f"model {name!r} has no option {', '.join(map(repr, unknown))}; {has}")
    if num_classes < 1 or not input_shape or min(input_shape) < 1:
        raise ConfigError(f"input_shape = {tuple(input_shape)} and num_classes = {num_classes}; use 1 or more each")
    if seed < 0:
        raise ConfigError(f"seed = {seed}; use 0 or more")
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)
        return ZOO[name](input_shape, num_classes, **options)


def _chain(**members: nn.Module) -> nn.Sequential:
    return nn.Sequential(OrderedDict(members))


def _inputs(input_shape: Sequence[int]) -> int:
    product = 1
    for length in input_shape:
        product *= length
    return product


def _picture(name: str, input_shape: Sequence[int], *, least: int) -> tuple[int, int]:
    """(channels, side) of a square picture."""
    if len(input_shape) != 3 or input_shape[1] != input_shape[2] or input_shape[1] < least:
        raise ConfigError(
            f"{name} for samples of shape {tuple(input_shape)}; it reads square pictures [channels, side, side] "
            f"with a side of {least} or more"
        )
    return input_shape[0], input_shape[1]
