"""LeNet on MNIST's 10,000 test images, 20 clients: the same rule as for digits, one more model. Full form only.

8,000 images in 20 even or Dirichlet shares, 2,000 for the test; one local epoch in batches of 32.
Nothing here encodes.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final

import numpy as np
import torch
from flwr.app import Context, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp
from torch import nn

from flower_edge.clients.codec import codec_mod
from flower_edge.data import load_dataset, make_partition
from flower_edge.data.dataset import Dataset
from flower_edge.models import make_model
from flower_edge.models.train_torch import evaluate, get_arrays, set_arrays, train
from flower_edge.runtime.generators import derive_seed
from flower_edge.wire import arrays_of, record_of

from .encoding_candidates import STATEFUL, Choice, chosen
from .encoding_rounds import Outcome, Setting, run_app
from .encoding_task import ALPHA, SPLITS

__all__ = ["LenetJob", "lenet_figures", "lenet_settings", "run_lenet"]

NODES: Final = 20
ROUNDS: Final = 60
LR: Final = 0.05
#: Of `STATEFUL`.
NAMES: Final = ("STC 2 %", "STC 1 %", "STC 0.7 %")


@dataclass(frozen=True)
class LenetJob:
    """One run.

    Attributes:
        setting: split, seed, rounds and codec.
        path: where MNIST lies.
    """

    setting: Setting
    path: str | None

    def __str__(self) -> str:
        return self.setting.name


def run_lenet(job: LenetJob) -> Outcome:
    """Run it; the same job gives the same outcome."""
    torch.set_num_threads(1)
    setting = job.setting
    train_set, test_set = load_dataset("mnist", path=job.path, size=28, seed=setting.seed)
    options = {"alpha": ALPHA, "min_size": 32} if setting.split == "dirichlet" else {}
    partition = make_partition(setting.split, train_set.labels, NODES, seed=setting.seed, **options)
    own = [train_set.subset(mine) for mine in partition]
    model = make_model("lenet5", input_shape=train_set.input_shape, num_classes=10, seed=setting.seed)
    assert isinstance(model, nn.Module)
    start = get_arrays(model)

    def judged(arrays: Mapping[str, Any]) -> float:
        set_arrays(model, arrays)
        return float(evaluate(model, test_set.x, test_set.y).accuracy)

    return run_app(setting, _app(setting, model, own), NODES, start, judged)


def _app(setting: Setting, model: nn.Module, own: Sequence[Dataset]) -> ClientApp:
    app = ClientApp(mods=[codec_mod])

    @app.train()
    def train_here(message: Message, context: Context) -> Message:
        node = int(context.node_config["partition-id"])
        round = int(str(message.content.config_records["config"]["server-round"])) - 1
        set_arrays(model, arrays_of(message.content.array_records["arrays"]))
        lr = LR * 0.5 * (1 + float(np.cos(np.pi * round / setting.rounds)))
        seed = derive_seed(setting.seed, node, round)
        done = train(model, own[node].x, own[node].y, epochs=1, batch_size=32, lr=lr, momentum=0.9, seed=seed)
        metrics = MetricRecord({"num-examples": done.examples})
        return Message(RecordDict({"arrays": record_of(get_arrays(model)), "metrics": metrics}), reply_to=message)

    return app


def lenet_settings(path: str | None, seeds: Sequence[int], rounds: int = ROUNDS) -> list[LenetJob]:
    """Runs without encoding, and with each candidate."""
    dense = [Setting(split, seed, rounds) for split in SPLITS for seed in seeds]
    coded = [replace(setting, up=STATEFUL[name].up) for name in NAMES for setting in dense]
    return [LenetJob(setting, path) for setting in [*dense, *coded]]


def lenet_figures(found: Mapping[LenetJob, Outcome]) -> dict[str, Any]:
    """`lenet_ratio` and `lenet_loss_points` of the worse split, and `lenet` with every candidate's."""
    outcomes = {job.setting: outcome for job, outcome in found.items()}
    told: dict[str, list[Choice]] = {}
    for split in SPLITS:
        dense = [setting for setting in outcomes if setting == setting.dense and setting.split == split]
        for name in NAMES:
            runs = [outcomes[replace(setting, up=STATEFUL[name].up)] for setting in dense]
            accuracies = [outcomes[setting].accuracy for setting in dense]
            choice = Choice.of(name, [run.up_ratio for run in runs], accuracies, [run.accuracy for run in runs])
            told.setdefault(split, []).append(choice)
    picks = {split: chosen(choices) for split, choices in told.items()}
    worst = min(picks.values(), key=lambda pick: pick.ratio)
    return {
        "lenet_ratio": worst.ratio,
        "lenet_loss_points": worst.loss,
        "lenet_loss_points_se": worst.loss_error,
        "lenet": {
            split: {
                "dense_accuracy": [o.accuracy for s, o in outcomes.items() if s == s.dense and s.split == split],
                "chosen": picks[split].name,
                "candidates": [vars(choice) for choice in choices],
            }
            for split, choices in told.items()
        },
    }
