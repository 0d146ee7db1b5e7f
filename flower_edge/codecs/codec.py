"""The `Codec` promise: a model to bytes and back, rebuilt at the other end from plain values.

A codec is a frozen value; what it remembers between two calls is its state, handed in and handed back, as nested dicts
of plain values and arrays (keys are str), so that a checkpoint can hold it. Nothing here sends, and nothing is pickled.
"""

from __future__ import annotations

import hashlib
import importlib
import json
from collections.abc import Mapping
from dataclasses import fields, is_dataclass
from typing import Any, Protocol, TypeVar, cast

import numpy.typing as npt

from ..errors import CodecError
from .model_form import Arrays
from .moment import NO_MOMENT, Moment

__all__ = ["Arrays", "Codec", "State", "from_config", "label", "register"]

#: What a codec remembers: nested dicts and lists of plain values and arrays.
State = dict[str, Any]

#: Kind to the module and class that answer it. Closed on purpose: a config that came over the wire names no code.
_KINDS = {
    "identity": ("identity", "Identity"),
    "half": ("half", "Half"),
    "affine": ("affine", "Affine"),
    "block": ("block", "Block"),
    "eden": ("eden", "Eden"),
    "sign": ("sign", "Sign"),
    "correlated": ("correlated", "Correlated"),
    "top_k": ("top_k", "TopK"),
    "random_k": ("random_k", "RandomK"),
    "low_rank": ("low_rank", "LowRank"),
    "predicted": ("predicted", "Predicted"),
    "error_feedback": ("error_feedback", "ErrorFeedback"),
    "delta": ("delta", "Delta"),
    "by_layer": ("by_layer", "ByLayer"),
    "by_size": ("by_size", "BySize"),
    "shared_support": ("shared_support", "SharedSupport"),
    "lgc": ("lgc.lgc", "Lgc"),
    "rate_controlled": ("rate_controlled", "RateControlled"),
    "log4": ("log4", "Log4"),
}
#: Kinds that this process's own code has registered.
_REGISTERED: dict[str, type] = {}
#: How deep codecs may nest in a config.
_DEEPEST = 8

_Made = TypeVar("_Made", bound=type)


class Codec(Protocol):
    """Turns a model into bytes, and such bytes into a model. The same model and state always give the same bytes.

    What `tests/laws/codec_laws.py` asks of it: arrays and states handed in are left as they are; the other end needs
    the config and a model of the same names, shapes and dtypes (`init`), nothing else; and whatever bytes come in,
    `decode` answers with arrays of that model or raises `CodecError`, in memory bounded by the model's own size.
    """

    def init(self, like: Arrays) -> State:
        """The state before the first call, for models with the names, shapes and dtypes of `like`.

        Raises:
            CodecError: a dtype this codec cannot carry; the array is named.
        """
        ...

    def encode(self, x: Arrays, state: State, at: Moment = NO_MOMENT) -> tuple[bytes, State]:
        """The bytes of a model, and the state after it. `at`: round, node and what both ends know already.

        Raises:
            CodecError: `x` has not the names, shapes and dtypes of the model the state was made for.
        """
        ...

    def decode(self, payload: bytes, state: State, at: Moment = NO_MOMENT) -> tuple[dict[str, npt.NDArray[Any]], State]:
        """The model in a payload, in the order of `init`, and the state after it. The arrays may be read-only.

        Raises:
            CodecError: the payload was not made by this codec for this model.
        """
        ...

    def config(self) -> dict[str, Any]:
        """Plain values from which the other end rebuilds this codec, see `from_config`; `kind` is among them."""
        ...


def register(made: _Made) -> _Made:
    """Let `from_config` of this process build a codec of one's own from its config: a decorator.

    A config that comes over the wire names no code, only a kind; so each end says which class answers it, in a module
    that both the ServerApp and the ClientApp import. To register the same class again, as a module that is loaded anew
    does, replaces it.

    Raises:
        CodecError: no dataclass, no `kind`, or a kind that another class answers.
    """
    kind = getattr(made, "kind", None)
    if not isinstance(kind, str) or not kind or not is_dataclass(made):
        raise CodecError(
            f"{made.__qualname__}: expected a frozen dataclass with `kind: ClassVar[str]`, a text of its own"
        )
    other = _REGISTERED.get(kind)
    same = other is not None and (other.__module__, other.__qualname__) == (made.__module__, made.__qualname__)
    if kind in _KINDS or (other is not None and not same):
        taken = f"{other.__module__}.{other.__qualname__}" if other is not None else "flower-edge itself"
        raise CodecError(f"{made.__qualname__}: kind {kind!r} is that of {taken}; choose another")
    _REGISTERED[kind] = made
    return made


def from_config(config: Mapping[str, Any]) -> Codec:
    """The codec that `config()` described, nested ones within.

    Raises:
        CodecError: an unknown kind, another version, an unknown or missing option; it says which are known.

    >>> from_config({"kind": "identity"})
    Identity()
    >>> from_config({"kind": "identity", "level": 3})
    Traceback (most recent call last):
    ...
    flower_edge.errors.CodecError: codec 'identity' has no option 'level'; leave it out
    """
    return cast(Codec, _built(config, 0))


def _built(config: object, depth: int) -> Any:
    kind = config.get("kind") if isinstance(config, Mapping) else None
    if not isinstance(config, Mapping) or not isinstance(kind, str) or (kind not in _KINDS and kind not in _REGISTERED):
        known = ", ".join(map(repr, sorted({*_KINDS, *_REGISTERED})))
        raise CodecError(
            f"codec of kind {kind!r}: expected one of {known}; install the same flower-edge version on both sides, "
            "and `register` a codec of your own in a module that both import"
        )
    if depth > _DEEPEST:
        raise CodecError(f"codecs nested deeper than {_DEEPEST}: expected a config that a codec made")
    made: Any = _REGISTERED.get(kind) or _class_of(*_KINDS[kind])
    expected = getattr(made, "version", 1)
    if config.get("version", expected) != expected:
        raise CodecError(
            f"codec {kind!r} of version {config['version']!r}, this side reads {expected}; "
            "install the same flower-edge version on both sides"
        )
    options = {option: value for option, value in config.items() if option not in ("kind", "version")}
    if unknown := sorted(set(map(str, options)) - {field.name for field in fields(made)}):
        raise CodecError(f"codec {kind!r} has no option {', '.join(map(repr, unknown))}; leave it out")
    try:
        return made(**{option: _option(value, depth + 1) for option, value in options.items()})
    except CodecError:
        raise
    except (TypeError, ValueError, OverflowError) as error:  # an option is missing, or no value of its type
        raise CodecError(f"codec {kind!r} cannot be built from {str(options)[:200]}: {error}") from error


def _class_of(module: str, name: str) -> Any:
    return getattr(importlib.import_module(f".{module}", __package__), name)


def _option(value: Any, depth: int) -> Any:
    if isinstance(value, Mapping):
        return _built(value, depth)
    if isinstance(value, list | tuple):
        if depth > 2 * _DEEPEST:
            raise CodecError("lists nested too deep: expected a config that a codec made")
        return tuple(_option(entry, depth + 1) for entry in value)
    return value


def label(codec: Codec) -> str:
    """A short text that two codecs share exactly if they have the same config: for the label of a packet.

    >>> label(from_config({"kind": "identity"}))
    'identity'
    """
    config = codec.config()
    kind = str(config["kind"])
    if len(config) == 1:
        return kind
    text = json.dumps(config, sort_keys=True, separators=(",", ":"))
    return f"{kind}-{hashlib.blake2b(text.encode(), digest_size=6).hexdigest()}"
