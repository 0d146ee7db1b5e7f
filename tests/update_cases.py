"""Replies for tests of updates: whole ones, and sub-models of any places, with a dense picture to check against."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from hypothesis import strategies as st

from flower_edge.updates.manifest import Index, Manifest, Spec, part_manifest, whole_manifest
from flower_edge.updates.update import Update

#: Two arrays that sub-models cut, one scalar, one counter.
SPEC: Spec = {
    "a": ((4, 5), "float32"),
    "b": ((5,), "float64"),
    "c": ((), "float32"),
    "n": ((), "int64"),
}


def model(rng: np.random.Generator, spec: Spec = SPEC, scale: float = 10.0) -> dict[str, np.ndarray]:
    """A model of this spec with random numbers."""
    return {
        name: np.asarray(rng.normal(scale=scale, size=shape)).astype(dtype) for name, (shape, dtype) in spec.items()
    }


def cut(arrays: Mapping[str, np.ndarray], manifest: Manifest) -> dict[str, np.ndarray]:
    """The manifest's part of a whole model, by the plainest indexing there is."""
    out = {}
    for name, part in manifest.arrays.items():
        array = arrays[name]
        for axis, places in enumerate(part.index or ()):
            if places is not None:
                array = np.take(array, places, axis=axis)
        out[name] = array
    return out


def update(
    base: Mapping[str, np.ndarray], end: Mapping[str, np.ndarray], manifest: Manifest | None = None, **given: Any
) -> Update:
    """The reply of a node that ended at `end`, of which it holds the manifest's part."""
    manifest = manifest or whole_manifest({name: (array.shape, str(array.dtype)) for name, array in base.items()})
    arrays = cut(end, manifest)
    if given.get("difference"):
        start = cut(base, manifest)
        arrays = {name: np.asarray(array - start[name].astype(np.float64)) for name, array in arrays.items()}
    return Update(**({"node": "1", "weight": 1.0} | given), arrays=arrays, base=base, manifest=manifest)


def mask(manifest: Manifest, spec: Spec = SPEC) -> dict[str, np.ndarray]:
    """By name, bool in the whole shape: what the manifest holds."""
    out = {}
    for name, (shape, _) in spec.items():
        held = np.zeros(shape, bool)
        if name in manifest.arrays:
            index: Sequence[Any] = manifest.arrays[name].index or (None,) * len(shape)
            held[np.ix_(*(range(size) if i is None else i for i, size in zip(index, shape, strict=True)))] = True
        out[name] = held
    return out


def _places(size: int) -> st.SearchStrategy[np.ndarray | None]:
    some = st.sets(st.integers(0, size - 1)).map(lambda places: np.array(sorted(places), np.intp))
    return st.none() | some


@st.composite
def manifests(draw: st.DrawFn, spec: Spec = SPEC) -> Manifest:
    """The whole model, a piece, or a sub-model with any places on any axis."""
    index: dict[str, Index | None] = {}
    for name, (shape, _) in spec.items():
        if draw(st.integers(0, 4)):
            index[name] = draw(st.none() | st.tuples(*map(_places, shape)))
    return part_manifest(spec, index)


@st.composite
def rounds(draw: st.DrawFn, most: int = 5, differences: bool = True) -> list[Update]:
    """Replies to one base: some whole, some not, with any weights, some as differences."""
    rng = np.random.default_rng(draw(st.integers(0, 2**32)))
    base = model(rng)
    if draw(st.booleans()):
        parts = [whole_manifest(SPEC)] * draw(st.integers(1, most))
    else:
        parts = draw(st.lists(manifests(), min_size=1, max_size=most))
    return [
        update(
            base,
            model(rng),
            part,
            node=str(key),
            weight=float(draw(st.sampled_from([0, 1, 1, 2, 7, 10**18]))),
            difference=differences and draw(st.booleans()),
        )
        for key, part in enumerate(parts)
    ]
