"""`Deployment`: a pipeline on stage servers, seen by who controls it: deploy, ask, swap, roll back, measure.

    swap    load on all machines  ->  each answers with the digest of what it built  ->  flip at the entry
            ->  what is under way drains  ->  older versions are dropped

Until the flip nothing changes for requests: a machine that cannot load, or that has another digest, and the swap is
refused while the old version goes on. After it every new request is of the new version, on all machines.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Mapping
from contextlib import suppress
from logging import getLogger
from typing import Any, Final

from ...errors import EdgeError, FringeError, SwapRefused
from ...fringe.pipeline_torch import Pipeline
from ...fringe.wire import Wire
from ...splitting.order import ArchitectureSpec
from ...transport.credentials import split_address
from ...transport.transport import PeerTransport
from .asking import Asking
from .channels import ControlChannel
from .loading_torch import load_orders, request_wire
from .swaps import Swap, everywhere, holding, why_not

__all__ = ["Deployment", "Swap"]

log = getLogger("flwr.edge")

#: Machines tell one after the other what they hold: of a swap meanwhile, one may tell what was before and one what is.
_LOOKS: Final = 3


class Deployment(Asking):
    """Controls stages, and asks them.

    Args:
        addresses: host:port of each machine's stage, in the order of the pipeline.
        transport: with credentials that the stages believe.
        via: by machine, where the one before it dials it, if not at its address: a relay, an inner network.
        deployment: name of the deployment; as the stages were given it.
        secret: as the stages were given it.
        architecture: of the model, for modules of your own that cannot be traced; stages need its factory.
        keep: versions before the current one that stay loaded, to roll back to.
        answer_s: how long a machine may take to load a version.
        drain_s: how long what is under way may take to end after a flip.

    Usable as a context manager: `close` at the end. Stages go on serving without it.

    Raises:
        ConfigError: an address that is none.
        FringeError: no machine, or one in `via` that is not in `addresses`.
    """

    def __init__(
        self,
        addresses: Mapping[str, str],
        transport: PeerTransport,
        *,
        via: Mapping[str, str] | None = None,
        deployment: str = "pipeline",
        secret: bytes | None = None,
        architecture: ArchitectureSpec | None = None,
        keep: int = 1,
        answer_s: float = 60.0,
        drain_s: float = 30.0,
        dial_s: float = 5.0,
    ) -> None:
        if not addresses or keep < 0:
            raise FringeError(
                f"{len(addresses)} machines and keep = {keep}; expected one machine or more, and 0 or more"
            )
        for machine, address in (*addresses.items(), *(via or {}).items()):
            split_address(address)
            if machine not in addresses:
                raise FringeError(f"via of machine {machine!r}: expected one of {', '.join(addresses)}")
        super().__init__(
            addresses, transport, deployment=deployment, secret=secret, answer_s=answer_s, dial_s=dial_s
        )  # fmt: skip
        self._addresses = {**addresses, **(via or {})}
        self._architecture, self._keep, self._drain_s = architecture, keep, drain_s
        self._pipelines: dict[int, Pipeline | None] = {}  # None: loaded by a controller before this one
        self._numbers: dict[int, int] = {}
        self._strays: set[int] = set()  # that some machine holds, to be forgotten
        self._last = 0
        # One change at a time; requests do not wait for it.
        self._changing = threading.Lock()

    # -- versions ----------------------------------------------------------------------------------------------------

    @property
    def versions(self) -> tuple[int, ...]:
        """Numbers that are loaded everywhere."""
        return tuple(sorted(self._pipelines))

    @property
    def pipeline(self) -> Pipeline:
        """The one that serves.

        Raises:
            FringeError: none does.
        """
        if self._current is None:
            raise FringeError("nothing is deployed; call deploy(pipeline) first")
        found = self._pipelines[self._current]
        if found is None:
            raise FringeError(
                f"version {self._current} was taken up, not deployed here; swap(pipeline) says what it is"
            )
        return found

    def pipeline_version(self, number: int) -> int | None:
        """Of a version that was served, the `version` of its pipeline: the number that a controller knows it by."""
        return self._numbers.get(number)

    def attach(self) -> int | None:
        """Take up what is served already, and change nothing: requests can be asked, and versions swapped.

        For a controller that was started anew, and for whoever only asks. Should the next pipeline that is swapped be
        just the one that is served, nothing is loaded or flipped.

        Returns:
            The number that serves; None: no version is on all machines, so `deploy`.

        Raises:
            SwapRefused: a machine that cannot be reached.
            FringeError: one that says something else than a stage says.
        """
        with self._changing:
            for _ in range(_LOOKS):
                told = self._controls.statistics("nothing was taken up")
                entry, held = told[self.machines[0]], holding(told)
                current, loaded = entry.get("current"), everywhere(told)
                if current in loaded:
                    break
            else:
                return None
            self._wire = Wire.from_config(entry.get("takes") or {})
            self._current = int(current)
            self._last = max(self._last, *held)
            self._pipelines = {number: self._pipelines.get(number) for number in loaded}
            self._strays = set(held) - set(loaded)
            return self._current

    def deploy(self, pipeline: Pipeline) -> Swap:
        """Serve a pipeline on machines of which nothing is expected: all other versions on them are dropped.

        Use it first, and after a machine was started anew.

        Raises:
            FringeError: a pipeline of other machines, or with parts that cannot be told.
            SwapRefused: some machine could not load it; the message names it.
        """
        with self._changing:
            told = self._controls.statistics("nothing was deployed")
            held = holding(told)
            self._last = max([self._last, *held])
            # First what nobody serves: of controllers that died, there may be so much that nothing else finds room.
            self._forget(*set(held) - {told[self.machines[0]].get("current"), *self._pipelines})
            swap = self._install(pipeline, self._orders(pipeline))
            self._forget(*{*held, *self._pipelines, *self._strays} - {swap.version})
            return swap

    def swap(self, pipeline: Pipeline) -> Swap:
        """Serve another pipeline from now on, without losing a request. Nothing changes if all machines serve it now.

        Raises:
            FringeError: a pipeline of other machines or inputs, or with parts that cannot be told; or none is deployed.
            SwapRefused: some machine could not load it, or holds something else; the old version goes on.
        """
        with self._changing:
            if self._current is None or self._wire is None:
                raise FringeError("nothing is deployed; call deploy(pipeline) first")
            if request_wire(pipeline) != self._wire:
                raise FringeError(
                    f"a pipeline that takes {request_wire(pipeline).specs[0].shape}, expected "
                    f"{self._wire.specs[0].shape}, as requests are now; deploy(pipeline) instead"
                )
            # Another controller may have loaded some since.
            told = self._controls.statistics(f"version {self._current} goes on")
            self._last = max([self._last, *holding(told)])
            orders = self._orders(pipeline)
            if self._is_served(orders, told):
                self._pipelines[self._current] = pipeline.copied()
                self._numbers[self._current] = pipeline.version
                return Swap(self._current, self._current, 0.0, 0.0, 0.0)
            self._forget(*self._strays)
            swap = self._install(pipeline, orders)
            old = sorted(number for number in self._pipelines if number != swap.version)
            self._forget(*old[: max(0, len(old) - self._keep)])
            return swap

    def roll_back(self, version: int | None = None) -> Swap:
        """Serve a version that is still loaded; None: the one before.

        Raises:
            FringeError: it is not loaded any more, or not on all machines: one was started anew.
            SwapRefused: a machine cannot be reached.
        """
        with self._changing:
            others = [number for number in self.versions if number != self._current]
            wanted = version if version is not None else max(others, default=None)
            if wanted not in self._pipelines or wanted is None:
                raise FringeError(f"version {wanted} is not loaded, {list(self.versions)} are; swap(pipeline) instead")
            told = self._controls.statistics(f"version {wanted} is not served")
            missing = [name for name in self.machines if name not in holding(told).get(wanted, {})]
            if missing:
                self._pipelines.pop(wanted)
                self._strays.add(wanted)
                raise FringeError(
                    f"version {wanted} is not on {', '.join(map(repr, missing))} any more; swap(pipeline) instead"
                )
            return self._flip(wanted, 0.0)

    def _orders(self, pipeline: Pipeline) -> dict[str, tuple[dict[str, Any], str]]:
        if pipeline.machines != self.machines:
            raise FringeError(
                f"a pipeline on {', '.join(pipeline.machines)}; this deployment has {', '.join(self.machines)}"
            )
        return load_orders(pipeline, self._last + 1, self._addresses, self._architecture)

    def _is_served(
        self, orders: Mapping[str, tuple[dict[str, Any], str]], told: Mapping[str, Mapping[str, Any]]
    ) -> bool:
        """Whether all machines hold just this as the current version, and dial one another where they should."""
        if self._current is None:
            return False
        wanted = {name: (digest, (order["next"] or {}).get("address")) for name, (order, digest) in orders.items()}
        return told[self.machines[0]].get("current") == self._current and holding(told).get(self._current) == wanted

    def _install(self, pipeline: Pipeline, orders: Mapping[str, tuple[dict[str, Any], str]]) -> Swap:
        began_s = time.perf_counter()
        self._last += 1
        number = self._last

        def load(control: ControlChannel) -> dict[str, Any]:
            order, digest = orders[control.machine]
            said = control.ask(**order)
            if said.get("digest") != digest:
                raise FringeError(
                    f"machine {control.machine!r} holds a part of digest {str(said.get('digest'))[:12]}…, expected "
                    f"{digest[:12]}…; install the same versions of flower-edge and torch on all machines"
                )
            return said

        try:
            # A request passes all machines: while one is busy with it, the others had better not be.
            at_once = None if self._current is None else 1
            self._controls.everyone(f"version {number} is not served", load, at_once=at_once)
        except SwapRefused:
            self._forget(number)
            raise
        # A copy: who trains the pipeline further must not change what is said to be served.
        self._pipelines[number] = pipeline.copied()
        self._numbers[number] = pipeline.version
        try:
            return self._flip(number, time.perf_counter() - began_s)
        except SwapRefused:
            self._forget(number)
            raise

    def _flip(self, number: int, load_s: float) -> Swap:
        entry = self._controls.entry
        began_s = time.perf_counter()
        try:
            before = entry.ask("flip", version=number).get("before")
        except EdgeError as error:
            raise SwapRefused(why_not(f"version {number} is not served", {entry.machine: error})) from error
        pipeline = self._pipelines[number]
        self._current = number
        if pipeline is not None:
            self._wire = request_wire(pipeline)
        flip_s = time.perf_counter() - began_s
        began_s = time.perf_counter()
        if before is not None and before != number:
            with suppress(EdgeError):
                if not entry.ask("drain", version=before, timeout_s=self._drain_s).get("drained"):
                    log.warning("version %d had requests under way %g s after the flip", before, self._drain_s)
        return Swap(number, before, load_s, flip_s, time.perf_counter() - began_s)

    def _forget(self, *numbers: int) -> None:
        """Where something of one is under way still, it goes with the next change."""
        for number in numbers:
            self._pipelines.pop(number, None)
            (self._strays.discard if self._controls.drop(number) else self._strays.add)(number)
