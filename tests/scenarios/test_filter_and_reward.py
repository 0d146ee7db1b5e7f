"""The filter-and-reward scenario, as its users run it: in process, and through a real `flwr run`."""

from __future__ import annotations

import csv
from decimal import Decimal
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scenario_run import declared, run_in_process

from flower_edge.errors import ConfigError
from flower_edge.runtime.launching.launcher import launch
from flower_edge.store import RunFolder
from flower_edge.store.reward_book import RewardBook

APP = Path(__file__).parents[2] / "scenarios" / "filter_and_reward"
#: Small enough for every commit; the same keys for both grids.
SHORT = {"num-server-rounds": 2, "compare.runs": ""}
NOBODY = {f"faults.{name}": "" for name in ("label-flip", "noise", "nan", "free-rider", "inflated", "stale", "edges")}
FAULTY = {"1", "3", "5", "8", "11", "13", *map(str, range(15, 20))}

pytest.importorskip("sklearn", reason="the scenario's default data come with scikit-learn")
pytest.importorskip("matplotlib", reason="the scenario draws pictures")


def in_process(folder: Path, monkeypatch: pytest.MonkeyPatch, config: dict[str, Any]) -> RunFolder:
    return run_in_process(APP, 20, folder, monkeypatch, {**SHORT, **config})


def accuracies(run: RunFolder) -> list[float]:
    return [float(row.values["accuracy"]) for row in run.rows("central")]


def refused(run: RunFolder) -> set[tuple[str, int, str]]:
    """Node, round and code of everything that was refused."""
    return {
        (row.node, row.round, str(row.values["code"]))
        for row in run.rows("event")
        if row.values.get("what") == "refused"
    }


def paid(run: RunFolder) -> dict[tuple[str, str], int]:
    """Micro-credits by payer and node."""
    book = RewardBook(run.path / "rewards.sqlite")
    found: dict[tuple[str, str], int] = {}
    for entry in book.entries():
        if entry.node:
            found[entry.payer, entry.node] = found.get((entry.payer, entry.node), 0) + entry.micro
    book.close()
    return found


def lines(run: RunFolder, name: str) -> list[dict[str, str]]:
    with (run.artifacts / name).open(encoding="utf-8") as file:
        return list(csv.DictReader(file))


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> RunFolder:
    with pytest.MonkeyPatch.context() as monkeypatch:
        return in_process(
            tmp_path_factory.mktemp("filter"), monkeypatch, {"num-server-rounds": 3, "compare.runs": "none"}
        )


def test_the_config_in_pyproject_is_the_one_the_model_declares(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(APP))
    from filter_reward_app.config import FilterAndReward

    from flower_edge.config import known_keys, read_config

    assert set(known_keys(FilterAndReward)) == set(declared(APP))
    assert read_config(FilterAndReward, declared(APP)) == FilterAndReward()
    assert FilterAndReward().beside == ["gate", "none", "honest"]
    quick = FilterAndReward(quick=True)
    assert (quick.rounds, quick.beside) == (3, [])


def test_the_gate_refuses_what_cannot_be_merged_and_the_centre_the_faulty_edge(finished: RunFolder) -> None:
    assert finished.status == "finished"
    found = refused(finished)
    for number in (1, 2, 3):
        assert ("5", number, "not-finite") in found
        assert ("11", number, "num-examples") in found
    assert {("13", 2, "replayed"), ("13", 3, "replayed")} <= found
    # In the first rounds little has been learned yet that a wrong edge could spoil.
    assert {code for node, at, code in found if (node, at) == ("edge-3", 3)}
    assert not {code for node, at, code in found if (node, at) == ("13", 1)}
    # The faulty edge's own filter has a held-out set as wrong as its terminals: it sees nothing.
    assert not {node for node, _, _ in found} & set(map(str, range(15, 20)))


def test_what_is_refused_earns_nothing_and_the_centre_pays_no_terminal_of_the_faulty_edge(finished: RunFolder) -> None:
    found = paid(finished)
    by_centre = {node: micro for (payer, node), micro in found.items() if payer == "centre"}
    assert not any(by_centre.get(str(terminal), 0) for terminal in range(15, 20))
    assert not any(micro for (_, node), micro in found.items() if node in ("5", "11"))
    assert sum(found.values()) == round(float(finished.summary["credits paid"]) * 1e6)
    # The stale terminal's first model is a good one.
    earned = sum(micro for node, micro in by_centre.items() if node not in FAULTY or node == "13")
    assert earned > 0.95 * sum(by_centre.values()) > 0


