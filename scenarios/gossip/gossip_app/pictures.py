"""[1], FIGS. 6 to 11, from a run: the network at start and end, latency, regret, and accuracies.

The run's own curves are what was measured in it. Latency and regret of the other controllers are computed in the same
world, which needs no learning; accuracies are drawn of those that were learned.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from flwr.serverapp.strategy import Result

from flower_edge.control.baselines import DynamicOpt
from flower_edge.control.figures_plot import plot_accuracy_over_time, plot_device_accuracy, plot_latency, plot_regret
from flower_edge.control.named import make_controller
from flower_edge.control.simulate import simulate
from flower_edge.strategies.gossip.gossip import Gossip
from flower_edge.topology.network_plot import plot_networks
from gossip_app import config as keys


def draw(config: keys.Gossip, strategy: Gossip, learned: Mapping[str, Result], folder: Path) -> None:
    """Draw them all into a folder; `learned` by controller, the run's own among them."""
    group, result = strategy.group, learned[config.controller]
    if group is None or group.mixing is None or group.seen is None:
        return
    # Without those in which models were only averaged at the end.
    rounds, world = max(result.train_metrics_clientapp), group.env.world
    first = strategy.controller.init(group.start)[0]
    networks = {
        name: (places, control.weights)
        for name, number, control in (("start", 1, first), ("end", rounds, group.mixing))
        if (places := world.positions_m(number)) is not None
    }
    title = f"{config.controller}, {config.set_up}, {rounds} rounds"
    plot_networks(group.topology, networks, folder / "fig-06-07-network.png", title=title)

    f_s = {config.controller: _series(result, "objective_s")}
    bits = group.seen.payload_bits
    for name in config.compare.controllers.split():
        if name != config.controller:
            f_s[name] = simulate(make_controller(name, seed=config.seed), world, rounds, payload_bits=bits).f_s
    # The least there is in each round, whoever is compared with it.
    least_s = simulate(DynamicOpt(), world, rounds, payload_bits=bits).optimum_s
    optimum_s = dict.fromkeys(f_s, least_s)
    plot_latency(f_s, folder / "fig-08-latency.png", title=title)
    plot_regret(f_s, optimum_s, folder / "fig-09-regret.png", title=title)

    device = {name: _read(one, "accuracy_watched") for name, one in learned.items()}
    plot_device_accuracy(
        {name: (at, values) for name, (at, _, values) in device.items()}, folder / "fig-10-one-device.png", title=title
    )
    mean = {name: _read(one, "accuracy") for name, one in learned.items()}
    plot_accuracy_over_time(
        {name: (at_s, values) for name, (_, at_s, values) in mean.items()},
        folder / "fig-11-mean-accuracy.png",
        title=title,
    )


def _series(result: Result, name: str) -> Any:
    """A number of every round, float64 [rounds]."""
    trained: Mapping[int, Any] = result.train_metrics_clientapp
    return np.array([trained[number][name] for number in sorted(trained)], np.float64)


def _read(result: Result, name: str) -> tuple[Any, Any, Any]:
    """Rounds in which an accuracy was read, the virtual time at their ends, and the accuracies; float64 [readings]."""
    read: Mapping[int, Any] = {n: one for n, one in result.evaluate_metrics_clientapp.items() if name in one}
    at, now_s = np.array(sorted(read), np.int64), np.cumsum(_series(result, "round_time_s"))
    return at, now_s[at - 1], np.array([read[number][name] for number in sorted(read)], np.float64)
