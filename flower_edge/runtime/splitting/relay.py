"""`SplitRelay`: an edge host between devices and the cloud that trains the middle units of each device's model.

    device  ->  edge    hello and token, as to the cloud; frames at the device's cut
    edge    ->  cloud   the same hello and token; frames at the edge's cut

It dials the cloud once for each device that dials it, is told the middle of that device's model there, and hands it
back after the round: between rounds it keeps nothing. Which device may come says the cloud. Three machines train what
two would. It knows nothing of Flower's messages, merges or plans.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping
from functools import partial
from logging import getLogger
from typing import TYPE_CHECKING, Any

from ...errors import EdgeError, ProtocolError, TransportRefused
from ...splitting.architecture import build
from ...splitting.frame import Frame
from ...splitting.frames import FrameCoder
from ...splitting.order import ArchitectureSpec
from ...transport.listening import Listening
from ...transport.transport import Connection, Handler, Hello, Peer, PeerTransport
from .channel import EDGE_KEY, PURPOSE, Exchange, exchanges, pack_answer, unpack_answer
from .edge_part import EdgePart, pack_result

if TYPE_CHECKING:
    from ...splitting.cutting_torch import CutModel

__all__ = ["SplitRelay"]

log = getLogger("flwr.edge")

#: Architectures kept built.
_MOST_MODELS = 4


class SplitRelay(Listening):
    """An edge of streamed split learning.

    Args:
        serving: transport with this host's own credentials.
        host, port: where devices dial; port 0 takes a free one.
        dialling: transport that trusts the cloud.
        cloud: host:port of its service.
        models: factories by name, for architectures that are not in `flower_edge.models`.
        silence_s: how long to wait for a device's next frame.
        patience_s: for the cloud's answer, and `dial_s` for its channel.

    Usable as a context manager: `open` and `close`.
    """

    def __init__(
        self,
        serving: PeerTransport,
        host: str,
        port: int,
        dialling: PeerTransport,
        cloud: str,
        *,
        models: Mapping[str, Callable[..., Any]] | None = None,
        silence_s: float = 120.0,
        patience_s: float = 900.0,
        dial_s: float = 20.0,
    ) -> None:
        super().__init__(serving, host, port)
        self._dialling, self._cloud = dialling, cloud
        self._models = models
        self._silence_s, self._patience_s, self._dial_s = silence_s, patience_s, dial_s
        self._built: dict[str, CutModel] = {}
        # Torch's global generators, from which dropout draws, are the process's; and models are shared by devices.
        self._computing = threading.Lock()

    def accept(self, hello: Hello, peer: Peer) -> Handler:
        """Anybody with that purpose: whether it may come says the cloud."""
        if hello.purpose != PURPOSE:
            raise TransportRefused(f"purpose {hello.purpose!r}; this edge is for {PURPOSE!r}", "other-purpose")
        return lambda connection: self._serve(hello, peer, connection)

    def _serve(self, hello: Hello, peer: Peer, connection: Connection) -> None:
        onward = hello.model_copy(update={"data": {**hello.data, EDGE_KEY: True}})
        try:
            with self._dialling.dial(self._cloud, onward, timeout_s=self._dial_s) as cloud:
                self._converse(hello, connection, cloud)
        except TransportRefused:
            raise  # the device is told what the cloud said
        except EdgeError as error:
            log.warning("split edge: device %d at %s: %s", hello.node, peer.address, error)
            raise TransportRefused(f"device {hello.node}: {type(error).__name__}: {error}", "lost") from error

    def _converse(self, hello: Hello, device: Connection, cloud: Connection) -> None:
        from ...splitting.middle_work_torch import MiddleWork

        part = EdgePart.unpack(cloud.receive(self._patience_s))
        order = part.order
        if (order.number, order.round) != (hello.node, hello.data.get("round")):
            raise ProtocolError(
                f"the cloud sent the part of device {order.number} in round {order.round}; "
                f"device {hello.node} in round {hello.data.get('round')} has dialled"
            )
        with self._computing:
            model = self._model(order.architecture)
            profile = model.profile()
            work = MiddleWork(order, model, order.cut, part.stop, part.arrays, part.optimiser)
        below, above = FrameCoder(order, profile), FrameCoder(part.onward, profile)
        for one in exchanges(order):
            data = device.receive(self._silence_s)
            came_s = time.perf_counter()
            frame = below.decode(data, one.asked, one.step)
            with self._computing:
                answer = work.answer(frame, partial(self._ask, one=one, above=above, cloud=cloud))
            device.send(pack_answer(time.perf_counter() - came_s, below.encode(answer)), timeout_s=self._silence_s)
        cloud.send(pack_result(work.result()), timeout_s=self._patience_s)

    def _ask(self, frame: Frame, one: Exchange, above: FrameCoder, cloud: Connection) -> Frame:
        """Bring a frame to the cloud; while it is under way, others compute."""
        self._computing.release()
        try:
            cloud.send(above.encode(frame), timeout_s=self._patience_s)
            _, answer = unpack_answer(cloud.receive(self._patience_s))
            return above.decode(answer, one.answered, one.step)
        finally:
            self._computing.acquire()

    def _model(self, architecture: ArchitectureSpec) -> CutModel:
        key = architecture.model_dump_json()
        if key not in self._built:
            while len(self._built) >= _MOST_MODELS:
                del self._built[next(iter(self._built))]
            self._built[key] = build(architecture, models=self._models)
        return self._built[key]
