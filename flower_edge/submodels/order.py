"""`SubmodelOrder`: what a message says of the part of the model it carries. Values; a channel list does not travel.

The arrays are the part; their shapes say how wide each layer is, so a node needs nothing else to make its model.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from ..errors import WireError

__all__ = ["HOW", "SUBMODEL_RECORD", "SubmodelOrder"]

#: Name of the record in a message to a node.
SUBMODEL_RECORD: Final = "flower-edge.submodel"
#: How channels are chosen.
HOW: Final = ("heterofl", "fjord", "fedrolex")


@dataclass(frozen=True)
class SubmodelOrder:
    """What a node is given.

    Attributes:
        rate: share of the channels of each group, above 0 and up to 1.
        how: one of `HOW`.
        round: by which a window rolls.
        scaler: whether layers with fewer outputs divide them by `rate` while training.
        static_norm: whether BatchNorm leaves its running statistics as they are while training.
        depth: of the model's exits so many, from 1 on; 0 is all of the model.
    """

    rate: float
    how: str = "heterofl"
    round: int = 1
    scaler: bool = False
    static_norm: bool = False
    depth: int = 0

    def to_values(self) -> dict[str, Any]:
        """For a ConfigRecord.

        >>> SubmodelOrder.from_values(SubmodelOrder(0.5, "fjord").to_values())
        SubmodelOrder(rate=0.5, how='fjord', round=1, scaler=False, static_norm=False, depth=0)
        """
        return {
            "rate": self.rate,
            "how": self.how,
            "round": self.round,
            "scaler": self.scaler,
            "static-norm": self.static_norm,
            "depth": self.depth,
        }

    @classmethod
    def from_values(cls, values: Mapping[str, Any]) -> SubmodelOrder:
        """Inverse of `to_values`.

        Raises:
            WireError: a value is missing, as where the other end has an older version, or is not what it should be.
        """
        wanted = {"rate": float, "how": str, "round": int, "scaler": bool, "static-norm": bool, "depth": int}
        for name, kind in wanted.items():
            if type(values.get(name)) is not kind:
                raise WireError(
                    f"record {SUBMODEL_RECORD!r}: {name} = {values.get(name)!r}, expected a {kind.__name__}; "
                    "install the same version of flower-edge at both ends"
                )
        rate, how, depth = values["rate"], values["how"], values["depth"]
        if not 0.0 < rate <= 1.0 or how not in HOW or depth < 0:
            raise WireError(f"record {SUBMODEL_RECORD!r}: rate {rate!r}, how {how!r}, depth {depth!r}: none we know")
        return cls(rate, how, values["round"], values["scaler"], values["static-norm"], depth)
