"""The two edges of the run, and the runs beside it: who is given what. Nothing here trains or draws."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from flwr.app import Message
from flwr.serverapp import Grid
from flwr.serverapp.strategy import FedAvg, Strategy

from flower_edge.errors import ConfigError
from flower_edge.rounds import Round
from flower_edge.runtime import Device, SteppedGrid, VirtualClock
from flower_edge.runtime.clock.devices import Work
from flower_edge.splitting import OptimiserSpec
from flower_edge.strategies import Hierarchical, Layered, Metered, SubModels
from flower_edge.strategies.hierarchy.cells import Cells, place_of
from flower_edge.strategies.pieces.pieces import Pieces
from flower_edge.strategies.provision.by_load import ByLoad
from flower_edge.strategies.provision.changing import ChangeSize
from flower_edge.strategies.provision.choosing import Decision, Terminal
from flower_edge.strategies.provision.model_list import ModelList
from flower_edge.submodels.catalogue import Catalogue
from flower_edge.submodels.mlp import mlp_groups
from flower_edge.submodels.step_times import StepTimes
from mixed_devices_app import devices, task
from mixed_devices_app.config import STREET, MixedDevices


@dataclass(frozen=True)
class Lasting:
    """What a choice gives a terminal first is its own for the run.

    The list then goes by what a terminal is; what else it has to do for some rounds, the terminal says itself.
    """

    choice: ByLoad

    def decide(
        self, catalogue: Catalogue, times: StepTimes, terminals: Mapping[str, Terminal]
    ) -> Mapping[str, Decision]:
        """The choice's for those who have nothing yet."""
        found = self.choice.decide(catalogue, times, terminals)
        return {
            key: Decision(one.before, "as in its first round") if one.before else found[key]
            for key, one in terminals.items()
        }

    def check(self, catalogue: Catalogue) -> None:
        """As the choice's."""
        self.choice.check(catalogue)


class Federation:
    """The run itself: ten terminals with models of their own size, and a hall that holds one in pieces.

    Attributes:
        street: gives each terminal its part of the model.
        hall: trains one in pieces.
        strategy: both, merged.
    """

    def __init__(self, config: MixedDevices) -> None:
        train = config.train
        listed = ModelList(
            task.models(config),
            Lasting(ByLoad(config.model.deadline_s, steps=train.steps)),
            batch=train.batch_size,
        )
        self.street = SubModels(
            _fedavg(), mlp_groups(task.sizes(config)), assign=listed.assign, sizes=task.RATES, scaler=False
        )
        self.hall = Pieces(
            task.architecture(config),
            pieces=config.hall.pieces,
            data="segments",
            segments=1,
            steps_per_round=config.hall.steps,
            batch_size=config.hall.batch_size,
            optimiser=OptimiserSpec(lr=train.learning_rate, options={"momentum": train.momentum}),
            seed=config.seed,
        )
        edges: dict[str, Strategy] = {
            "street": Layered(self.street, listed, Metered()),
            "hall": Layered(self.hall, Metered()),
        }
        self.strategy = Layered(Hierarchical(edge=edges.__getitem__, cells=two_edges, seed=config.seed), Metered())

    def stepped(self, config: MixedDevices, clock: VirtualClock) -> SteppedGrid:
        """The grid on which a terminal may change its model in mid-round."""
        return SteppedGrid(clock, config.train.steps_per_message, ChangeSize({"street": self.street}))


def virtual_clock(config: MixedDevices, grid: Grid, terminals: int) -> VirtualClock:
    """A clock by which each terminal takes as long as a device of its class does, under its load."""
    speeds = [Device(flops_per_s=devices.device(terminal).flops_per_s) for terminal in range(terminals)]
    return VirtualClock(grid, speeds, [devices.LINK] * terminals, seed=config.seed, work=work)


def work(sent: Message, reply: Message) -> Work:
    """What a reply cost its terminal: its FLOPs, and what the load took away meanwhile.

    A loaded processor is busy with somebody else's FLOPs for 1 / (1 - load) - 1 of its own.
    """
    told = {name: value for record in reply.content.metric_records.values() for name, value in record.items()}
    flops, load = told.get("flops", 0.0), told.get("load", 0.0)
    return Work(flops=flops / (1.0 - load)) if isinstance(flops, float) and isinstance(load, float) else Work()


def two_edges(grid: Grid, round: Round) -> dict[str, list[int]]:
    """The first ten terminals are the street's, the others the hall's."""
    found: dict[str, list[int]] = {"street": [], "hall": []}
    for node in grid.get_node_ids():
        found[devices.edge_of(number_of(grid, node))].append(node)
    return found


def whole_only(config: MixedDevices) -> Layered:
    """Stock FedAvg over those that have the memory to train the whole model."""
    need = 2 * task.models(config)["full"].train_bytes(config.train.batch_size)

    def able(grid: Grid, round: Round) -> dict[str, list[int]]:
        nodes = [node for node in grid.get_node_ids() if devices.device(number_of(grid, node)).memory_bytes >= need]
        return {"able": nodes}

    return _beside(config, able)


def everybody(config: MixedDevices) -> Layered:
    """Stock FedAvg over all terminals, for a model that all of them can train."""
    return _beside(config, lambda grid, round: {"all": list(grid.get_node_ids())})


def _beside(config: MixedDevices, cells: Cells) -> Layered:
    return Layered(Hierarchical(edge=lambda cell: _fedavg(), cells=cells, seed=config.seed), Metered())


def _fedavg() -> FedAvg:
    return FedAvg(fraction_train=1.0, fraction_evaluate=0.0, min_train_nodes=1, min_available_nodes=1)


def number_of(grid: Grid, node: int) -> int:
    """Which terminal a node is.

    Raises:
        ConfigError: it does not say.
    """
    place = place_of(grid, node)
    if place is None or place[1] < STREET:
        raise ConfigError(f"node {node} does not say which terminal it is; give it partition-id and num-partitions")
    return place[0]
