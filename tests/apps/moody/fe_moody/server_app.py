"""fe_moody: a server that shows where it runs, keeps a run folder, then ends well, badly or never."""

import os
import time
from pathlib import Path

from flwr.app import Context, Message, RecordDict
from flwr.serverapp import Grid, ServerApp

from flower_edge.store import RunFolder

app = ServerApp()


@app.main()
def main(grid: Grid, context: Context) -> None:
    """Ask every node once, so that Ray's workers run, then be in the mood asked for."""
    nodes: list[int] = []
    while not nodes:
        nodes = list(grid.get_node_ids())
        time.sleep(0.1)
    replies = grid.send_and_receive([Message(RecordDict(), node, "query") for node in nodes])
    print(f"nodes answered: {sum(not reply.has_error() for reply in replies)}")
    for name in ("FLOWER_EDGE_RUN_DIR", "FLOWER_EDGE_RESUME", "FLWR_HOME", "FLWR_LOCAL_SUPERLINK_HTTP_API_PORT"):
        print(f"{name}={os.environ.get(name)}")
    print(f"cwd={os.getcwd()}")
    Path("note.txt").write_text("written to the working directory\n", encoding="utf-8")
    mood = str(context.run_config["mood"])
    with RunFolder.create("fe-moody", config=dict(context.run_config), seed=0) as run:
        run.record("central", 1, {"accuracy": 0.75})
        if mood == "bad":
            raise RuntimeError(f"in a bad mood: {context.run_config['words']}")
        while mood == "endless":
            print("still here")
            time.sleep(0.5)
