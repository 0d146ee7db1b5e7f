"""What programs on the agent's host may ask, checked before anything is done. Nothing here opens a socket."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from typing import Any, Final

from ...errors import PeerError
from ...peers.round_table import RoundTable
from .local_server import FileBody
from .run import Run

__all__ = ["LocalCalls"]

Answer = tuple[dict[str, Any], FileBody | None]
_MOST_WAIT_S: Final = 3600.0
_OK: Final[dict[str, Any]] = {"ok": True}


class LocalCalls:
    """Answers frames.

    Args:
        run_of: the run of that name.
        begin: a round of a run begins, which may be a new one.
        status: what the agent is.

    Raises (when called):
        PeerError: what is asked cannot be done; says why.
    """

    def __init__(
        self, run_of: Callable[[str], Run], begin: Callable[[RoundTable], None], status: Callable[[], dict[str, Any]]
    ) -> None:
        self._run_of, self._begin, self._status = run_of, begin, status
        self._known: dict[str, Callable[[Run, dict[str, Any], Iterable[bytes]], Answer]] = {
            "post": _post,
            "wait": _wait,
            "fetch": _fetch,
            "flush": _flush,
            "forget": _forget,
            "pace": _pace,
            "mixed": _mixed,
            "report": _report,
        }

    def __call__(self, head: dict[str, Any], body: Iterable[bytes]) -> Answer:
        """One frame."""
        what = head.get("do")
        if what == "status":
            return self._status(), None
        if what == "round":
            table = head.get("table")
            if not isinstance(table, str):
                raise PeerError("a round without its table; install the same flower-edge version everywhere")
            self._begin(RoundTable.from_json(table))
            return _OK, None
        call = self._known.get(what) if isinstance(what, str) else None
        if call is None:
            raise PeerError(
                f"{str(what)[:40]!r} is nothing this agent does; install the same flower-edge version everywhere"
            )
        run = head.get("run")
        if not isinstance(run, str):
            raise PeerError(f"{what!r} without the name of a run")
        return call(self._run_of(run), head, body)


def _post(run: Run, head: dict[str, Any], body: Iterable[bytes]) -> Answer:
    to = [_index(node, "to") for node in _list(head, "to")]
    processing_s = head.get("processing_s")
    if processing_s is not None:
        processing_s = _seconds(head, "processing_s")
    if head["body_bytes"] > run.limits.letter_bytes:
        raise PeerError(
            f"a packet of {head['body_bytes']} bytes, this agent's letters have at most {run.limits.letter_bytes}; "
            "raise flower-edge agent --letter-mb on all hosts"
        )
    run.post(_number(head, "round", 63), _number(head, "sequence", 32), to, processing_s, body)
    return _OK, None


def _wait(run: Run, head: dict[str, Any], body: Iterable[bytes]) -> Answer:
    senders = [_index(node, "senders") for node in _list(head, "senders")]
    missing = run.wait(_number(head, "round", 63), senders, min(_MOST_WAIT_S, _seconds(head, "wait_s")))
    return {"missing": missing}, None


def _fetch(run: Run, head: dict[str, Any], body: Iterable[bytes]) -> Answer:
    letter = run.fetch(_number(head, "round", 63), _number(head, "sender", 32))
    if letter is None:
        return {"found": False}, None
    header = letter.signed.header
    told = {
        "found": True,
        "size": header.size,
        "processing_s": header.processing_s,
        "link_s": letter.took_s + (letter.carried_s or 0.0),
        "via": "agent-relay" if letter.relayed else "direct",
    }
    if header.size > _number(head, "most_bytes", 53):
        return told, None
    return told, FileBody(letter.path, letter.payload_at, header.size)


def _flush(run: Run, head: dict[str, Any], body: Iterable[bytes]) -> Answer:
    return {"pending": run.flush(min(_MOST_WAIT_S, _seconds(head, "wait_s")))}, None


def _forget(run: Run, head: dict[str, Any], body: Iterable[bytes]) -> Answer:
    run.forget(_number(head, "before_round", 63))
    return _OK, None


def _pace(run: Run, head: dict[str, Any], body: Iterable[bytes]) -> Answer:
    rates = head.get("rates_bps")
    if not isinstance(rates, dict):
        raise PeerError("'pace' without rates_bps: expected bit/s by node, null for no limit")
    found: dict[int, float | None] = {}
    for node, bps in rates.items():
        if bps is not None and (type(bps) not in (int, float) or not 0 < bps < math.inf):
            raise PeerError(f"rates_bps[{node!r}] = {bps!r}: expected bit/s above 0, or null for no limit")
        found[_index(int(node) if node.isdecimal() else node, "rates_bps")] = None if bps is None else float(bps)
    run.pace(found)
    return _OK, None


def _mixed(run: Run, head: dict[str, Any], body: Iterable[bytes]) -> Answer:
    took_s = head.get("took_s")
    if not isinstance(took_s, dict) or len(took_s) > 4096:
        raise PeerError("'mixed' without took_s: expected seconds by node")
    for node in took_s:
        if not node.isdecimal():
            raise PeerError(f"took_s of node {node[:40]!r}: expected an index")
        with run.changed:
            run.figures.mixed(_number(head, "round", 63), int(node), _seconds(took_s, node))
    return _OK, None


def _report(run: Run, head: dict[str, Any], body: Iterable[bytes]) -> Answer:
    return {"report": run.report(_number(head, "round", 63))}, None


def _number(head: dict[str, Any], name: str, bits: int) -> int:
    value = head.get(name)
    if type(value) is not int or not 0 <= value < 1 << bits:
        raise PeerError(f"{name} = {str(value)[:40]}: expected a whole number from 0 to 2^{bits} - 1")
    return value


def _index(value: object, name: str) -> int:
    if type(value) is not int or not 0 <= value < 1 << 32:
        raise PeerError(f"{name} has {str(value)[:40]}: expected indices of nodes")
    return value


def _seconds(head: dict[str, Any], name: str) -> float:
    value = head.get(name)
    if type(value) not in (int, float) or not 0 <= value < math.inf:  # type: ignore[operator]
        raise PeerError(f"{name} = {str(value)[:40]}: expected seconds, 0 or more")
    return float(value)  # type: ignore[arg-type]


def _list(head: dict[str, Any], name: str) -> list[Any]:
    value = head.get(name)
    if not isinstance(value, list) or len(value) > 4096:
        raise PeerError(f"{name} = {str(value)[:40]}: expected a list of at most 4096 indices")
    return value
