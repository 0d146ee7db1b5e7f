"""fe_joined: gossip among two SuperNodes and the server itself, over each mailbox."""

import json
from collections.abc import Mapping
from typing import Any

from flwr.app import Array, ArrayRecord, ConfigRecord, Context, Message, RecordDict
from flwr.serverapp import Grid, ServerApp

from fe_joined.client_app import app as client_app
from flower_edge.peers.opening import RELAY
from flower_edge.peers.relay import Posted, RelayStore
from flower_edge.peers.shared_folder import SharedFolder
from flower_edge.runtime.grid_proxy import GridProxy
from flower_edge.runtime.joined_grid import JoinedGrid, server_worker
from flower_edge.wire import packet_bytes

app = ServerApp()


def gossip(grid: GridProxy, rounds: int, mailbox: Mapping[str, Any]) -> dict[str, Any]:
    """All models after the last round, how many letters came, and in how many processes the workers were."""
    store, heard, models, processes = RelayStore(), 0, {}, set()
    places = {node: int(grid.properties(node)["partition-id"]) for node in grid.get_node_ids()}
    for round_ in range(1, rounds + 1):
        messages = []
        for node, place in places.items():
            letters = store.letters(place, round=round_ - 1, senders=[i for i in range(3) if i != place])
            inbox = {str(i): Array("uint8", (len(one.data),), "packet", one.data) for i, one in letters.items()}
            config = ConfigRecord({"round": round_, "mailbox": json.dumps(dict(mailbox))})
            content = RecordDict({"config": config, "inbox": ArrayRecord(inbox)})
            messages.append(Message(content, node, "train"))
        for reply in grid.send_and_receive(messages, timeout=120):
            told = reply.content["metrics"]
            place, heard = int(told["node"]), heard + int(told["heard"])
            models[place] = told["model"]
            processes.add(told["process"])
            if "outbox" in reply.content:
                data = packet_bytes(reply.content["outbox"], sender=f"node {place}")
                store.put(place, [Posted(data, tuple(i for i in range(3) if i != place))], round=round_)
    return {"models": [models[i] for i in range(3)], "heard": heard, "processes": len(processes)}


@app.main()
def main(grid: Grid, context: Context) -> None:
    """Print what each mailbox came to as one line of JSON."""
    rounds = int(context.run_config["rounds"])
    with server_worker(client_app, 2, num_partitions=3) as own, SharedFolder(context.run_id) as folder:
        proxy = GridProxy(JoinedGrid(grid, own), expected_nodes=3)
        told = {
            "shared": gossip(proxy, rounds, folder.config()),
            "relayed": gossip(proxy, rounds, RELAY),
        }
    print(f"told={json.dumps(told)}")
