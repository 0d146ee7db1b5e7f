"""fe_node_state: asks its node, waits until it came back as another one, and asks again."""

import json
import time
from pathlib import Path

from flwr.app import Context, Message, RecordDict
from flwr.serverapp import Grid, ServerApp

app = ServerApp()


def node_other_than(grid: Grid, known: int | None) -> int:
    """The one node on the grid, once it is there and not `known`."""
    while True:
        nodes = [node for node in grid.get_node_ids() if node != known]
        if nodes:
            return nodes[0]
        time.sleep(0.2)


def ask(grid: Grid, node: int, *kinds: str) -> list[dict[str, object]]:
    """Send messages of these kinds to the node; what it replied, in their order."""
    ids = list(grid.push_messages([Message(RecordDict(), node, kind) for kind in kinds]))
    replies: dict[str, Message] = {}
    while len(replies) < len(ids):
        time.sleep(0.2)
        waiting = [message_id for message_id in ids if message_id not in replies]
        replies |= {reply.metadata.reply_to_message_id: reply for reply in grid.pull_messages(waiting)}
    return [
        {"error": replies[i].error.reason} if replies[i].has_error() else dict(replies[i].content["metrics"])
        for i in ids
    ]


@app.main()
def main(grid: Grid, context: Context) -> None:
    """Tell what the node remembers, in `before.json` and, after its restart, in `after.json`."""
    report = Path(str(context.run_config["report"]))
    first = node_other_than(grid, None)
    told = {"node": first, "replies": ask(grid, first, "train", "train", "query")}
    (report / "before.json").write_text(json.dumps(told), encoding="utf-8")
    second = node_other_than(grid, first)
    told = {"node": second, "replies": ask(grid, second, "train", "query", "train")}
    (report / "after.json").write_text(json.dumps(told), encoding="utf-8")
