"""A process that takes a place in a chain and hears one frame; it is killed by the test that started it."""

from __future__ import annotations

import sys
import time

from flower_edge.transport.credentials import Insecure
from flower_edge.transport.grpc_transport import GrpcTransport
from flower_edge.transport.transport import Hello


def main(port: str, session: str, token: str, round: str, place: str) -> None:
    data = {"round": int(round), "place": int(place)}
    hello = Hello(purpose="pieces", run=session, node=0, token=token, data=data)
    connection = GrpcTransport(Insecure()).dial(f"127.0.0.1:{port}", hello)
    connection.receive(60.0)
    print("heard", flush=True)
    time.sleep(120.0)


if __name__ == "__main__":
    main(*sys.argv[1:])
