"""Small models, each with something that makes cutting hard."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn
from torch.nn import functional


class TwoSkips(nn.Module):
    """A value used three times, over two additions."""

    def __init__(self) -> None:
        super().__init__()
        self.one, self.two, self.three = nn.Linear(5, 5), nn.Linear(5, 5), nn.Linear(5, 5)
        self.norm = nn.BatchNorm1d(5)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        h = torch.relu(self.one(x))
        a = self.norm(self.two(h)) + h
        return self.three(a) * 0.5 + h


class Tied(nn.Module):
    """The embedding is the head's matrix."""

    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Embedding(10, 8)
        self.mix = nn.Linear(8, 8)
        self.head = nn.Linear(8, 10, bias=False)
        self.head.weight = self.embed.weight
        self.last = nn.Linear(10, 10)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.last(torch.relu(self.head(torch.tanh(self.mix(self.embed(x))))))


class InPlace(nn.Module):
    """Writes to what it was given, again and again."""

    def __init__(self) -> None:
        super().__init__()
        self.one, self.two = nn.Linear(5, 5), nn.Linear(5, 5)
        self.relu = nn.ReLU(inplace=True)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        h = self.relu(self.one(x))
        g = self.two(h)
        g += h
        return functional.relu(g, inplace=True).mul(2.0)


class Dropping(nn.Module):
    """Random as a module, as a function and in a helper."""

    def __init__(self) -> None:
        super().__init__()
        self.one, self.two, self.three = nn.Linear(5, 20), nn.Linear(20, 20), nn.Linear(20, 5)
        self.drop = nn.Dropout(0.5)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        h = self.drop(self.one(x))
        h = functional.dropout(self.two(h), 0.25, self.training)
        return self.three(self.drop(h))


