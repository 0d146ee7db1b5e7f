"""The task "digits": a small residual network, trained in seconds on the digits that scikit-learn brings.

1,437 digits of 8x8 pixels are split into 1,078 to train and learn from and 359 to judge by; 360 are for the report.
"""

from __future__ import annotations

import torch
from torch.nn import functional

from ...data.digits import load_digits
from ...fringe.distil_recipe import DistilRecipe
from ...fringe.fitting_torch import Recipe
from ...models.zoo_torch import make_model
from .task_torch import CompressionTask

__all__ = ["digits_task"]

_VALIDATION, _EPOCHS, _BATCH, _LR = 359, 10, 64, 5e-3


def digits_task(seed: int = 0) -> CompressionTask:
    """Train the model; the same seed gives the same one, and torch's random state is left as it was."""
    train, test = load_digits(seed=seed)
    x, y = torch.from_numpy(train.x), torch.from_numpy(train.y)
    learn, labels = x[:-_VALIDATION].contiguous(), y[:-_VALIDATION]
    model = make_model("resnet", input_shape=train.input_shape, num_classes=10, seed=seed)
    draw = torch.Generator().manual_seed(seed)
    optimiser = torch.optim.AdamW(model.parameters(), lr=_LR)
    steps = _EPOCHS * (len(learn) // _BATCH)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, max_lr=_LR, total_steps=steps)
    model.train()
    for _ in range(_EPOCHS):
        order = torch.randperm(len(learn), generator=draw)
        for some in order[: len(order) // _BATCH * _BATCH].reshape(-1, _BATCH):
            optimiser.zero_grad()
            torch.autograd.backward(functional.cross_entropy(model(learn[some]), labels[some]))
            optimiser.step()
            schedule.step()
    return CompressionTask(
        "digits",
        model.eval(),
        learn,
        (x[-_VALIDATION:], y[-_VALIDATION:]),
        (torch.from_numpy(test.x), torch.from_numpy(test.y)),
        labels=labels,
        healing=Recipe(epochs=4, seed=seed),
        distilling=DistilRecipe(seed=seed),
    )
