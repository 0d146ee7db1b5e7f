"""`Slicer`: which part of a model one size of it is, and that part of a record. Nothing here chooses, sends or merges.

Width by the channels of each group, depth by the arrays that the exits up to it have; both at once is the first of the
second. Sources: Diao, Ding, Tarokh, "HeteroFL", ICLR 2021; Kim et al., "DepthFL", ICLR 2023.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from flwr.app import ArrayRecord

from flower_edge.errors import ConfigError
from flower_edge.submodels.choices import prefix, rolling
from flower_edge.submodels.groups import WidthGroups, index_of
from flower_edge.submodels.sizes import Depths, Size
from flower_edge.updates.manifest import Manifest, part_manifest
from flower_edge.updates.npy import npy_view
from flower_edge.updates.places import brackets
from flower_edge.updates.update import Arrays
from flower_edge.wire import model_spec, record_of

__all__ = ["Slicer", "is_all_of", "views"]


@dataclass(frozen=True, eq=False)
class Slicer:
    """Cuts a model to size.

    Attributes:
        groups: of the whole model; `None` where nothing is narrowed.
        depths: of the whole model; `None` where it has no exits.
        how: one of `flower_edge.submodels.order.HOW`.

    Raises:
        ConfigError: neither groups nor depths, or groups and depths of different models.
    """

    groups: WidthGroups | None
    depths: Depths | None
    how: str

    def __post_init__(self) -> None:
        if self.groups is not None and not isinstance(self.groups, WidthGroups):
            raise ConfigError(
                f"groups = {self.groups!r:.60}: expected width_groups(model, example) or mlp_groups(sizes), or "
                "None beside depths=model.depths()"
            )
        if self.depths is not None and not isinstance(self.depths, Depths):
            raise ConfigError(f"depths = {self.depths!r:.60}: expected model.depths() of a model with exits, or Depths")
        if self.groups is None and self.depths is None:
            raise ConfigError(
                "SubModels without groups and without depths; give width_groups(model, example), or depths="
            )
        if self.groups is not None and self.depths is not None:
            _same_names(self.groups.spec, self.depths, "the groups")

    def checked(self, size: Size, what: str) -> Size:
        """The size, in its one form.

        Args:
            size: to be cut to.
            what: gives it, for the error.

        Raises:
            ConfigError: it is narrower, and there are no groups; or shallower, and there are no such exits.
        """
        if size.rate < 1.0 and self.groups is None:
            raise ConfigError(f"{what} is {size}, and SubModels has no groups to narrow; give width_groups(model, x)")
        if self.depths is None:
            if size.depth:
                raise ConfigError(f"{what} is {size}, and SubModels knows no exits; give depths=model.depths()")
            return size
        try:
            return self.depths.checked(size)
        except ConfigError as no:
            raise ConfigError(f"{what}: {no}") from None

    def check(self, arrays: ArrayRecord) -> None:
        """Refuse another model than that of the groups and depths.

        Raises:
            ConfigError: names an array that differs.
        """
        spec = model_spec(arrays)
        if self.groups is None:
            if self.depths is not None:
                _same_names(spec, self.depths, "the model")
            return
        shapes = {name: shape for name, (shape, _) in spec.items()}
        wanted = {name: tuple(shape) for name, (shape, _) in self.groups.spec.items()}
        if shapes != wanted:
            odd = sorted(n for n in shapes.keys() | wanted.keys() if shapes.get(n) != wanted.get(n))
            raise ConfigError(
                f"the model has {odd[0]!r} of shape {shapes.get(odd[0])}, and the groups were made of one with "
                f"{wanted.get(odd[0])}; make groups and model of the same module"
            )

    def part(self, record: ArrayRecord, size: Size, number: int) -> tuple[ArrayRecord, Manifest]:
        """The part of this model, and what comes back of it; the record itself where that is all of it.

        Args:
            record: the whole model.
            size: as from `checked`.
            number: of the round, by which a window rolls.
        """
        spec = model_spec(record)
        groups = WidthGroups(spec, {}, {}, {}) if self.groups is None else self.groups
        channels = rolling(groups, size.rate, number) if self.how == "fedrolex" else prefix(groups, size.rate)
        index = index_of(groups, channels)
        if self.depths is not None:
            held = set(self.depths.names(size.depth))
            index = {name: places for name, places in index.items() if name in held}
        manifest = part_manifest(spec, index, groups.spec)
        if is_all_of(manifest, record):
            return record, manifest
        whole = views(record)
        return record_of(
            {name: whole[name][brackets(part.whole, part.index)].copy() for name, part in manifest.arrays.items()}
        ), manifest


def is_all_of(manifest: Manifest, model: ArrayRecord | Arrays) -> bool:
    """Whether it is every array of the model, and all of each."""
    return manifest.is_whole and len(manifest.arrays) == len(model)


def views(record: ArrayRecord) -> Arrays:
    """The arrays of a record of ours, without a copy."""
    return {name: npy_view(array.data, array.dtype, tuple(array.shape)) for name, array in record.items()}


def _same_names(found: Iterable[str], depths: Depths, what: str) -> None:
    have, wanted = set(found), set(depths.names(0))
    if odd := sorted(have ^ wanted):
        where = f"{what} and not in the depths" if odd[0] in have else f"the depths and not in {what}"
        raise ConfigError(f"{odd[0]!r} is in {where}; make model, groups and depths of the same module")
