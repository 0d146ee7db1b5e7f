"""Models for tests of sub-models: what people write, and what cannot be sliced."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn
from torch.nn import functional


def images(side: int = 8, channels: int = 1) -> torch.Tensor:
    """Three pictures, the same every time."""
    return torch.randn(3, channels, side, side, generator=torch.Generator().manual_seed(0))


def plain_cnn() -> nn.Sequential:
    """Without normalisation: zeros stay zeros."""
    return nn.Sequential(
        nn.Conv2d(1, 8, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2), nn.Conv2d(8, 12, 3), nn.PReLU(12), nn.Flatten(),
        nn.Dropout(0.0), nn.Linear(48, 16), nn.Tanh(), nn.Linear(16, 5),
    )  # fmt: skip


class Mobile(nn.Module):
    """Depthwise and pointwise, with BatchNorm, a functional pool and `x.size(0)`."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(1, 8, 3, padding=1, bias=False)
        self.norm = nn.BatchNorm2d(8)
        self.deep = nn.Conv2d(8, 16, 3, padding=1, groups=8)
        self.point = nn.Conv2d(16, 12, 1)
        self.head = nn.Linear(12, 5)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """[batch, 1, side, side] to scores."""
        x = functional.relu6(self.norm(self.stem(x)))
        x = functional.relu6(self.point(self.deep(x)))
        x = functional.adaptive_avg_pool2d(x, 1)
        out: torch.Tensor = self.head(x.view(x.size(0), -1))
        return out


class Dense(nn.Module):
    """Concatenation, a gate over channels, and groups of channels that are normalised together."""

    def __init__(self) -> None:
        super().__init__()
        self.one = nn.Conv2d(1, 4, 3, padding=1)
        self.two = nn.Conv2d(5, 8, 3, padding=1)
        self.norm = nn.GroupNorm(4, 8)
        self.squeeze = nn.Linear(8, 6)
        self.excite = nn.Linear(6, 8)
        self.three = nn.Conv2d(12, 6, 1)
        self.scale = nn.Parameter(torch.linspace(0.5, 1.5, 6).reshape(1, 6, 1, 1))
        self.head = nn.Linear(6 * 16, 5)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """[batch, 1, 4, 4] to scores."""
        a = torch.relu(self.one(x))
        b = self.norm(self.two(torch.cat([x, a], dim=1)))
        batch, channels = b.shape[0], b.shape[1]
        gate = torch.sigmoid(self.excite(torch.relu(self.squeeze(b.mean(dim=(2, 3)))))).view(batch, channels, 1, 1)
        c = self.three(torch.cat([a, b * gate], 1)) * self.scale
        out: torch.Tensor = self.head(torch.flatten(c, 1))
        return out


class Shared(nn.Module):
    """One layer twice, in a residual stream; the last weight is tied to another."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Linear(6, 8)
        self.twice = nn.Linear(8, 8)
        self.norm = nn.LayerNorm(8)
        self.up = nn.Linear(8, 10)
        self.last = nn.Linear(8, 10)
        self.last.weight = self.up.weight
        self.head = nn.Linear(10, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """[batch, 6] to scores."""
        x = self.first(x)
        x = x + torch.tanh(self.twice(x))
        x = self.norm(x + torch.tanh(self.twice(x)))
        out: torch.Tensor = self.head(torch.tanh(self.up(x)) + self.last(x))
        return out


class Patches(nn.Module):
    """Pictures as rows of vectors, with positions of their own, normalised and mixed in a residual stream."""

    def __init__(self) -> None:
        super().__init__()
        self.patch = nn.Conv2d(1, 8, 4, stride=4)
        self.place = nn.Parameter(torch.linspace(-1.0, 1.0, 32).reshape(1, 4, 8))
        self.norm = nn.LayerNorm(8)
        self.up = nn.Linear(8, 12)
        self.down = nn.Linear(12, 8)
        self.head = nn.Linear(8, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """[batch, 1, 8, 8] to scores."""
        x = self.patch(x).flatten(2).transpose(1, 2) + self.place
        x = x + self.down(functional.gelu(self.up(self.norm(x))))
        out: torch.Tensor = self.head(x.mean(1))
        return out


class Picture(nn.Module):
    """Gives a picture: convolutions in groups of four channels, and one that enlarges."""

    def __init__(self) -> None:
        super().__init__()
        self.shrink = nn.Conv2d(1, 8, 3, stride=2, padding=1)
        self.mix = nn.Conv2d(8, 8, 3, padding=1, groups=2)
        self.enlarge = nn.ConvTranspose2d(8, 6, 2, stride=2)
        self.last = nn.Conv2d(6, 1, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """[batch, 1, side, side] to the same."""
        out: torch.Tensor = self.last(torch.relu(self.enlarge(self.mix(torch.relu(self.shrink(x))))))
        return out


class Branching(nn.Module):
    """Its steps depend on the data."""

    def __init__(self) -> None:
        super().__init__()
        self.one = nn.Linear(4, 8)
        self.two = nn.Linear(8, 2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """[batch, 4] to scores."""
        x = self.one(x)
        if x.sum() > 0:
            x = 2 * x
        out: torch.Tensor = self.two(x)
        return out


class Recurrent(nn.Module):
    """A layer that is not known."""

    def __init__(self) -> None:
        super().__init__()
        self.read = nn.Linear(4, 6)
        self.memory = nn.GRU(6, 5, batch_first=True)
        self.head = nn.Linear(5, 2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """[batch, time, 4] to scores."""
        out: torch.Tensor = self.head(self.memory(self.read(x))[0])
        return out


class Numbered(nn.Module):
    """A width written into the forward."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(1, 4, 3, padding=1)
        self.head = nn.Linear(64, 2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """[batch, 1, 4, 4] to scores."""
        out: torch.Tensor = self.head(self.conv(x).view(-1, 64))
        return out


def with_other_channels_zero(model: Any, index: Any) -> None:
    """In place: numbers of the arrays that are not in this part become zero."""
    from flower_edge.updates.places import brackets

    with torch.no_grad():
        for name, tensor in model.state_dict().items():
            if index[name] is None or not tensor.is_floating_point():
                continue
            kept = torch.zeros_like(tensor)
            where = brackets(tuple(tensor.shape), index[name])
            kept.numpy()[where] = tensor.numpy()[where]
            tensor.copy_(kept)


class Headed(nn.Module):
    """Two outputs."""

    def __init__(self) -> None:
        super().__init__()
        self.one, self.other = nn.Linear(4, 2), nn.Linear(4, 3)

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """[batch, 4] to two scores."""
        return self.one(x), self.other(x)
