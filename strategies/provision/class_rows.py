"""`ClassRows`: merges a row of the last layer over the terminals that have its class, as they tell. Reads, no more.

Source: Diao, Ding, Tarokh, "HeteroFL", ICLR 2021, and the authors' code.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from flwr.app import ArrayRecord, Message

from flower_edge.errors import ConfigError, WireError
from flower_edge.submodels.classes import CLASSES_RECORD, classes_from_values, only_rows
from flower_edge.updates.update import Update

__all__ = ["ClassRows"]


@dataclass(frozen=True)
class ClassRows:
    """Arrays with a row per class.

    Attributes:
        names: of the model's arrays; none where every row is everybody's.

    Raises:
        ConfigError: not names, or one that is there twice.
    """

    names: tuple[str, ...] = ()

    @classmethod
    def of(cls, names: Sequence[str]) -> ClassRows:
        """From what a user wrote."""
        given = () if isinstance(names, str) else tuple(names)
        if isinstance(names, str) or len(set(given)) < len(given) or not all(isinstance(name, str) for name in given):
            raise ConfigError(
                f"class_rows = {names!r:.60}: expected names of arrays with a row per class, each once, such as "
                "('linear.weight', 'linear.bias')"
            )
        return cls(given)

    def check(self, arrays: ArrayRecord) -> None:
        """Refuse names that this model does not have, and arrays with other numbers of rows.

        Raises:
            ConfigError: names the array.
        """
        rows: dict[str, int] = {}
        for name in self.names:
            if name not in arrays:
                raise ConfigError(f"class_rows has {name!r}, and the model has {list(arrays)}")
            shape = tuple(arrays[name].shape)
            if not shape:
                raise ConfigError(f"class_rows has {name!r}, which is one number; expected an array with rows")
            rows[name] = shape[0]
        if len(set(rows.values())) > 1:
            raise ConfigError(f"class_rows has arrays with different numbers of rows: {rows}; one row is one class")

    def read(self, reply: Message, update: Update) -> Update | tuple[str, str]:
        """The update with the rows of the classes that the reply tells; a code and a sentence where that is nonsense.

        A reply that tells none has a say in all rows.
        """
        told = reply.content.config_records.get(CLASSES_RECORD)
        if told is None or not self.names:
            return update
        try:
            rows = classes_from_values(dict(told.items()), update.base[self.names[0]].shape[0])
        except WireError as error:
            return "classes", str(error)
        return only_rows(update, self.names, rows)
