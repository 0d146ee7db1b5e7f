"""`TextRecord`: checked values that travel as one JSON text in a `ConfigRecord`. Nothing here sends."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar, Self

from flwr.app import ConfigRecord
from pydantic import BaseModel, ConfigDict, ValidationError

from ..errors import ProtocolError

__all__ = ["TextRecord"]


class TextRecord(BaseModel):
    """Plain values as one text in a record; frozen, and an unknown key or a text where a number belongs is refused.

    A subclass says what it is:

        schema_name   key of the text, with the version of the form
        made_with     function of `flower_edge.clients` that builds a ClientApp which understands it, for errors
    """

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    schema_name: ClassVar[str]
    made_with: ClassVar[str]

    def write(self) -> ConfigRecord:
        """As a record; what has its default is left out."""
        return ConfigRecord({self.schema_name: self.model_dump_json(exclude_defaults=True)})

    @classmethod
    def read(cls, record: Mapping[str, Any] | None, *, sender: str) -> Self:
        """From a record.

        Raises:
            ProtocolError: not one of this version, or a value that cannot be.
        """
        text = None if record is None else record.get(cls.schema_name)
        if not isinstance(text, str):
            raise ProtocolError(
                f"{sender} sent no {cls.schema_name!r}; build its ClientApp with flower_edge.clients.{cls.made_with}, "
                "and install the same flower-edge version on both sides"
            )
        try:
            return cls.model_validate_json(text)
        except ValidationError as error:
            first = error.errors()[0]
            where = ".".join(map(str, first["loc"])) or "it"
            raise ProtocolError(
                f"{sender} sent a {cls.__name__} in which {where} = {str(first['input'])[:80]!r}: {first['msg']}"
            ) from None
