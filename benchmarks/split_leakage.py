"""What tensors at each cut give away of the pictures: distance correlation, untrained and trained. For information.

Nothing here is a target: the gauge says how far tensors still depend on inputs, not what an attacker could rebuild.
"""

from __future__ import annotations

from typing import Any, Final

from flower_edge.models import get_arrays, make_model, set_arrays, train
from flower_edge.splitting.leakage_torch import measure

from .split_conversation import ends
from .split_task import BATCH, OPTIMISER, SPEC, federation, first_model

__all__ = ["MEMBERS", "leakage_figures"]

#: Cuts at which all that follows is one tensor: behind these members of the model.
MEMBERS: Final = ("relu", "block1", "block2", "block3", "pool", "linear")
_SAMPLES: Final = 300
_STEPS: Final = 200


def leakage_figures(seed: int = 0) -> dict[str, Any]:
    """Distance correlation, without the bias of few samples, by member and state of the model."""
    data, model = federation(seed), ends().device
    whole = make_model(SPEC.name, input_shape=SPEC.input_shape, num_classes=SPEC.num_classes, seed=seed)
    momentum = float(OPTIMISER.options["momentum"])
    train(whole, data.x[0], data.y[0], steps=_STEPS, batch_size=BATCH, lr=OPTIMISER.lr, momentum=momentum, seed=seed)
    x = data.test_x[:_SAMPLES]
    found: dict[str, dict[str, float]] = {}
    for name, arrays in (("untrained", first_model(seed)), ("trained", get_arrays(whole))):
        set_arrays(model.model, arrays)
        by_cut = measure(model, x)
        found[name] = {"input": by_cut[0]}
        for member in MEMBERS:
            at = [cut.position for cut in model.cuts if cut.name == member or cut.name.startswith(f"{member}.")]
            found[name][member] = by_cut[max(at)]
    return {"leakage": found}
