"""Every Grid and every proxy of ours obeys the laws of a Grid, alone and around one another."""

from __future__ import annotations

from flwr.clientapp import ClientApp
from flwr.serverapp import Grid
from laws.grid_laws import NODES, GridLaws

from flower_edge.clients import answer_properties
from flower_edge.runtime import Device, GridProxy, Link, LocalGrid, NarrowedGrid, SteppedGrid, VirtualClock, WrappedGrid
from flower_edge.runtime.wrapped_grid import find
from flower_edge.strategies import Identity, LayeredGrid, Metered


def clocked(grid: Grid) -> VirtualClock:
    """The first node is the slowest, so that replies arrive in another order than they were asked for."""
    return VirtualClock(grid, [Device(fixed_s=float(NODES - i)) for i in range(NODES)], [Link(1e6, 1e6)] * NODES)


class ClockedLaws(GridLaws):
    """Virtual time moves only when it is told to."""

    def wait(self, grid: Grid) -> None:
        clock = find(grid, VirtualClock)
        assert clock is not None
        clock.advance_to_next()


class TestLocalGrid(GridLaws):
    def make(self, app: ClientApp, nodes: int) -> Grid:
        return LocalGrid(app, nodes)


class TestLocalGridThatSerialises(GridLaws):
    def make(self, app: ClientApp, nodes: int) -> Grid:
        return LocalGrid(app, nodes, serialise=True)


class TestWrappedGrid(GridLaws):
    def make(self, app: ClientApp, nodes: int) -> Grid:
        return WrappedGrid(LocalGrid(app, nodes))


class TestNarrowedGridThatShowsAll(GridLaws):
    def make(self, app: ClientApp, nodes: int) -> Grid:
        local = LocalGrid(app, nodes)
        return NarrowedGrid(local, local.get_node_ids())


class TestLayeredGrid(GridLaws):
    def make(self, app: ClientApp, nodes: int) -> Grid:
        return LayeredGrid(LocalGrid(app, nodes), [Identity(), Metered()])


class TestGridProxy(GridLaws):
    def make(self, app: ClientApp, nodes: int) -> Grid:
        return GridProxy(LocalGrid(answer_properties(app), nodes))


class TestVirtualClock(ClockedLaws):
    def make(self, app: ClientApp, nodes: int) -> Grid:
        return clocked(LocalGrid(app, nodes))


class TestSteppedGrid(GridLaws):
    def make(self, app: ClientApp, nodes: int) -> Grid:
        return SteppedGrid(LocalGrid(app, nodes), 5)


class TestAllOfThemAroundOneAnother(ClockedLaws):
    def make(self, app: ClientApp, nodes: int) -> Grid:
        inner = clocked(LocalGrid(answer_properties(app), nodes))
        return LayeredGrid(SteppedGrid(inner, 5), [Metered()])
