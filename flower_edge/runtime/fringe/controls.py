"""`Controls`: the control channels to all machines of a deployment, asked at once. Nothing here knows pipelines."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any

from ...errors import EdgeError, FringeError, SwapRefused, TransportError
from ...fringe.links import LinkEstimate
from ...transport.transport import Connection
from .channels import ControlChannel
from .messages import CONTROL
from .swaps import why_not

__all__ = ["Controls"]


class Controls:
    """Threads may call all of it.

    Args:
        machines: in the order of the pipeline; the first is the entry.
        dial: opens a channel to a machine for a purpose.
        answer_s: how long an answer may take.
    """

    def __init__(self, machines: tuple[str, ...], dial: Callable[[str, str], Connection], answer_s: float) -> None:
        self.machines = machines
        self._channels = {name: ControlChannel(name, partial(dial, name, CONTROL), answer_s) for name in machines}

    @property
    def entry(self) -> ControlChannel:
        """To the machine that requests come to."""
        return self._channels[self.machines[0]]

    def each(
        self, do: Callable[[ControlChannel], dict[str, Any]], *, at_once: int | None = None
    ) -> dict[str, dict[str, Any] | EdgeError]:
        """On all machines, or so many of them, at once; what each said, or what went wrong with it."""

        def one(control: ControlChannel) -> dict[str, Any] | EdgeError:
            try:
                return do(control)
            except EdgeError as error:
                return error

        with ThreadPoolExecutor(at_once or len(self._channels)) as pool:
            return dict(zip(self.machines, pool.map(one, self._channels.values()), strict=True))

    def everyone(
        self, what: str, do: Callable[[ControlChannel], dict[str, Any]], *, at_once: int | None = None
    ) -> dict[str, dict[str, Any]]:
        """The same, of all of them.

        Raises:
            SwapRefused: `what` did not happen: one of them cannot, or cannot be reached.
        """
        said: dict[str, dict[str, Any]] = {}
        lost: dict[str, EdgeError] = {}
        for machine, one in self.each(do, at_once=at_once).items():
            if isinstance(one, EdgeError):
                lost[machine] = one
            else:
                said[machine] = one
        if lost:
            raise SwapRefused(why_not(what, lost))
        return said

    def statistics(self, what: str) -> dict[str, dict[str, Any]]:
        """By machine, what `StageServer.statistics` gives.

        Raises:
            SwapRefused: as of `everyone`.
        """
        return self.everyone(what, lambda control: control.ask("statistics"))

    def drop(self, number: int) -> bool:
        """Forget a version everywhere, unless it is served or something of it is under way; whether it is gone.

        The entry is asked first. What it serves, whoever said so, is dropped by none of the machines behind it.
        """
        try:
            if not self.entry.ask("drain", version=number, timeout_s=0.0).get("drained"):
                return False
            self.entry.ask("drop", version=number)
        except TransportError:
            pass  # a machine that is gone holds nothing; one that comes back begins with nothing
        except FringeError:
            return False
        self.each(lambda control: control.ask("drop", version=number))
        return True

    def links(self) -> tuple[LinkEstimate, ...]:
        """Of each connection; without any frame its `transfers` is 0.

        Raises:
            FringeError, TransportError: a machine that sends cannot be reached, or says something else.
        """
        found = []
        for machine, behind in zip(self.machines, self.machines[1:], strict=False):
            said = self._channels[machine].ask("statistics").get("onward")
            try:
                states = [one["estimate"] for one in said or () if one["to"] == behind]
                found.append(LinkEstimate.from_state(states[-1]) if states else LinkEstimate())
            except (KeyError, TypeError) as error:
                raise FringeError(f"machine {machine!r} says of its links {said!r:.80}: expected estimates") from error
        return tuple(found)

    def close(self) -> None:
        """End all. Safe to call twice."""
        for control in self._channels.values():
            control.close()
