"""One seed, one sample of nodes, however often Flower's threads draw their jitter in between."""

from __future__ import annotations

import importlib
import random
import threading

import pytest
from flwr.serverapp.strategy import FedAvg
from toy import initial_model, toy_app

from flower_edge.runtime import flower_private_jitter
from flower_edge.runtime.grid_proxy import GridProxy
from flower_edge.runtime.local_grid import LocalGrid
from flower_edge.strategies import Layered

MODULES = [importlib.import_module(name) for name in flower_private_jitter._MODULES]
HEARTBEAT, RETRIES, _ = MODULES


@pytest.fixture
def as_flower_ships(monkeypatch: pytest.MonkeyPatch) -> None:
    for module in MODULES:
        monkeypatch.setattr(module, "random", random)


def beat() -> None:
    """A heartbeat, in the thread that sends them."""
    sent = threading.Event()

    def send() -> bool:
        sent.set()
        return True

    sender = HEARTBEAT.HeartbeatSender(send)
    sender.start()
    assert sent.wait(60)
    sender.stop()
    RETRIES.full_jitter(1.0)


@pytest.mark.usefixtures("as_flower_ships")
def test_flowers_threads_draw_from_the_generator_that_samples() -> None:
    """What is mended here is still so in this Flower."""
    random.seed(1)
    before = random.getstate()
    beat()
    assert random.getstate() != before


@pytest.mark.usefixtures("as_flower_ships")
@pytest.mark.parametrize("way", ["proxy", "layered"])
def test_a_run_is_the_same_with_heartbeats_between_its_rounds(way: str) -> None:
    def run(*, heartbeats: bool) -> list[list[int]]:
        sampled = []

        class Listening(FedAvg):
            def configure_train(self, server_round, arrays, config, grid):  # type: ignore[no-untyped-def]
                if heartbeats:
                    beat()
                messages = list(super().configure_train(server_round, arrays, config, grid))
                sampled.append([message.metadata.dst_node_id for message in messages])
                return messages

        with LocalGrid(toy_app(), 8) as local:
            strategy = Listening(fraction_train=0.5, fraction_evaluate=0.0)
            random.seed(17)
            if way == "proxy":
                strategy.start(GridProxy(local, ask_properties=False), initial_model(), num_rounds=3)
            else:
                Layered(strategy).start(local, initial_model(), num_rounds=3)
        return sampled

    assert run(heartbeats=True) == run(heartbeats=False)
