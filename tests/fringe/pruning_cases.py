"""Pairs of neighbouring parts for pruning: chains, residual and downsampling blocks, drawn or named."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

import torch
from torch import fx, nn

from flower_edge.models.zoo_torch import Residual


def part(module: nn.Module) -> fx.GraphModule:
    """As a pipeline has it: gives a tuple of tensors."""
    made = fx.symbolic_trace(module)
    last = next(node for node in made.graph.nodes if node.op == "output")
    if not isinstance(last.args[0], tuple):
        last.args = ((last.args[0],),)
    made.recompile()
    return made.eval()


def settled(module: nn.Module, seed: int = 0) -> nn.Module:
    """With norms whose channels differ."""
    generator = torch.Generator().manual_seed(seed)
    for layer in module.modules():
        if isinstance(layer, nn.BatchNorm1d | nn.BatchNorm2d):
            for tensor, least in (
                (layer.running_mean, -0.2), (layer.running_var, 0.5), (layer.weight.data, 0.5), (layer.bias.data, -0.5),
            ):  # fmt: skip
                assert tensor is not None
                tensor.copy_(torch.rand(tensor.shape, generator=generator) + least)
    return module


class Pick(nn.Module):
    """The sequence a recurrent layer gives, without its state."""

    def __init__(self, layer: nn.Module) -> None:
        super().__init__()
        self.layer = layer

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        out: torch.Tensor = self.layer(x)[0]
        return out


def residual_pair(channels: int = 6) -> tuple[fx.GraphModule, fx.GraphModule]:
    """A residual block with an identity sends to one; behind it a block that halves the picture."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        before = nn.Sequential(nn.Conv2d(1, channels, 3, padding=1), nn.ReLU(), Residual(channels, channels, 1))
        after = nn.Sequential(
            Residual(channels, channels, 1),
            Residual(channels, 2 * channels, 2),
            nn.AdaptiveAvgPool2d(1),
            nn.Flatten(),
            nn.Linear(2 * channels, 4),
        )
    return part(settled(before)), part(settled(after, 1))


def pictures(samples: int = 4, channels: int = 1, side: int = 6, seed: int = 3) -> torch.Tensor:
    return torch.randn(samples, channels, side, side, generator=torch.Generator().manual_seed(seed))


def bytes_of(tensors: Sequence[tuple[str, torch.Tensor]]) -> str:
    """SHA-256 over names and bytes."""
    found = hashlib.sha256()
    for name, tensor in tensors:
        found.update(name.encode() + tensor.detach().numpy().tobytes())
    return found.hexdigest()


def state(part: fx.GraphModule, without: Sequence[str] = ()) -> str:
    """Digest of all arrays but those of some layers and of layers that were put in."""
    put_in = ("selected_", "expanded_")
    return bytes_of(
        [
            (name, tensor)
            for name, tensor in part.state_dict().items()
            if not name.startswith(put_in) and not any(name.startswith(f"{layer}.") for layer in without)
        ]
    )


def masked(tensor: torch.Tensor, keep: Sequence[int], axis: int = 1) -> torch.Tensor:
    """With 0 in all channels but these."""
    kept = torch.tensor(list(keep))
    return torch.zeros_like(tensor).index_copy(axis, kept, tensor.index_select(axis, kept))