class _Branch(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.inner = nn.Linear(5, 5)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if x.sum() > 0:
            return torch.relu(self.inner(x))
        return torch.tanh(self.inner(x))


class Branching(nn.Module):
    """A submodule with control flow that depends on data."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.middle, self.last = nn.Linear(5, 5), _Branch(), nn.Linear(5, 2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.last(self.middle(self.first(x)))

    class Root(nn.Module):
        """The same control flow, in the model's own forward; it never takes the other way."""

        def __init__(self) -> None:
            super().__init__()
            self.first, self.middle, self.last = nn.Linear(5, 5), _Branch(), nn.Linear(5, 2)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            if x.sum() > 0 or True:
                x = self.first(x)
            return self.last(self.middle(x))


class _Switch(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.inner = nn.Linear(5, 5)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if self.training:
            return torch.relu(self.inner(x)) * 2.0
        return self.inner(x)


class Switching(Branching):
    """A submodule that takes other steps in evaluation than in training."""

    def __init__(self) -> None:
        super().__init__()
        self.middle = _Switch()  # type: ignore[assignment]


class Scaled(nn.Module):
    """Parameters and a buffer used without a module, one of them computed with before any input comes in."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(5, 5))
        self.gain = nn.Parameter(torch.ones(5))
        self.register_buffer("offset", torch.arange(5.0))
        self.register_buffer("table", torch.arange(5.0) * 0.1, persistent=False)
        self.last = nn.Linear(5, 3)

    def forward(self, x: torch.Tensor, scale: float = 2.0) -> torch.Tensor:
        weight = self.weight / self.weight.norm()
        h = functional.linear(x + self.table, weight) * self.gain
        return self.last(torch.relu(h + self.table) * scale + self.offset)


class Counting(nn.Module):
    """A buffer that training writes to."""

    seen: torch.Tensor

    def __init__(self, persistent: bool = True) -> None:
        super().__init__()
        self.one, self.two = nn.Linear(5, 5), nn.Linear(5, 2)
        self.register_buffer("seen", torch.zeros(5), persistent=persistent)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        h = torch.relu(self.one(x))
        self.seen.add_(h.detach().sum(0))
        return self.two(h)


class Viewing(nn.Module):
    """A view, and then a step that writes to what it shows."""

    def __init__(self) -> None:
        super().__init__()
        self.one, self.two = nn.Linear(4, 4), nn.Linear(12, 2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        h = self.one(x)
        flat = h.flatten(1)
        h.mul_(2.0)
        return self.two(flat)


class Kinked(nn.Module):
    """Values without gradients at a cut: a mask, and something detached."""

    def __init__(self) -> None:
        super().__init__()
        self.one, self.two = nn.Linear(5, 5), nn.Linear(5, 2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        h = self.one(x)
        mask = h > 0
        calm = h.detach().abs()
        return self.two(h * 3.0 + calm) * mask[:, :2]


class Normed(nn.Module):
    """Normalisation by torch's parametrisation, and a frozen layer."""

    def __init__(self) -> None:
        super().__init__()
        self.one = nn.utils.parametrizations.weight_norm(nn.Linear(5, 5))
        self.two = nn.Linear(5, 5).requires_grad_(False)
        self.last = nn.Linear(5, 2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.last(torch.relu(self.two(self.one(x))))


class Lookup(nn.Module):
    """Attention and a recurrence of torch's own, whose values are tuples for a moment."""

    def __init__(self) -> None:
        super().__init__()
        self.wide = nn.Linear(5, 12)
        self.attention = nn.MultiheadAttention(4, 2, dropout=0.1, batch_first=True)
        self.recurrent = nn.GRU(4, 6, batch_first=True)
        self.last = nn.Linear(6, 2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        h = self.wide(x).reshape(-1, 3, 4)
        h = h + self.attention(h, h, h, need_weights=False)[0]
        out, _ = self.recurrent(h)
        return self.last(out[:, -1])


class Strided(nn.Module):
    """Tensors whose axes do not lie in memory in their own order, and gradients that do not."""

    def __init__(self) -> None:
        super().__init__()
        self.wide = nn.Linear(5, 12)
        self.one = nn.MultiheadAttention(4, 2, batch_first=True)
        self.two = nn.MultiheadAttention(4, 2, batch_first=True)
        self.mixed = nn.Linear(3, 3)
        self.last = nn.Linear(12, 2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        h = self.wide(x).reshape(-1, 3, 4)
        h = h + self.one(h, h, h, need_weights=False)[0]
        h = torch.relu(h).transpose(1, 2)
        h = self.mixed(h).transpose(1, 2)
        h = h + self.two(h, h, h, need_weights=False)[0]
        return self.last(h.flatten(1))


class Noting(nn.Module):
    """Keeps what it last saw as a plain attribute, of its own and of a submodule."""

    def __init__(self) -> None:
        super().__init__()
        self.one, self.two = nn.Sequential(nn.Linear(5, 5), _Note()), nn.Linear(5, 2)
        self.seen: torch.Tensor | None = None

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        self.seen = self.one(x)
        return self.two(self.seen)


class _Note(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.seen: torch.Tensor | None = None

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        self.seen = x
        return x * 2.0


class Averaging(nn.Module):
    """Replaces a buffer, which tracing cannot record."""

    def __init__(self) -> None:
        super().__init__()
        self.one = nn.Linear(5, 5)
        self.register_buffer("mean", torch.zeros(5))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        h = self.one(x)
        if self.training:
            self.mean = 0.9 * self.mean + 0.1 * h.detach().mean(0)
        return h - self.mean


class Noisy(nn.Module):
    """Random numbers that come from nothing, which tracing takes for a constant."""

    def __init__(self) -> None:
        super().__init__()
        self.one = nn.Linear(5, 5)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.one(x) + torch.rand(5)


class Sized(nn.Module):
    """A number stays live over half of the model."""

    def __init__(self) -> None:
        super().__init__()
        self.one, self.two, self.last = nn.Linear(5, 6), nn.Linear(3, 4), nn.Linear(8, 2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        h = self.one(x)
        batch = h.size(0)
        h = self.two(h.view(batch, 2, 3))
        return self.last(torch.relu(h).view(batch, -1))


class Pair(nn.Module):
    """Two inputs."""

    def forward(self, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        return x + y


class Dict(nn.Module):
    """Not a tensor."""

    def forward(self, x: torch.Tensor) -> dict[str, Any]:
        return {"scores": x}


class Unbatched(nn.Module):
    """The batch is not the first axis of the output."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x.t().contiguous()
