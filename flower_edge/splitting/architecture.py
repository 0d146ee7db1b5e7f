"""From an architecture as data to the model, cut: each end builds it from code of its own and compares digests.

Names are those of `flower_edge.models`, and of factories the program hands in. Nothing here needs torch until a model
is built; nothing is downloaded, unpickled or evaluated.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from ..errors import SplitError
from ..models.registry import MODELS
from .order import ArchitectureSpec

if TYPE_CHECKING:
    from .cutting_torch import CutModel

__all__ = ["build", "described", "known"]

#: Makes a torch module of `input_shape=`, `num_classes=` and the options of an architecture.
Factory = Callable[..., Any]


def known(models: Mapping[str, Factory] | None = None) -> tuple[str, ...]:
    """Names that `build` can make: the caller's first.

    >>> known({"my-net": lambda **options: None})[:3]
    ('my-net', 'lenet5', 'logistic')
    """
    # NumpyMLP has no torch modules to cut.
    return (*(models or {}), *(name for name in MODELS if name != "numpy-mlp" and name not in (models or {})))


def build(spec: ArchitectureSpec, seed: int = 0, models: Mapping[str, Factory] | None = None) -> CutModel:
    """The model, with initial parameters that follow from `seed`, cut as the architecture says.

    A factory of the caller's is called as `factory(input_shape=..., num_classes=..., **options)`; its name goes before
    one of `flower_edge.models`. Its model is tried on normal float32 numbers. If it takes something else, give the
    factory an attribute `example`: a function of the same arguments that returns a batch of two samples.

    Args:
        spec: which model. A digest in it must be the model's.
        seed: of initial parameters, 0 or more.
        models: factories of torch modules by name.

    Raises:
        SplitError: a name nobody knows here, options the model has not, a model that cannot be cut, another digest than
            the spec's, or torch is not installed.
    """
    if spec.name not in known(models):
        why = "NumPy's own model has no units to cut" if spec.name == "numpy-mlp" else "no such model here"
        raise SplitError(
            f"architecture {spec.name!r}: {why}; known are {', '.join(known(models))}; "
            "hand in others by name: models={'my-net': make_my_net}"
        )
    if seed < 0:
        raise SplitError(f"seed = {seed}; use 0 or more")
    try:
        from .architecture_torch import make
    except ImportError as error:
        raise SplitError(
            f"architecture {spec.name!r} needs torch, which is not installed; type: pip install 'flower-edge[torch]'"
        ) from error
    model = make(spec, seed, models or {})
    if spec.digest and model.digest != spec.digest:
        raise SplitError(
            f"architecture {spec.name!r} built here has the digest {model.digest[:12]}…, expected {spec.digest[:12]}…: "
            "its units or arrays differ; install the same version of the model's code and of torch at both ends"
        )
    return model


def described(spec: ArchitectureSpec, cut_model: CutModel) -> ArchitectureSpec:
    """The same architecture with the digest of what was built from it."""
    return spec.model_copy(update={"digest": cut_model.digest})