def test_the_book_verifies_and_what_was_paid_and_carried_is_the_budget(finished: RunFolder) -> None:
    book = RewardBook(finished.path / "rewards.sqlite")
    assert book.verify().ok
    settled = list(book.settlements())
    book.close()
    assert {(one.payer, one.round) for one in settled} == {
        (payer, number) for payer in ("centre", *(f"edge-{k}" for k in range(4))) for number in (1, 2, 3)
    }
    for one in settled:
        assert one.paid + one.carried == one.pot
    for payer, credits in (("centre", 40), ("edge-0", 10)):
        own = [one for one in settled if one.payer == payer]
        assert sum(one.paid for one in own) + own[-1].carried == 3 * credits * 1_000_000


def test_the_statement_tells_each_terminals_amount_in_money(finished: RunFolder) -> None:
    told = lines(finished, "statement.csv")
    total: dict[str, int] = {}
    for (_, node), micro in paid(finished).items():
        total[node] = total.get(node, 0) + micro
    assert [line["terminal"] for line in told] == [str(terminal) for terminal in range(20)]
    for line in told:
        micro = total.get(line["terminal"], 0)
        assert int(line["micro-credits"]) == micro
        assert Decimal(line["amount"]) == Decimal(micro * 5 // 1_000_000) / 100
        assert line["currency"] == "EUR"


def test_pictures_have_tables_and_show_the_run_beside_it(finished: RunFolder) -> None:
    names = {path.name for path in finished.artifacts.iterdir()}
    for name in ("accuracy-with-and-without", "refused-by-node-and-round", "credits-and-usefulness"):
        assert {f"{name}.png", f"{name}.csv"} <= names
    scores = lines(finished, "accuracy-with-and-without.csv")
    assert [line["gate, filter and rewards"] for line in scores] == [f"{x:.4f}" for x in accuracies(finished)]
    # One terminal that sends NaN, and stock FedAvg has nothing left.
    assert float(scores[3]["stock FedAvg"]) < 0.15 < float(scores[3]["gate, filter and rewards"])
    told = lines(finished, "credits-and-usefulness.csv")
    assert {line["terminal"] for line in told if line["fault"] != "-"} == FAULTY
    assert all((int(line["useful examples"]) > 0) == (line["fault"] in ("-", "stale")) for line in told)


def test_where_nobody_is_faulty_the_gate_refuses_nobody_and_the_model_is_that_of_stock_fedavg(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    quiet = {**NOBODY, "pictures": False}
    guarded = in_process(tmp_path / "gate", monkeypatch, {**quiet, "layers": "gate"})
    stock = in_process(tmp_path / "none", monkeypatch, {**quiet, "layers": "none"})
    assert refused(guarded) == set()
    assert accuracies(guarded) == accuracies(stock)
    assert paid(guarded) == {}


def test_a_run_that_was_taken_up_again_ends_as_if_it_had_never_stopped_and_pays_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = in_process(tmp_path / "whole", monkeypatch, {"num-server-rounds": 3, "pictures": False})
    first = in_process(tmp_path / "first", monkeypatch, {"pictures": False})
    monkeypatch.setenv("FLOWER_EDGE_RESUME", str(first.path))
    resumed = in_process(tmp_path / "resumed", monkeypatch, {"num-server-rounds": 3, "pictures": False})
    assert accuracies(resumed) == accuracies(whole)
    assert paid(resumed) == paid(whole)


def test_keys_that_cannot_be_are_refused_before_anything_is_sent(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for keys, says in (
        ({"faults.noise": "3 x"}, r"faults\.noise = '3 x'"),
        ({"faults.noise": "20"}, r"faults name terminal 20; terminals go from 0 to 19"),
        ({"faults.noise": "1"}, r"terminal 1 is in faults\.label-flip and faults\.noise"),
        ({"faults.edges": "4"}, r"faults\.edges names edge 4"),
        ({"compare.runs": "gate guess"}, r"no run 'guess'"),
        ({"rewards.price": "cheap"}, r"price_per_credit='cheap'"),
    ):
        with pytest.raises(ConfigError, match=says):
            in_process(tmp_path, monkeypatch, keys)
    assert not list(tmp_path.glob("*/metrics.jsonl"))


@pytest.mark.slow
@pytest.mark.flwr
@pytest.mark.ray
def test_flwr_run_gives_the_refusals_accuracies_and_credits_of_local_grid(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    said: list[str] = []
    keys = {**SHORT, "pictures": False}
    result = launch(APP, run_config=keys, runs=tmp_path / "ray", on_line=said.append, timeout_s=400)
    assert (result.status, result.exit_code) == ("completed", 0), "\n".join(said[-30:])
    assert result.run_folder is not None
    through_ray = RunFolder.open(result.run_folder)
    here = in_process(tmp_path / "local", monkeypatch, {"pictures": False})
    assert refused(through_ray) == refused(here)
    np.testing.assert_allclose(accuracies(through_ray), accuracies(here), rtol=1e-5)
    for key, micro in paid(here).items():
        assert paid(through_ray)[key] == pytest.approx(micro, rel=1e-3, abs=1000)
