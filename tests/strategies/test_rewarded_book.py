"""The layer and its book agree, also where a run stopped between the two."""

from __future__ import annotations

import random
from pathlib import Path

import pytest
from flwr.app import ArrayRecord, Message
from flwr.serverapp.strategy import Result
from paying import POT, credits_of, fedavg, rewarded, session_of
from toy import initial_model, same_model, toy_app

from flower_edge.errors import RewardError
from flower_edge.rewards.budget import Budget
from flower_edge.rounds import Round
from flower_edge.runtime.local_grid import LocalGrid
from flower_edge.store.reward_book import RewardBook
from flower_edge.store.run_folder import RunFolder
from flower_edge.strategies import Layer, Layered


def test_the_book_has_what_the_layer_has_paid(tmp_path: Path) -> None:
    path = tmp_path / "rewards.sqlite"
    grid, told, _ = session_of(rewarded(book=path, run="demo"), rounds=3)
    with RewardBook(path) as book:
        assert book.balances() == credits_of(told)
        assert sum(book.balances().values()) == grid.metrics()["paid_micro"]
        assert [(one.payer, one.kind, one.round) for one in book.settlements()] == [
            ("server", "training", number) for number in (1, 2, 3)
        ]
        assert book.verify().ok


def test_an_open_book_can_be_handed_in_and_stays_open(tmp_path: Path) -> None:
    with RewardBook(tmp_path / "rewards.sqlite") as book:
        session_of(rewarded(book=book, run="demo", payer="me"), rounds=2)
        assert sum(book.balances().values()) == 2 * POT
        assert {one.payer for one in book.settlements()} == {"me"}


def test_a_run_that_stopped_between_the_book_and_its_checkpoint_pays_once(tmp_path: Path) -> None:
    path = tmp_path / "rewards.sqlite"

    class Stops(Exception):
        """The machine goes away."""

    class GoesAway(Layer[int]):
        """After the third merge, and so after the third settlement, there is no checkpoint any more."""

        def __init__(self, at: int) -> None:
            self.at = at

        def init(self) -> int:
            return 0

        def merged(self, state: int, round: Round, before: ArrayRecord, after: ArrayRecord) -> tuple[ArrayRecord, int]:
            if round.cloud == self.at:
                raise Stops
            return after, state

    def start(at: int, folder: RunFolder, book: Path, *, resume: bool = False) -> Result:
        random.seed(2)
        layered = Layered(fedavg(), rewarded(book=book, run="demo"), GoesAway(at))
        with LocalGrid(toy_app(), 4) as grid:
            return layered.start(grid, initial_model(), num_rounds=5, run=folder, resume=resume)

    with RunFolder.create("whole", config={}, seed=1, root=tmp_path) as folder:
        whole = start(99, folder, tmp_path / "whole.sqlite")
    with RunFolder.create("stopped", config={}, seed=1, root=tmp_path) as folder:
        with pytest.raises(Stops):
            start(3, folder, path)
        with RewardBook(path) as book:
            assert len(list(book.settlements())) == 3
        resumed = start(99, folder, path, resume=True)
    assert same_model(whole.arrays, resumed.arrays)
    with RewardBook(path) as book, RewardBook(tmp_path / "whole.sqlite") as other:
        assert book.balances() == other.balances()
        assert sum(book.balances().values()) == 5 * POT
        assert book.verify().ok


def test_a_book_that_was_moved_away_in_the_middle_of_a_run_stops_it(tmp_path: Path) -> None:
    path = tmp_path / "rewards.sqlite"

    class Moves(Layer[None]):
        """The operator tidies up after the second round."""

        def inbound(self, state: None, round: Round, replies: list[Message]) -> tuple[list[Message], None]:
            if round.cloud == 3 and round.kind == "train":
                path.rename(tmp_path / "old.sqlite")
            return replies, state

    with pytest.raises(RewardError, match=r"is empty, and run 'demo' has paid 2000000 .* put it back, and resume"):
        session_of(rewarded(book=path, run="demo"), Moves(), rounds=3)


@pytest.mark.parametrize(("run", "payer"), [("a\0", ""), ("a", "\ud800")])
def test_names_that_no_book_can_hold_are_refused_before_the_run(run: str, payer: str) -> None:
    with pytest.raises(RewardError, match="no zero bytes"):
        rewarded(run=run, payer=payer)


def test_what_stands_in_the_book_is_taken_and_nothing_is_measured_again(tmp_path: Path) -> None:
    path = tmp_path / "rewards.sqlite"
    _, first, _ = session_of(rewarded(book=path, run="demo"), rounds=2)
    grid, again, _ = session_of(rewarded(book=path, run="demo", budget=Budget(5)), rounds=2)
    assert credits_of(first) == credits_of(again)
    assert grid.metrics() == {"paid_micro": 2 * POT, "carried_micro": 0, "contribution_evaluations": 0}
    with RewardBook(path) as book:
        assert sum(book.balances().values()) == 2 * POT
