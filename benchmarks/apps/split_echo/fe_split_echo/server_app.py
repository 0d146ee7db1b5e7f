"""fe_split_echo: times round trips of both kinds with one node, and writes the seconds to a file."""

import json
import time
from pathlib import Path

import numpy as np
from flwr.app import Array, ArrayRecord, Context, Message, RecordDict
from flwr.serverapp import Grid, ServerApp

from flower_edge.runtime.splitting.messages import SPLIT_RECORD, SplitOrder
from flower_edge.runtime.splitting.service import Job, SplitService
from flower_edge.transport.certificates import issue, make_authority
from flower_edge.transport.credentials import ServerTls
from flower_edge.transport.grpc_transport import GrpcTransport

from .echo import BATCH, VALUES, answer, coder_of, order_of

app = ServerApp()


def sent(grid: Grid, node: int, content: RecordDict, kind: str) -> tuple[float, Message]:
    """Seconds of one `send_and_receive`, and the reply."""
    begin_s = time.perf_counter()
    (reply,) = grid.send_and_receive([Message(content, node, kind)])
    took_s = time.perf_counter() - begin_s
    if reply.has_error():
        raise RuntimeError(f"{kind}: {reply.error.reason}")
    return took_s, reply


def messages_s(grid: Grid, node: int, count: int) -> list[float]:
    """Seconds of each round trip in messages, after one that is not counted."""
    tensor = np.random.default_rng(0).normal(size=(BATCH, VALUES)).astype(np.float32)
    arrays = [ArrayRecord({"tensor": Array(tensor + i)}) for i in range(count + 1)]
    return [sent(grid, node, RecordDict({"arrays": one}), "train.echo")[0] for one in arrays][1:]


def stream_s(grid: Grid, node: int, count: int) -> tuple[list[float], float]:
    """Seconds of each batch over TLS as the device saw it, and the channel's one-way delay."""
    authority = make_authority("fe_split_echo", days=1.0)
    own = issue(authority, ["127.0.0.1"], days=1.0)
    work = order_of(count)
    with SplitService(GrpcTransport(ServerTls(own.certificate_pem, own.key_pem))) as service:
        tokens = service.begin("echo", work.round, {0: Job(work, coder_of(work), answer)})
        order = SplitOrder(
            session="echo",
            work=work,
            plane="stream",
            address=f"127.0.0.1:{service.port}",
            token=tokens[0],
            certificate=authority.certificate_pem.decode(),
        )
        _, reply = sent(grid, node, RecordDict({SPLIT_RECORD: order.write()}), "train.stream")
        outcome = service.end([0])[0]
    if outcome.lost:
        raise RuntimeError(outcome.lost)
    metrics = reply.content.metric_records["metrics"]
    return list(metrics["batches_s"]), float(metrics["delay_s"])


@app.main()
def main(grid: Grid, context: Context) -> None:
    """Both, one after the other, with the same SuperLink and SuperNode."""
    while not (nodes := list(grid.get_node_ids())):
        time.sleep(0.2)
    config = context.run_config
    found: dict[str, object]
    try:
        batches_s, delay_s = stream_s(grid, nodes[0], int(config["batches"]))
        found = {"batches_s": batches_s, "delay_s": delay_s}
        found["messages_s"] = messages_s(grid, nodes[0], int(config["messages"]))
    except Exception as error:
        found = {"error": f"{type(error).__name__}: {error}"}
    report = Path(str(config["report"]))
    report.with_suffix(".part").write_text(json.dumps(found), encoding="utf-8")
    report.with_suffix(".part").rename(report)
