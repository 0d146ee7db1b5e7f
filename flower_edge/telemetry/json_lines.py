"""Log lines as JSON, one object a line, with the run, the round and the node they are about.

`log_context` says what the lines of a stretch of code are about; `log_to_json` makes the loggers of this process,
Flower's own among them, write so. `FLOWER_EDGE_LOG=json` does it for every `flower-edge` command. Without either, lines
stay as they are. Nothing here decides what is logged.
"""

from __future__ import annotations

import io
import json
import logging
import math
import os
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from datetime import UTC, datetime
from types import MappingProxyType
from typing import Any, Final, TextIO

from ..errors import ConfigError

__all__ = ["LOG_VARIABLE", "JsonLines", "log_about", "log_context", "log_to_json", "wanted_by_environment"]

#: Environment variable: `json` for lines as JSON, `text` or nothing for lines as they are.
LOG_VARIABLE: Final = "FLOWER_EDGE_LOG"

#: On every line, also where nothing is known: null then, so that a column is always there.
_ALWAYS: Final = ("run", "round", "node")
#: Loggers whose lines are ours or Flower's. Flower's does not hand its lines on to the root logger.
_LOGGERS: Final = ("flwr", "flower_edge")
#: What every record has; whatever else a record has, somebody gave it as `extra`.
_OWN: Final = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "taskName"}
_BEGAN_S: Final = time.monotonic()

_context: ContextVar[Mapping[str, Any]] = ContextVar("flower_edge_log", default=MappingProxyType({}))
#: Of the whole process: threads do not inherit the context of who starts them.
_process: dict[str, Any] = {}


@contextmanager
def log_context(**about: object) -> Iterator[None]:
    """Say what log lines of this block are about; inner blocks add to it, and what they say again holds inside.

    Args:
        about: `run`, `round`, `node` (as text or number), and anything else that helps, such as `cell`.

    >>> with log_context(run="demo", node=3):
    ...     JsonLines().fields(logging.makeLogRecord({"msg": "hello"}))["node"]
    3
    """
    token = _context.set({**_context.get(), **about})
    try:
        yield
    finally:
        _context.reset(token)


class JsonLines(logging.Formatter):
    """A record as one line of JSON. It never fails, whatever is logged: what has no form in JSON is told as text.

        {"time": "2026-01-31T23:59:59.123Z", "elapsed_s": 12.5, "level": "INFO", "logger": "flwr", "run": "demo",
         "round": 3, "node": null, "message": "…"}

    `time` is UTC and may be set back; `elapsed_s`, since the process began to log, never goes back. An exception is in
    `exception`, with its traceback. What was given as `extra` stands beside, under its own name.
    """

    def format(self, record: logging.LogRecord) -> str:
        """The line, without its line feed."""
        try:
            return _dumped(self.fields(record))
        except Exception as error:  # of somebody's __repr__, of a tree without an end
            told = {"time": _utc(record.created), "level": record.levelname, "logger": record.name}
            return _dumped({**told, **dict.fromkeys(_ALWAYS), "message": f"cannot be told: {type(error).__name__}"})

    def fields(self, record: logging.LogRecord) -> dict[str, Any]:
        """What the line says."""
        about = {**dict.fromkeys(_ALWAYS), **_process, **_context.get()}
        # Others mark records for themselves, as Ray does, by names with an underscore.
        extra = {name: value for name, value in vars(record).items() if name not in _OWN and name[:1] != "_"}
        told: dict[str, Any] = {
            "time": _utc(record.created),
            "elapsed_s": round(time.monotonic() - _BEGAN_S, 6),
            "level": record.levelname,
            "logger": record.name,
        }
        told |= {name: value for name, value in {**about, **extra}.items() if name not in (*told, "message")}
        told["message"] = _message(record)
        if record.exc_info and record.exc_info[0] is not None:
            told["exception"] = self.formatException(record.exc_info)
        if record.stack_info:
            told["stack"] = record.stack_info
        return told


