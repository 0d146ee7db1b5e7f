"""The versions that are served: the base model at 32, 16, 8 and 4 bits, and with an encoder and a decoder at both cuts.

The pair is that of `fringe_distil`, of as many bytes, trained for a shorter time, and kept in a file: what an inference
takes depends on its shapes alone. Its accuracy is told beside the figures. Nothing here serves.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict
from typing import Any, Final, NamedTuple

import numpy as np
import torch

from flower_edge.errors import EdgeError
from flower_edge.fringe import DistilRecipe, Pair, Pipeline, WireForm
from flower_edge.fringe.distil_torch import accuracy, distil, pairs_from
from flower_edge.fringe.pair_parts_torch import placed
from flower_edge.store import load_tree, save_tree

from .fringe_base import Base, base_model, cache_folder, on_machines
from .fringe_distil import SHAPES
from .fringe_task import parts
from .harness.printing import progress

__all__ = ["BEFORE", "COMPRESSED", "HEALED", "Served", "other_pairs", "served_versions"]

#: Epochs of regression and end to end; samples, in the short form and the whole one.
_RECIPES: Final = {True: (DistilRecipe(regress_epochs=2, distil_epochs=1), 2500), False: (DistilRecipe(), 6000)}
#: How much another version's pair differs, over the spread of each array: it gives other bits and costs the same.
_HEALED: Final = 1e-3
BEFORE: Final = "32 bits"
COMPRESSED: Final = "pair"
HEALED: Final = "pair, healed"


class Served(NamedTuple):
    """What is served.

    Attributes:
        base: the model before any compression.
        pipelines: by name; `BEFORE` first, then ever fewer bytes, `HEALED` as many as `COMPRESSED`.
        test_percent: of `BEFORE` and `COMPRESSED`.
    """

    base: Base
    pipelines: dict[str, Pipeline]
    test_percent: tuple[float, float]


def served_versions(quick: bool, *, seed: int = 0, folder: str | None = None) -> Served:
    """Train what is not kept yet, and put it on machines."""
    base = base_model(seed, folder)
    whole = on_machines(base.model)
    bits = {f"{bits} bits": whole.formed(dict.fromkeys(range(2), WireForm(bits))) for bits in (16, 8, 4)}
    pairs = _pairs(whole, base, quick, seed, folder)
    compressed = placed(whole, pairs)
    test = parts(seed).test
    scores = [compressed.run(torch.from_numpy(x)).numpy() for x in np.array_split(test.x, 8)]
    right = 100.0 * accuracy(np.concatenate(scores), test.y)
    pipelines = {BEFORE: whole, **bits, COMPRESSED: compressed, HEALED: placed(whole, other_pairs(pairs))}
    return Served(base, pipelines, (base.test_percent, right))


def other_pairs(pairs: dict[int, Pair]) -> dict[int, Pair]:
    """Pairs of the same shapes that give other bits, as after healing."""
    random = torch.Generator().manual_seed(1)
    found = {}
    for connection, pair in pairs.items():
        twin = Pair(pair.shape, hidden=pair.hidden)
        twin.set_arrays(pair.arrays())
        with torch.no_grad():
            for values in twin.parameters():
                values.add_(_HEALED * values.std(correction=0) * torch.randn(values.shape, generator=random))
        found[connection] = twin.eval()
    return found


def _pairs(whole: Pipeline, base: Base, quick: bool, seed: int, folder: str | None) -> dict[int, Pair]:
    recipe, samples = _RECIPES[quick]
    shapes = {str(one): shape.config() for one, shape in SHAPES.items()}
    told = json.dumps([base.digest, asdict(recipe), samples, shapes], sort_keys=True)
    digest = hashlib.sha256(told.encode()).hexdigest()
    path = cache_folder(folder) / f"fringe-pairs-{digest[:16]}.safetensors"
    if path.exists():
        try:
            kept: dict[str, Any] = load_tree(path)
            return pairs_from(kept["pairs"])
        except (EdgeError, KeyError) as error:
            progress(f"pairs: {error}; training anew")
    data = parts(seed)
    progress("pairs: training, once; they are kept")
    found = distil(
        whole, SHAPES, data.train.x[:samples], data.train.y[:samples],
        validation=(data.validation.x, data.validation.y), recipe=recipe,
    )  # fmt: skip
    path.parent.mkdir(parents=True, exist_ok=True)
    save_tree(path, {"pairs": found.tree()})
    return found.pairs
