"""`BuiltModels`: models that a process has built from architectures, so that a message need not build one anew.

They keep no arrays: halves and pieces bring their own. Nothing here trains or sends.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, Final

from flower_edge.errors import SplitError
from flower_edge.splitting.architecture import build
from flower_edge.splitting.order import ArchitectureSpec

if TYPE_CHECKING:
    from flower_edge.splitting.cutting_torch import CutModel

__all__ = ["BuiltModels"]

#: So many are kept.
_MOST: Final = 8


class BuiltModels:
    """Of one process.

    Args:
        models: factories of models by name.
        machine: what errors call whoever builds here: `device`.
        same: who has to have the same models, for errors: `split_client and Split`.
    """

    def __init__(self, models: Mapping[str, Callable[..., Any]] | None, *, machine: str, same: str) -> None:
        self.models, self._machine, self._same = models, machine, same
        self._built: OrderedDict[str, CutModel] = OrderedDict()
        self._lock = threading.Lock()

    def of(self, spec: ArchitectureSpec) -> CutModel:
        """The model of an architecture; its digest is compared.

        Raises:
            SplitError: it cannot be built here, or comes out as another one.
        """
        plain = spec.model_copy(update={"digest": ""})
        key = plain.model_dump_json()
        with self._lock:
            if key not in self._built:
                built = build(plain, models=self.models)
                from flower_edge.splitting.halves_torch import let_go

                # Profiled under the lock: torch counts operations with hooks that belong to the process.
                let_go(built)
                self._built[key] = built
                while len(self._built) > _MOST:
                    self._built.popitem(last=False)
            self._built.move_to_end(key)
            model = self._built[key]
        if spec.digest and model.digest != spec.digest:
            raise SplitError(
                f"architecture {spec.name!r} built on this {self._machine} has digest {model.digest[:12]}, the order "
                f"names {spec.digest[:12]}; give {self._same} the same models=, and install the same flower-edge and "
                "torch on both sides"
            )
        return model
