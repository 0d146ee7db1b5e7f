"""answer_properties: what a node tells, and what it refuses to tell."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from flwr.app import Context, Message, RecordDict
from flwr.clientapp import ClientApp

from flower_edge.clients.properties import answer_properties
from flower_edge.errors import ConfigError
from flower_edge.runtime.grid_proxy import GridProxy
from flower_edge.runtime.local_grid import LocalGrid


def told(node_config: dict[str, Any], extra: Any = None, **options: Any) -> dict[str, Any]:
    with LocalGrid(answer_properties(ClientApp(), extra), nodes=[node_config], serialise=True, **options) as local:
        return dict(GridProxy(local).properties(LocalGrid.FIRST_NODE_ID))


def test_a_node_tells_its_whole_node_config_with_types_kept() -> None:
    config = {"partition-id": 3, "num-partitions": 8, "site": "edge-0", "speed": 1.5, "mains": True}
    answer = told(config)
    assert answer == config
    assert [type(answer[name]) for name in config] == [int, int, str, float, bool]


def test_extra_sees_the_context_and_goes_over_the_node_config() -> None:
    def extra(context: Context) -> dict[str, Any]:
        return {"site": "moved", "twice": 2 * int(context.node_config["partition-id"])}

    assert told({"partition-id": 3, "site": "edge-0"}, extra) == {"partition-id": 3, "site": "moved", "twice": 6}


def test_a_numpy_float_is_told_as_a_float() -> None:
    answer = told({}, lambda context: {"load": np.float64(0.25)})
    assert answer == {"load": 0.25}


@pytest.mark.parametrize("value", [[1, 2], b"x", None, np.int64(3)])
def test_a_value_that_is_not_plain_is_refused_by_name_on_the_node(value: Any) -> None:
    with pytest.raises(ConfigError, match=rf"property 'odd' is a {type(value).__name__}; tell it as"):
        told({}, lambda context: {"odd": value}, raise_errors=True)


def test_a_refusal_on_the_node_leaves_it_without_properties_on_the_server() -> None:
    assert told({"partition-id": 1}, lambda context: {"odd": [1]}) == {}


def test_the_app_is_returned_and_keeps_its_own_functions() -> None:
    app = ClientApp()

    @app.query()
    def query(message: Message, context: Context) -> Message:
        return Message(RecordDict(), reply_to=message)

    assert answer_properties(app) is app
    with LocalGrid(app, nodes=1) as local:
        (reply,) = local.send_and_receive([Message(RecordDict(), LocalGrid.FIRST_NODE_ID, "query")])
    assert reply.has_content()
