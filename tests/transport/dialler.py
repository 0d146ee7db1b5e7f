"""A process that dials and then does what its argument says; started, stopped and killed by the tests of faults."""

from __future__ import annotations

import sys
import time

from flower_edge.transport.credentials import Insecure
from flower_edge.transport.grpc_transport import GrpcTransport
from flower_edge.transport.transport import Hello, Limits


def main(port: str, what: str) -> None:
    transport = GrpcTransport(Insecure(), Limits(keepalive_s=1.0))
    connection = transport.dial(f"127.0.0.1:{port}", Hello(purpose="fault", run="7", node=3))
    connection.send(b"here")
    connection.receive()
    if what == "forget":  # ends without closing anything
        return
    if what == "pour":
        while True:
            connection.send(bytes(1_000_000))
    time.sleep(120.0)


if __name__ == "__main__":
    main(*sys.argv[1:])
