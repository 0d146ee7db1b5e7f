"""A run config checked whole: every bad key at once, with the nearest known key.

Flower's run config is flat and dotted and its types are not checked. A scenario declares a frozen pydantic
model whose field `edge_rounds` reads the key `edge-rounds`; a nested model adds a dot: `radio.bandwidth-hz`.
Only scenarios and the command line know config; library classes take plain arguments.
"""

from __future__ import annotations

import difflib
import types
from collections.abc import Iterator, Mapping
from typing import Any, TypeVar, Union, get_args, get_origin

from pydantic import BaseModel, ConfigDict, ValidationError

from .errors import ConfigError

__all__ = ["RunConfig", "known_keys", "read_config"]

#: What Flower's run config can hold.
Scalar = bool | int | float | str


def _key(field: str) -> str:
    return field.replace("_", "-")


class RunConfig(BaseModel):
    """Base of every run config: frozen, strict, no unknown keys.

    >>> class Demo(RunConfig):
    ...     edge_rounds: int = 2
    >>> read_config(Demo, {"edge-rounds": 3}).edge_rounds
    3
    """

    model_config = ConfigDict(frozen=True, strict=True, extra="forbid", alias_generator=_key, populate_by_name=False)


Model = TypeVar("Model", bound=RunConfig)


def _nested(annotation: Any) -> type[RunConfig] | None:
    if get_origin(annotation) in (Union, types.UnionType):
        annotation = next((a for a in get_args(annotation) if isinstance(a, type) and issubclass(a, RunConfig)), None)
    return annotation if isinstance(annotation, type) and issubclass(annotation, RunConfig) else None


def known_keys(model: type[RunConfig], prefix: str = "") -> Iterator[str]:
    """The flat dotted keys a run config model reads, in the order it declares them."""
    for name, field in model.model_fields.items():
        inner = _nested(field.annotation)
        if inner is None:
            yield prefix + _key(name)
        else:
            yield from known_keys(inner, f"{prefix}{_key(name)}.")


def _insert(tree: dict[str, Any], key: str, value: Scalar) -> None:
    *path, last = key.split(".")
    for part in path:
        tree = tree.setdefault(part, {})
    tree[last] = value


def read_config(model: type[Model], flat: Mapping[str, Scalar], *, source: str = "run config") -> Model:
    """Check a flat run config against a model.

    Args:
        model: a subclass of `RunConfig`.
        flat: dotted keys to bool, int, float or str, as in Flower's `context.run_config`.
        source: what the config is called in the error.

    Returns:
        A frozen instance of `model`.

    Raises:
        ConfigError: names every unknown key (with the nearest known one), every value of a wrong type and every
            value out of range, all in one message.

    >>> class Demo(RunConfig):
    ...     edge_rounds: int = 2
    >>> read_config(Demo, {"edge-round": 3})
    Traceback (most recent call last):
    ...
    flower_edge.errors.ConfigError: run config:
      edge-round: unknown key; did you mean 'edge-rounds'?
    """
    known = list(known_keys(model))
    complaints: list[str] = []
    tree: dict[str, Any] = {}
    for key, value in flat.items():
        if key in known:
            # TOML writes 1 for 1.0; every other change of type is an error.
            _insert(tree, key, value)
        else:
            near = difflib.get_close_matches(key, known, n=1)
            hint = f"did you mean {near[0]!r}?" if near else f"known keys are {', '.join(sorted(known))}"
            complaints.append(f"{key}: unknown key; {hint}")
    try:
        parsed = model.model_validate(tree)
    except ValidationError as error:
        for entry in error.errors():
            key = ".".join(str(part) for part in entry["loc"])
            if entry["type"] == "missing":
                complaints.append(f"{key}: missing; set it in [tool.flwr.app.config] or with --run-config")
                continue
            message = entry["msg"][0].lower() + entry["msg"][1:]
            complaints.append(f"{key} = {entry['input']!r}: {message}")
        parsed = None
    if complaints or parsed is None:
        raise ConfigError("\n  ".join([f"{source}:", *complaints]))
    return parsed
