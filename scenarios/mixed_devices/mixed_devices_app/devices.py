"""Who is who: five classes of devices in the street, the terminals of the hall, and when each is loaded or away.

The times are made up and the same for all who ask. Nothing here trains or sends.
"""

from __future__ import annotations

from dataclasses import dataclass

from flower_edge.runtime import Link
from flower_edge.splitting import Capacity
from flower_edge.submodels.catalogue import Variant
from mixed_devices_app.config import CLASS_NAMES, STREET, MixedDevices


@dataclass(frozen=True)
class DeviceClass:
    """What terminals of one kind have in common.

    Attributes:
        name: of the class.
        flops_per_s: in training, with nothing else to do.
        memory_bytes: free.
        model: its program's: `mlp` is torch's, `numpy-mlp` needs no torch.
    """

    name: str
    flops_per_s: float
    memory_bytes: int
    model: str


CLASSES = dict(
    zip(
        CLASS_NAMES,
        (
            DeviceClass("full", 60e6, 16_000_000, "mlp"),
            DeviceClass("large", 20e6, 1_200_000, "mlp"),
            DeviceClass("medium", 6.5e6, 500_000, "mlp"),
            DeviceClass("small", 2.5e6, 200_000, "numpy-mlp"),
            DeviceClass("tiny", 1e6, 64_000, "numpy-mlp"),
        ),
        strict=True,
    )
)
#: Of every terminal.
LINK = Link(up_bps=20e6, down_bps=40e6, latency_s=0.01)
#: Quick, with little memory: no one of them can train the whole model.
HALL = DeviceClass("hall", 60e6, 600_000, "mlp")


def device(terminal: int) -> DeviceClass:
    """The class of a terminal.

    >>> [device(terminal).name for terminal in (0, 1, 9, 10)]
    ['full', 'full', 'tiny', 'hall']
    """
    return HALL if terminal >= STREET else CLASSES[CLASS_NAMES[terminal * len(CLASS_NAMES) // STREET]]


def edge_of(terminal: int) -> str:
    """The edge of a terminal."""
    return "hall" if terminal >= STREET else "street"


def capacity(terminal: int) -> Capacity:
    """What a terminal of the hall can do."""
    return Capacity(device(terminal).flops_per_s, memory_bytes=device(terminal).memory_bytes)


def load(config: MixedDevices, terminal: int, number: int, step: int) -> float:
    """Of a terminal's processor at a step of a round."""
    first, last = config.spike_rounds
    at = config.spike.at_step
    loaded = device(terminal).name in config.spiking and (first, at) <= (number, step) < (last, at)
    return config.spike.load if loaded else 0.0


def step_s(config: MixedDevices, terminal: int, variant: Variant, load: float = 0.0) -> float:
    """Seconds of a step with a model of the list."""
    return variant.train_flops * config.train.batch_size / device(terminal).flops_per_s / (1.0 - load)


def whole_round_s(config: MixedDevices, terminal: int, number: int, whole: Variant) -> float:
    """Seconds of a round in which a terminal of the street would train the whole model, in slices as it does."""
    steps = config.train.steps
    slices = -(-steps // config.train.steps_per_message)
    bits = 8 * whole.state_bytes
    ways_s = 2 * slices * LINK.latency_s + bits / LINK.up_bps + bits / LINK.down_bps
    return ways_s + sum(step_s(config, terminal, whole, load(config, terminal, number, step)) for step in range(steps))


def away(config: MixedDevices, terminal: int, number: int) -> bool:
    """Whether a terminal of the hall is gone for the whole of a round."""
    leaves, back = config.leaver_away
    return terminal == STREET + config.hall.leaver and 0 < leaves < number < back


def leaves(config: MixedDevices, terminal: int, number: int) -> bool:
    """Whether a terminal of the hall goes in the midst of a round."""
    return terminal == STREET + config.hall.leaver and number == config.leaver_away[0]
