"""Per-step gradients, the setting the published method was made for: eight nodes, synchronous SGD, every step encoded.

`GradientExchange` over a `LocalGrid`, server form. Dense gradients, Deep Gradient Compression (the largest 0.1 %, with
momentum correction), and codings that share their support or are learned, as steps of one kind. Ratios are float32 over
what went up, whole run, header included. Nothing here is federated averaging.

Source: Lin et al., "Deep gradient compression", ICLR 2018, for what it is held against.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import torch
from flwr.app import ArrayRecord, ConfigRecord, Context, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp

from flower_edge.clients.gradients import gradient_mod
from flower_edge.codecs.error_feedback import ErrorFeedback, stc
from flower_edge.codecs.identity import Identity
from flower_edge.codecs.lgc.lgc import Lgc
from flower_edge.codecs.shared_support import SharedSupport
from flower_edge.codecs.top_k import TopK
from flower_edge.codecs.vector_codec import VectorCodec
from flower_edge.runtime.local_grid import LocalGrid
from flower_edge.strategies.gradients.exchange import GradientExchange
from flower_edge.wire import arrays_of, record_of

from .encoding_candidates import Choice, chosen
from .encoding_rounds import LAST
from .encoding_task import NODES, SPLITS, Federation, accuracy, cosine, first_model, gradient, make_federation

__all__ = ["CODECS", "GradientOutcome", "GradientSetting", "gradient_figures", "gradient_settings", "run_gradients"]

BATCH: Final = 32
MOMENTUM: Final = 0.9
#: Steps between two readings of the accuracy.
EVERY: Final = 20
STEPS: Final = {True: 600, False: 1_200}

#: Points that the chosen codec may lose.
MOST: Final = 0.2

DENSE: Final = "dense"
DGC: Final = "DGC, 0.1 %"
#: Momentum is the server's, but in DGC, whose senders correct theirs. DGC's indices are Rice codes here, not 32 bits.
CODECS: Final[Mapping[str, VectorCodec]] = {
    DENSE: Identity(),
    DGC: ErrorFeedback(TopK(0.001, Identity(), support="rice"), momentum=MOMENTUM),
    **{f"top {100 * fraction:g} %, signs": stc(fraction) for fraction in (0.003, 0.004, 0.005)},
    "shared support": ErrorFeedback(SharedSupport(0.01, innovation=0.002, fallback=TopK(0.004))),
    "LGC, gated": ErrorFeedback(Lgc(0.01, innovation=0.002, channels=(8, 16, 32, 8, 4))),
    "LGC, always": ErrorFeedback(Lgc(0.01, innovation=0.002, channels=(8, 16, 32, 8, 4), gated=False)),
}
#: In the short form; first what takes longest, so that both processes are busy to the end.
QUICK: Final = ("LGC, gated", DENSE, DGC, "top 0.5 %, signs")


@dataclass(frozen=True)
class GradientSetting:
    """One run of synchronous SGD.

    Attributes:
        name: of the codec, in `CODECS`.
        split, seed: of data, first model and batches.
        steps: how many; the learning rate falls to zero over them.
    """

    name: str
    split: str
    seed: int
    steps: int


@dataclass(frozen=True)
class GradientOutcome:
    """What came of it.

    Attributes:
        accuracy: in percent, mean of the last readings.
        up_ratio, down_ratio: float32 over what travelled.
        told: what was measured last, such as the gate's decision.
    """

    accuracy: float
    up_ratio: float
    down_ratio: float
    told: Mapping[str, float]


def gradients_app(federation: Federation) -> ClientApp:
    """The nodes: a gradient of one batch of their own pictures."""
    app = ClientApp(mods=[gradient_mod])

    @app.train()
    def train(message: Message, context: Context) -> Message:
        node, step = (
            int(context.node_config["partition-id"]),
            int(str(message.content.config_records["config"]["step"])),
        )
        arrays = arrays_of(message.content.array_records["arrays"])
        found, loss = gradient(federation, arrays, node, step, BATCH)
        metrics = MetricRecord({"num-examples": BATCH, "loss": loss})
        return Message(RecordDict({"arrays": record_of(found), "metrics": metrics}), reply_to=message)

    return app


def run_gradients(setting: GradientSetting) -> GradientOutcome:
    """Run it; the same setting gives the same outcome."""
    torch.set_num_threads(1)
    federation = make_federation(setting.split, setting.seed)
    readings: list[float] = []

    def judged(number: int, arrays: ArrayRecord) -> MetricRecord:
        if number > setting.steps // EVERY - LAST:
            readings.append(100 * accuracy(federation, arrays_of(arrays)))
        return MetricRecord({})

    codec = CODECS[setting.name]
    strategy = GradientExchange(
        codec,
        learning_rate=lambda step: cosine(step, setting.steps),
        momentum=0.0 if getattr(codec, "momentum", 0.0) else MOMENTUM,
        steps_per_round=EVERY,
        fraction_evaluate=0.0,
    )
    with LocalGrid(gradients_app(federation), nodes=NODES, seed=setting.seed) as grid:
        result = strategy.start(
            grid,
            record_of(first_model(setting.seed)),
            num_rounds=setting.steps // EVERY,
            train_config=ConfigRecord({}),
            evaluate_fn=judged,
        )
    told = dict(result.train_metrics_clientapp[setting.steps // EVERY])
    numbers = {name: float(value) for name, value in told.items() if isinstance(value, int | float)}
    return GradientOutcome(float(np.mean(readings)), numbers["total_up_ratio"], numbers["total_down_ratio"], numbers)


def gradient_settings(seeds: Sequence[int], *, quick: bool) -> list[GradientSetting]:
    """All runs; the short form has the even split only, and fewer codecs."""
    splits, names = (SPLITS[:1], QUICK) if quick else (SPLITS, tuple(CODECS))
    return [GradientSetting(name, split, seed, STEPS[quick]) for split in splits for seed in seeds for name in names]


def gradient_figures(found: Mapping[GradientSetting, GradientOutcome]) -> dict[str, Any]:
    """Ratio and points under the dense run of each codec, and the one with the largest ratio that loses at most 0.2.

    Returns:
        `lgc_gradient_loss_points` and `lgc_gradient_ratio_over_dgc` of the chosen codec, in the split where each is
        worse, and `lgc_gradient_mode`: every row, and which was chosen.
    """
    splits: dict[str, dict[str, Any]] = {}
    picks: dict[str, Choice] = {}
    for split in dict.fromkeys(setting.split for setting in found):
        runs = {(s.name, s.seed): outcome for s, outcome in found.items() if s.split == split}
        seeds = sorted({seed for _, seed in runs})
        dense = [runs[DENSE, seed].accuracy for seed in seeds]
        rows: dict[str, dict[str, Any]] = {}
        choices = []
        for name in dict.fromkeys(name for name, _ in runs):
            own = [runs[name, seed] for seed in seeds]
            choice = Choice.of(name, [run.up_ratio for run in own], dense, [run.accuracy for run in own])
            choices += [choice] if name not in (DENSE, DGC) else []
            rows[name] = {
                "accuracy": float(np.mean([run.accuracy for run in own])),
                "loss_points": choice.loss,
                "loss_points_se": choice.loss_error,
                "up_ratio": choice.ratio,
                "down_ratio": float(np.mean([run.down_ratio for run in own])),
                "gate_open": [run.told.get("lgc_gate_open") for run in own],
            }
        picks[split] = chosen(choices, MOST)
        splits[split] = {"chosen": picks[split].name, "codecs": rows}
    worst = max(picks.values(), key=lambda pick: pick.loss)
    return {
        "lgc_gradient_loss_points": worst.loss,
        "lgc_gradient_loss_points_se": worst.loss_error,
        "lgc_gradient_ratio_over_dgc": min(
            pick.ratio / splits[split]["codecs"][DGC]["up_ratio"] for split, pick in picks.items()
        ),
        "lgc_gradient_mode": splits,
    }
