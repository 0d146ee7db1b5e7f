"""LocalGrid inside a ClientApp, and the process-global task identity it must leave as it found it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from flwr.app import Context, Message, RecordDict
from flwr.clientapp import ClientApp
from flwr.supercore.task_identity import TaskIdentity
from local_grid_apps import ask, counting_app, nesting_app, nesting_threads_app, numbers

from flower_edge.runtime.local_grid import LocalGrid

FIRST = LocalGrid.FIRST_NODE_ID


def identity() -> tuple[Any, Any, Any]:
    return TaskIdentity._task_id, TaskIdentity._run_id, TaskIdentity._node_id


def set_identity(values: tuple[Any, Any, Any]) -> None:
    TaskIdentity._task_id, TaskIdentity._run_id, TaskIdentity._node_id = values


@pytest.fixture(autouse=True)
def _unset() -> Iterator[None]:
    before = identity()
    set_identity((None, None, None))
    yield
    set_identity(before)


@pytest.mark.parametrize("inner", [nesting_app, nesting_threads_app], ids=["in-sequential", "in-threads"])
@pytest.mark.parametrize("outer", ["sequential", "threads", "processes"])
def test_an_edge_that_runs_a_grid_of_its_own_works_in_every_pool_and_the_identity_is_unset_again(
    outer: Any, inner: Any
) -> None:
    with LocalGrid(inner, 3, pool=outer) as grid:
        for _ in range(2):
            assert numbers(ask(grid), "total") == [3, 3, 3]
    assert identity() == (None, None, None)


def test_an_identity_somebody_else_has_set_is_used_and_left_alone() -> None:
    set_identity((11, 22, 33))
    with LocalGrid(nesting_app, 2) as grid:
        assert numbers(ask(grid), "total") == [3, 3]
        assert identity() == (11, 22, 33)
    assert identity() == (11, 22, 33)


def test_a_client_that_changes_the_identity_changes_it_for_nobody_else() -> None:
    app = ClientApp()

    @app.query()
    def query(message: Message, context: Context) -> Message:
        set_identity((7, 7, 7))
        return Message(RecordDict(), reply_to=message)

    with LocalGrid(app, 1) as grid:
        before = identity()
        ask(grid)
        assert identity() == before


@pytest.mark.parametrize("first_closed", [0, 1])
def test_two_grids_at_the_same_time_share_the_identity_until_the_last_is_closed(first_closed: int) -> None:
    grids = [LocalGrid(counting_app, 2, run_id=1), LocalGrid(counting_app, 2, run_id=2)]
    grids[first_closed].close()
    other = grids[1 - first_closed]
    replies = ask(other)
    assert numbers(replies, "count") == [1, 1]
    assert {reply.metadata.run_id for reply in replies} == {other.run.run_id}
    other.close()
    assert identity() == (None, None, None)


def test_a_grid_that_is_closed_and_entered_again_works_again() -> None:
    grid = LocalGrid(counting_app, 1)
    grid.close()
    with pytest.raises(RuntimeError, match="not set"):
        Message(RecordDict(), FIRST, "query")
    with grid:
        assert numbers(ask(grid), "count") == [1]
    assert identity() == (None, None, None)
