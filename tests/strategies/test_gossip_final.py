"""What a run of gossip ends with: the server's mean, what the workers agree on, or the model each has of its own."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import numpy as np
import pytest
from flwr.app import Context, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp
from test_gossip import NODES, Drawn, make_app, model

from flower_edge.clients import own_model
from flower_edge.control import Equal
from flower_edge.runtime import LocalGrid
from flower_edge.runtime.clock.round_clock import RoundClock
from flower_edge.runtime.node_state import NodeState
from flower_edge.store import RunFolder
from flower_edge.strategies import Gossip
from flower_edge.wire import arrays_of


def asked(app: ClientApp) -> ClientApp:
    """Tells its own model's weights when it is asked, as an app would use them."""

    @app.query("own")
    def own(message: Message, context: Context) -> Message:
        held = own_model(context)
        told = {} if held is None else {"weight": [float(number) for number in held["weight"]]}
        return Message(RecordDict({"own": MetricRecord(told)}), reply_to=message)  # type: ignore[arg-type]

    return app


def ended(strategy: Gossip, rounds: int = 5, **start: Any) -> tuple[Any, np.ndarray]:
    """The result, and each worker's own weights [nodes, weights] after the run."""
    with LocalGrid(asked(make_app()), NODES, serialise=True) as grid:
        result = strategy.start(RoundClock(grid), model(), rounds, **start)
        questions = [Message(RecordDict(), 1000 + k, "query.own") for k in range(NODES)]
        replies = sorted(grid.send_and_receive(questions), key=lambda reply: reply.metadata.src_node_id)
    return result, np.array([reply.content["own"]["weight"] for reply in replies])


def options(final: Any, mailbox: Any, mean_every: int = 3) -> Gossip:
    return Gossip(Drawn(2), final=final, mailbox=mailbox, mean_every=mean_every, fraction_evaluate=0.0)


def test_local_models_stay_on_the_workers_each_its_own_and_their_apps_have_them() -> None:
    with LocalGrid(asked(make_app()), NODES) as grid:
        (reply,) = grid.send_and_receive([Message(RecordDict(), 1000, "query.own")])
        assert not reply.content["own"], "before a round there is none"
    local, own = ended(options("local", "shared-memory", mean_every=5))
    np.testing.assert_allclose(own.mean(axis=0), arrays_of(local.arrays)["weight"], rtol=1e-12)
    assert all(not np.allclose(one, other) for one, other in pairwise(own)), "nothing brought them together"
    _, same = ended(options("server", "relay"))
    np.testing.assert_array_equal(same, own)


def test_averaged_models_are_the_workers_own_from_then_on() -> None:
    averaged, own = ended(Gossip(Drawn(2), final="averaging", averaged_to=1e-10, fraction_evaluate=0.0))
    for weight in own:
        np.testing.assert_allclose(weight, arrays_of(averaged.arrays)["weight"], rtol=1e-8)


@pytest.mark.parametrize("rounds", [2, 4, 6])
def test_the_servers_mean_is_that_of_the_last_round_however_seldom_there_is_one(rounds: int) -> None:
    seldom, own = ended(options("server", "shared-memory"), rounds)
    np.testing.assert_allclose(arrays_of(seldom.arrays)["weight"], own.mean(axis=0), rtol=1e-12)


def test_for_the_end_of_local_models_no_model_travels() -> None:
    local, own = ended(options("local", "shared-memory"), 5)
    third, _ = ended(options("local", "shared-memory"), 3)
    np.testing.assert_array_equal(arrays_of(local.arrays)["weight"], arrays_of(third.arrays)["weight"])
    assert not np.allclose(arrays_of(local.arrays)["weight"], own.mean(axis=0))


@pytest.mark.parametrize(("final", "end"), [("server", 4), ("local", 2)])
def test_a_run_that_has_converged_ends_with_a_mean_of_what_it_came_to(final: Any, end: int, tmp_path: Any) -> None:
    def strategy() -> Gossip:
        # Neighbours' models come within this of each other in the second round.
        return Gossip(Equal(), final=final, mailbox="shared-memory", mean_every=4, converged_below=900.0)

    with RunFolder.create("test", config={}, seed=0, root=tmp_path) as folder:
        result, own = ended(strategy(), 9, run=folder)
        again, _ = ended(strategy(), 9, run=folder, resume=True)
    rounds = sorted(result.train_metrics_clientapp)
    below = [n for n in rounds if result.train_metrics_clientapp[n].get("distance", np.inf) < 900.0]
    assert below[0] == 2, "what follows is about a round without a mean"
    assert rounds[-1] == end
    if final == "server":
        np.testing.assert_allclose(arrays_of(result.arrays)["weight"], own.mean(axis=0), rtol=1e-12)
    assert sorted(again.train_metrics_clientapp) == rounds


def test_whose_memory_is_lost_has_no_model_of_its_own() -> None:
    with LocalGrid(asked(make_app()), NODES) as grid:
        Gossip(Equal(), fraction_evaluate=0.0).start(RoundClock(grid), model(), 2)
        NodeState(grid.context_of(1001), "gossip").delete()
        assert own_model(grid.context_of(1001)) is None
        held = own_model(grid.context_of(1002))
        assert held is not None
        held["weight"][:] = 0.0
        assert own_model(grid.context_of(1002))["weight"].any(), "what is given is the caller's own"  # type: ignore[index]