def log_about(**about: object) -> None:
    """As `log_context`, until the block around it ends: for a loop, whose rounds are no blocks."""
    _context.set({**_context.get(), **about})


def log_to_json(stream: TextIO | None = None, **about: object) -> None:
    """From now on have our loggers and Flower's write lines of JSON. Called again it only adds to what is known.

    Args:
        stream: where to; by default standard error, whatever that is when a line is written.
        about: of the whole process, in every thread, as of `log_context`: its `node`, or its `run`.
    """
    _process.update(about)
    for name in _LOGGERS:
        logger = logging.getLogger(name)
        ours = [handler for handler in logger.handlers if isinstance(handler, _Lines)]
        if ours and stream is None:
            continue
        levels = [handler.level for handler in _shown(logger)]
        for handler in ours:
            logger.removeHandler(handler)
        lines = _Lines(logger, stream)
        lines.setLevel(max(levels, default=logging.INFO))
        # First of all: it takes the others away, those that come later too.
        logger.handlers.insert(0, lines)
        logger.propagate = False
        if logger.level == logging.NOTSET:
            logger.setLevel(logging.INFO)


class _Lines(logging.StreamHandler[TextIO]):
    """Writes one logger's records, alone: Flower gives its logger a handler for people when it is imported, which may
    be later than this."""

    def __init__(self, logger: logging.Logger, stream: TextIO | None) -> None:
        super().__init__(stream)
        self._logger, self._given = logger, stream
        self.setFormatter(JsonLines())

    def emit(self, record: logging.LogRecord) -> None:
        for other in _shown(self._logger):
            self._logger.removeHandler(other)
        if self._given is None:
            self.stream = sys.stderr
        super().emit(record)


def _shown(logger: logging.Logger) -> list[logging.Handler]:
    """Handlers that show lines to people. Others stay: they keep them in memory or files, or send them elsewhere."""
    return [
        handler
        for handler in logger.handlers
        if isinstance(handler, logging.StreamHandler)
        and not isinstance(handler, logging.FileHandler | _Lines)
        and not isinstance(handler.stream, io.StringIO)
    ]


def wanted_by_environment(environment: Mapping[str, str] | None = None) -> bool:
    """Whether `FLOWER_EDGE_LOG` asks for lines of JSON.

    Raises:
        ConfigError: it says something else than json or text.

    >>> wanted_by_environment({"FLOWER_EDGE_LOG": "json"}), wanted_by_environment({})
    (True, False)
    """
    said = (os.environ if environment is None else environment).get(LOG_VARIABLE, "")
    if said not in ("", "text", "json"):
        raise ConfigError(f"{LOG_VARIABLE}={said!r}; expected json, text or nothing")
    return said == "json"


def _message(record: logging.LogRecord) -> str:
    try:
        return record.getMessage()
    except Exception as error:  # as many values as places, or a __str__ that raises
        return f"{record.msg!s} ({type(error).__name__} where its values were put in)"


def _utc(at_s: float) -> str:
    return datetime.fromtimestamp(at_s, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def _dumped(told: Mapping[str, Any]) -> str:
    # JSON escapes line feeds, so a line it is; ASCII, so that it is one in every encoding.
    return json.dumps(_plain(told), ensure_ascii=True, allow_nan=False)


def _plain(value: Any, depth: int = 0) -> Any:
    if value is None or isinstance(value, bool | int | str):
        return value
    if isinstance(value, float):
        return value if math.isfinite(value) else str(value)
    if depth < 4 and isinstance(value, Mapping):
        return {str(key): _plain(item, depth + 1) for key, item in value.items()}
    if depth < 4 and isinstance(value, list | tuple):
        return [_plain(item, depth + 1) for item in value]
    try:
        return str(value)
    except Exception as error:
        return f"a {type(value).__name__} ({type(error).__name__} when asked for its text)"
