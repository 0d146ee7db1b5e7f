"""Two processes that `fringe_serving` starts beside the stages: the links, and whoever asks. Each by itself, because
threads of one Python process wait for one another, and what is measured here are milliseconds.

    python -m benchmarks.fringe_serving_child links     a relay per connection, as slow as it is told to be
    python -m benchmarks.fringe_serving_child traffic   requests at given times, or one after the other

Both read a JSON document per line from their input and answer each with one; they end when there is no more. Times are
those of `time.monotonic`, which processes of one machine have in common. Nothing here knows a model.
"""

from __future__ import annotations

import gc
import json
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np

from flower_edge.errors import NotServed
from flower_edge.fringe.links import Link
from flower_edge.fringe.wire import Wire
from flower_edge.runtime.fringe.channels import RequestChannel, Served
from flower_edge.runtime.fringe.messages import REQUESTS
from flower_edge.runtime.fringe.shaper import LinkShaper
from flower_edge.runtime.fringe.stage import hello_for
from flower_edge.transport import GrpcTransport, TrustServer

__all__ = ["main"]

Told = Mapping[str, Any]


def _documents() -> Iterator[dict[str, Any]]:
    for line in sys.stdin:
        yield json.loads(line)


def _say(what: object) -> None:
    print(json.dumps(what), flush=True)


def links() -> None:
    """First targets and links, then for each line whether the way back is delayed as well."""
    documents = _documents()
    first = next(documents)
    ways = [Link(*one) for one in first["links"]]
    with ExitStack() as running:
        shapers = [
            running.enter_context(LinkShaper(target, link)) for target, link in zip(first["targets"], ways, strict=True)
        ]
        _say([shaper.address for shaper in shapers])
        for told in documents:
            for shaper, link in zip(shapers, ways, strict=True):
                shaper.change(link, back=link if told["back"] else Link(float("inf")))
            _say("changed")


class _Asker:
    """Asks the entry as a client does, over one channel."""

    def __init__(self, first: Told) -> None:
        folder = Path(first["folder"])
        transport = GrpcTransport(TrustServer((folder / "authority.pem").read_bytes()))
        secret = (folder / "secret").read_bytes().strip()
        machine = first["machine"]
        self._channel = RequestChannel(
            machine,
            lambda: transport.dial(first["address"], hello_for("pipeline", REQUESTS, secret, machine), timeout_s=10.0),
        )
        self._wire = Wire.from_config(first["wire"])
        self._samples = np.load(folder / "samples.npy")

    def each(self, told: Told) -> list[dict[str, Any]]:
        """One after the other; with `null` they carry nothing."""
        found = []
        for number in range(told["count"]):
            found.append(self._answer(number, time.monotonic(), self._ask(None if told["null"] else number)))
        return found

    def open(self, told: Told) -> list[dict[str, Any]]:
        """At the times that are given, whatever is under way."""
        asked = []
        for number, at_s in enumerate(told["at_s"]):
            time.sleep(max(0.0, at_s - time.monotonic()))
            asked.append((number, time.monotonic(), self._ask(number)))
        return [self._answer(*one) for one in asked]

    def close(self) -> None:
        self._channel.close()

    def _ask(self, number: int | None) -> Future[Served]:
        if number is None:
            return self._channel.ask(self._wire, None)
        at = number % len(self._samples)
        return self._channel.ask(self._wire, self._samples[at : at + 1])

    def _answer(self, number: int, sent_s: float, future: Future[Served]) -> dict[str, Any]:
        said: dict[str, Any] = {"sample": number % len(self._samples), "sent_s": sent_s}
        try:
            served = future.result(60.0)
        except (NotServed, TimeoutError) as error:
            return {**said, "lost": str(error) or "late"}
        return {**said, "version": served.version, "seconds_s": served.seconds_s, "output": served.output.tolist()}


def traffic() -> None:
    """First whom to ask and what with, then for each line some requests."""
    documents = _documents()
    asker = _Asker(next(documents))
    _say("ready")
    does: Mapping[str, Callable[[Told], list[dict[str, Any]]]] = {"each": asker.each, "open": asker.open}
    for told in documents:
        _say(does[told["do"]](told))
    asker.close()


def main(arguments: list[str] | None = None) -> int:
    """Exit code 2: neither of the two was asked for."""
    given = sys.argv[1:] if arguments is None else arguments
    roles = {"links": links, "traffic": traffic}
    if len(given) != 1 or given[0] not in roles:
        print(f"{' '.join(given) or 'nothing'}: expected one of {', '.join(roles)}", file=sys.stderr)
        return 2
    # What was imported stays: looking through it for garbage would be measured as somebody's latency.
    gc.collect()
    gc.freeze()
    roles[given[0]]()
    return 0


if __name__ == "__main__":
    sys.exit(main())
