"""`ByLayer`: which codec an array gets is decided by its name. Nothing here codes numbers itself."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from glob import escape
from typing import ClassVar

from ..errors import CodecError
from .grouped import Group, Grouped
from .layout import Layout
from .nested import check_codec
from .vector_codec import VectorCodec

__all__ = ["ByLayer", "first_and_last"]


@dataclass(frozen=True)
class ByLayer(Grouped):
    """The first rule whose pattern fits an array's name has it; arrays of one rule are one vector.

    Attributes:
        rules: patterns (`conv*`, `*.bias`, `[!h]*`; upper and lower case differ) and codecs, in order.
        default: of arrays that no rule fits.

    >>> from .half import Half
    >>> from .identity import Identity
    >>> codec = ByLayer((("*.bias", Half()),), default=Identity())
    >>> state = codec.start(layout := Layout(("w", "w.bias"), ((2,), (3,))))
    >>> import numpy as np
    >>> from .moment import NO_MOMENT
    >>> len(codec.pack(np.ones(5, np.float32), layout, state, NO_MOMENT)[0])  # a length, 3 halves, 2 floats
    15
    """

    kind: ClassVar[str] = "by_layer"

    rules: tuple[tuple[str, VectorCodec], ...]
    default: VectorCodec

    def __post_init__(self) -> None:
        if not isinstance(self.rules, list | tuple):
            raise CodecError(f"rules = {str(self.rules)[:80]}: expected pairs of a pattern and a codec")
        for i, rule in enumerate(self.rules):
            if not isinstance(rule, list | tuple) or len(rule) != 2 or not isinstance(rule[0], str):
                raise CodecError(f"rules[{i}] = {str(rule)[:80]}: expected a pattern and a codec: ('*.bias', Half())")
            check_codec(rule[1], f"rules[{i}]")
        check_codec(self.default, "default")
        object.__setattr__(self, "rules", tuple((pattern, codec) for pattern, codec in self.rules))

    def codecs(self) -> tuple[VectorCodec, ...]:
        """Those of the rules, then the default."""
        return (*(codec for _, codec in self.rules), self.default)

    def groups(self, layout: Layout) -> list[Group]:
        """A group for each rule that fits something, in the order of the rules, the default last."""
        arrays: dict[int, list[int]] = {i: [] for i in range(len(self.rules) + 1)}
        for place, name in enumerate(layout.names):
            fits = (i for i, (pattern, _) in enumerate(self.rules) if fnmatchcase(name, pattern))
            arrays[next(fits, len(self.rules))].append(place)
        return [Group(i, tuple(found)) for i, found in arrays.items() if found]


def first_and_last(
    names: Sequence[str], *, first: VectorCodec, last: VectorCodec, default: VectorCodec, dot: str = "."
) -> ByLayer:
    """A codec for a model's first layer, one for its last, one for all between, as gradient codecs often want it.

    Args:
        names: of the model's arrays, in order. A layer is what precedes the last dot of a name.
        dot: what stands for it, say "/" elsewhere.

    >>> from .half import Half
    >>> from .identity import Identity
    >>> names = ["conv.weight", "conv.bias", "mid.weight", "head.weight", "head.bias"]
    >>> [pattern for pattern, _ in first_and_last(names, first=Identity(), last=Half(), default=Half()).rules]
    ['conv.*', 'head.*']

    Raises:
        CodecError: fewer than two layers.
    """
    layers = [name.rpartition(dot)[0] or name for name in names]
    if len(set(layers)) < 2:
        raise CodecError(f"layers {sorted(set(layers))}: expected at least two; give the model's array names")
    rules: list[tuple[str, VectorCodec]] = []
    for layer, codec in ((layers[0], first), (layers[-1], last)):
        own = [name for name, of in zip(names, layers, strict=True) if of == layer]
        pattern = f"{escape(layer)}{dot}*"
        if own != [name for name in names if fnmatchcase(name, pattern)]:  # no dot, or layers within the layer
            rules += [(escape(name), codec) for name in own]
        else:
            rules.append((pattern, codec))
    return ByLayer(tuple(rules), default)
