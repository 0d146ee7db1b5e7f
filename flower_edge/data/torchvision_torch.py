"""torchvision, imported where it can be. The one place that imports it.

torchvision's wheel on PyPI is built for CUDA. Beside a CPU-only torch its compiled operators do not load, and
then `import torchvision` itself fails, because it attaches Python code to two operators nobody declared
("operator torchvision::nms does not exist"). Declaring their signatures is enough for everything that does not
call them: data sets, transforms, most models. A torchvision that imports by itself is left alone.

Nothing here reads data.
"""

from __future__ import annotations

from typing import Any

import torch

from ..errors import ConfigError

#: The operators torchvision attaches Python code to without checking that they are there.
_OPERATORS = ("nms", "qnms")
_SIGNATURE = "(Tensor dets, Tensor scores, float iou_threshold) -> Tensor"


def _declare() -> Any:
    """Declare the missing operators: a torch.library.Library, or None when torchvision needed no help."""
    try:
        import torchvision  # noqa: F401
    except RuntimeError as error:
        if "torchvision::" not in str(error):
            return None  # another fault: it shows again, and is reported, below
    else:
        return None
    libraries: Any = torch.library  # its classes have no annotations
    library = libraries.Library("torchvision", "DEF")
    for operator in _OPERATORS:
        if not hasattr(torch.ops.torchvision, operator):
            library.define(operator + _SIGNATURE)
    return library


#: Operators live as long as this object does.
DECLARED = _declare()

try:
    import torchvision
    from torchvision import datasets
except RuntimeError as error:
    raise ConfigError(
        f"torchvision does not import beside torch {torch.__version__} ({error}); "
        "install the torchvision release and build (CPU or CUDA) made for this torch"
    ) from error

__all__ = ["DECLARED", "datasets", "torchvision"]
