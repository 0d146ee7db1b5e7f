"""fe_node_echo: sends what the script says, one message at a time, and writes what came of each to a file."""

import hashlib
import json
import os
import time
from pathlib import Path

from flwr.app import ConfigRecord, Context, Message, RecordDict
from flwr.serverapp import Grid, ServerApp

from flower_edge.runtime.short_polling import ShortPolling

app = ServerApp()

#: How long nodes are waited for, and one reply.
NODES_S, REPLY_S = 90.0, 150.0


def nodes_by_site(grid: Grid, sites: set[str]) -> dict[str, int]:
    """Ids of the nodes of these sites, once all have answered."""
    found: dict[str, int] = {}
    latest_s = time.monotonic() + NODES_S
    while not sites <= set(found) and time.monotonic() < latest_s:
        new = [node for node in grid.get_node_ids() if node not in found.values()]
        asked = [Message(RecordDict(), node, "query") for node in new]
        for reply in grid.send_and_receive(asked, timeout=60.0) if asked else ():
            if not reply.has_error():
                found[str(reply.content["where"]["site"])] = reply.metadata.src_node_id
        time.sleep(0.1)
    return found


def figures(reply: Message | None) -> dict[str, object]:
    """What can be compared of a reply: a digest of its content, its error, its numbers."""
    if reply is None:
        return {"error": "no reply"}
    if reply.has_error():
        return {"error": reply.error.reason, "code": reply.error.code}
    digest = hashlib.sha256()
    for name, record in sorted(reply.content.array_records.items()):
        for key, array in record.items():
            digest.update(f"{name}.{key} {array.dtype} {array.shape}".encode() + array.data)
    numbers = {k: v for record in reply.content.metric_records.values() for k, v in record.items()}
    return {"digest": digest.hexdigest(), "metrics": numbers}


@app.main()
def main(grid: Grid, context: Context) -> None:
    """Send the script and write the report."""
    config = context.run_config
    short = float(config["short-poll"])
    steps = [step.split() for step in str(config["script"]).split(";")]
    quick = ShortPolling(grid, 0.1)
    nodes = nodes_by_site(quick, {site for site, *_ in steps})
    used = ShortPolling(grid, short) if short else grid
    report = []
    for site, kind, times in steps:
        for number in range(int(times)):
            content = RecordDict({"config": ConfigRecord({"number": number})})
            began_s = time.perf_counter()
            replies = list(used.send_and_receive([Message(content, nodes[site], f"train.{kind}")], timeout=REPLY_S))
            seconds = time.perf_counter() - began_s
            report.append({"site": site, "kind": kind, "seconds": seconds, **figures(replies[0] if replies else None)})
    path = Path(str(config["report"]))
    partial = path.with_suffix(".part")
    partial.write_text(json.dumps(report), "utf-8")
    os.replace(partial, path)
