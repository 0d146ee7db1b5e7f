"""Processes of `benchmarks.peers`: bare grpc.aio at both ends, and an agent whose pieces are timed as they leave.

    python -m benchmarks.peers_child serve|send|paced FOLDER

Each reads lines of JSON and answers with one.
"""

from __future__ import annotations

import asyncio
import json
import sys
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any, Final

__all__ = ["main"]

_CHUNK: Final = 1 << 20
_METHOD: Final = "/flower_edge.Bare/Send"


def main() -> int:
    """Run one of them."""
    kind, folder = sys.argv[1], Path(sys.argv[2])
    if kind == "paced":
        _paced(folder)
    else:
        asyncio.run(_serve(folder) if kind == "serve" else _send(folder))
    return 0


def _pem(folder: Path, name: str) -> bytes:
    return (folder / name).read_bytes()


def _say(**told: Any) -> None:
    print(json.dumps(told), flush=True)


async def _serve(folder: Path) -> None:
    """Take client streams, as the guide of grpc.aio does it: pieces in a list, joined."""
    import grpc

    async def take(pieces: AsyncIterator[bytes], context: Any) -> bytes:
        parts = [piece async for piece in pieces]
        return len(b"".join(parts)).to_bytes(8, "big")

    server = grpc.aio.server(options=[("grpc.max_receive_message_length", _CHUNK + 64)])
    service, _, method = _METHOD.strip("/").rpartition("/")
    handlers = {method: grpc.stream_unary_rpc_method_handler(take)}
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(service, handlers),))
    secure = grpc.ssl_server_credentials(
        [(_pem(folder, "1.key"), _pem(folder, "1.pem"))], _pem(folder, "ca.pem"), require_client_auth=True
    )
    port = server.add_secure_port("127.0.0.1:0", secure)
    await server.start()
    _say(port=port)
    await asyncio.to_thread(sys.stdin.read)
    await server.stop(1.0)


async def _send(folder: Path) -> None:
    """Send so many bytes when told, and say what it took until the answer was there."""
    import grpc

    secure = grpc.ssl_channel_credentials(_pem(folder, "ca.pem"), _pem(folder, "0.key"), _pem(folder, "0.pem"))
    port = int(json.loads(await asyncio.to_thread(sys.stdin.readline))["port"])
    async with grpc.aio.secure_channel(f"127.0.0.1:{port}", secure) as channel:
        send = channel.stream_unary(_METHOD)
        _say(ready=True)
        read: dict[str, bytes] = {}
        while line := await asyncio.to_thread(sys.stdin.readline):
            name = json.loads(line)["file"]
            if name not in read:
                read[name] = (folder / name).read_bytes()
            data = read[name]
            view = memoryview(data)

            async def pieces(view: memoryview = view) -> AsyncIterator[bytes]:
                for at in range(0, len(view), _CHUNK):
                    yield bytes(view[at : at + _CHUNK])

            begun_s = time.monotonic()
            answer = await send(pieces())
            took_s = time.monotonic() - begun_s
            assert int.from_bytes(answer, "big") == len(data)
            _say(took_s=took_s)


def _paced(folder: Path) -> None:
    """An agent; says when each of its pieces left, and how long it was."""
    from flower_edge.runtime.agent.agent import Agent
    from flower_edge.transport import queues
    from flower_edge.transport.credentials import MutualTls
    from flower_edge.transport.pieces import FIRST, MORE

    left: list[tuple[float, int]] = []
    untimed = queues.Outbox.pieces

    def timed(self: queues.Outbox) -> Iterator[bytes]:
        for piece in untimed(self):
            if piece[0] in (FIRST, MORE):
                left.append((time.monotonic(), 8 * len(piece)))
            yield piece

    queues.Outbox.pieces = timed  # type: ignore[method-assign]
    own = MutualTls(_pem(folder, "0.pem"), _pem(folder, "0.key"), _pem(folder, "ca.pem"))
    with Agent(folder / "paced", own) as agent:
        _say(socket=str(agent.socket), card=agent.card.model_dump())
        for _ in sys.stdin:
            _say(left=left)
            left.clear()


if __name__ == "__main__":
    sys.exit(main())
