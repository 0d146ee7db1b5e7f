"""Four edges and a centre: the run with all protection, the same with less, and what came of it."""

from __future__ import annotations

import os
import shutil
from collections.abc import Mapping, Sequence
from logging import getLogger

import numpy as np
from flwr.app import ArrayRecord, ConfigRecord, Context, MetricRecord
from flwr.serverapp import Grid, ServerApp

from filter_reward_app import accounts, pictures, protection, task
from filter_reward_app.accounts import Account, Refused
from filter_reward_app.config import FilterAndReward, RunName
from flower_edge.config import read_config
from flower_edge.data import plot_partition
from flower_edge.models import get_arrays
from flower_edge.rewards.credits import MICRO_PER_CREDIT
from flower_edge.rewards.tariff import Tariff
from flower_edge.runtime import GridProxy, expected_nodes
from flower_edge.store import RunFolder
from flower_edge.store.reward_book import RewardBook
from flower_edge.wire import arrays_of, record_of

app = ServerApp()
# A child of Flower's own logger: what it says appears where Flower's lines do.
log = getLogger("flwr.filter_and_reward")

#: The book's file, where `flower-edge rewards` looks for it, and the run's name in it, which outlives a resume.
BOOK, NAME = "rewards.sqlite", "filter-and-reward"


@app.main()
def main(grid: Grid, context: Context) -> None:
    """Train, compare, pay, draw, and leave a run folder behind."""
    config = read_config(FilterAndReward, context.run_config)
    terminals = expected_nodes(grid)
    config.check(terminals)
    beside, tariff = config.beside, _tariff(config)
    with RunFolder.create(NAME, config=config.model_dump(by_alias=True), seed=config.seed) as run:
        earlier = os.environ.get("FLOWER_EDGE_RESUME")
        if earlier:
            before = RunFolder.open(earlier)
            run.continue_from(before)
            _bring_along(before, run)
        accuracy: dict[str, list[float]] = {}
        book = RewardBook(run.path / BOOK)
        try:
            with GridProxy(grid, expected_nodes=terminals, seed=config.seed) as proxy:
                accuracy[config.layers] = _train(
                    config, config.layers, terminals, proxy, run, book, resume=bool(earlier)
                )
                for name in beside:
                    log.info("Once more: %s", pictures.RUNS[name])
                    root = run.artifacts / "beside"
                    with RunFolder.create(name, config={"layers": name}, seed=config.seed, root=root) as other:
                        accuracy[name] = _train(config, name, terminals, proxy, other, None)
                        other.finish({})
            refused = accounts.refusals(run)
            paid = [(entry.payer, entry.node, entry.micro) for entry in book.entries()]
        finally:
            book.close()
        found = accounts.accounts(config, terminals, refused, paid)
        accounts.write(_statement(tariff, found), run.artifacts / "statement.csv")
        if config.pictures:
            pictures.draw_accuracy(accuracy, run.artifacts)
            pictures.draw_refused(config, terminals, refused, run.artifacts)
            pictures.draw_credits(found, run.artifacts)
            plot_partition(
                task.partition(config, terminals), task.data(config).train.labels, run.artifacts / "data.png"
            )
        summary = _summary(config, terminals, accuracy, refused, found)
        _tell(config, accuracy, summary)
        run.finish(summary)


def _bring_along(earlier: RunFolder, run: RunFolder) -> None:
    """The book of a run that is taken up again, with what its last writer had not yet moved into the file."""
    for path in sorted(earlier.path.glob(f"{BOOK}*")):
        shutil.copy(path, run.path / path.name)


def _train(
    config: FilterAndReward,
    name: RunName,
    terminals: int,
    grid: Grid,
    run: RunFolder,
    book: RewardBook | None,
    *,
    resume: bool = False,
) -> list[float]:
    """The accuracy before the first round and after each."""
    protection.strategy(config, name, terminals, book, NAME).start(
        grid,
        initial_arrays=record_of(get_arrays(task.model(config))),
        num_rounds=config.rounds,
        timeout=config.round_timeout_s,
        train_config=ConfigRecord({"faults": name != "honest", "run": name}),
        evaluate_fn=lambda number, arrays: _evaluate(config, arrays),
        run=run,
        resume=resume,
    )
    scores = {row.round: float(row.values["accuracy"]) for row in run.rows("central")}
    return [scores[number] for number in sorted(scores)]


def _evaluate(config: FilterAndReward, arrays: ArrayRecord) -> MetricRecord:
    found = protection.evaluation(config, task.data(config).test)(arrays_of(arrays))
    loss = {"loss": found.loss} if np.isfinite(found.loss) else {}
    return MetricRecord({"accuracy": found.accuracy, **loss})


def _tariff(config: FilterAndReward) -> Tariff:
    rewards = config.rewards
    return Tariff(rewards.currency, rewards.price, rewards.rounding, rewards.places)


def _statement(tariff: Tariff, found: Sequence[Account]) -> tuple[list[str], list[list[str]]]:
    """What each terminal is owed; an amount is rounded once, of the whole run."""
    lines = [
        [str(one.terminal), f"edge-{one.edge}", str(one.micro), str(tariff.amount(one.micro)), tariff.currency]
        for one in found
    ]
    return ["terminal", "edge", "micro-credits", "amount", "currency"], lines


def _summary(
    config: FilterAndReward,
    terminals: int,
    accuracy: Mapping[str, Sequence[float]],
    refused: Sequence[Refused],
    found: Sequence[Account],
) -> dict[str, float]:
    faulty = {one.node for one in refused if accounts.fault_of(config, one.node, terminals)}
    useful = [one.useful for one in found]
    return {
        "accuracy": accuracy[config.layers][-1],
        "rounds": config.rounds,
        **{f"accuracy, {pictures.RUNS[name]}": scores[-1] for name, scores in accuracy.items()},
        "refused": len(refused),
        "refused of the faulty": sum(one.node in faulty for one in refused),
        "refused of the honest": sum(one.node not in faulty for one in refused),
        "credits paid": sum(one.micro for one in found) / MICRO_PER_CREDIT,
        "rank correlation, all credits": accounts.rank_correlation([one.micro for one in found], useful),
        "rank correlation, the centre's": accounts.rank_correlation([one.centre_micro for one in found], useful),
    }


def _tell(config: FilterAndReward, accuracy: Mapping[str, Sequence[float]], summary: Mapping[str, float]) -> None:
    for name, scores in accuracy.items():
        log.info("%s: accuracy %.3f after %d rounds", pictures.RUNS[name], scores[-1], config.rounds)
    log.info(
        "refused: %d replies of the faulty, %d of the honest",
        summary["refused of the faulty"],
        summary["refused of the honest"],
    )
    log.info(
        "paid: %.6f credits; Spearman's correlation with useful examples: %.2f, the centre's credits alone %.2f",
        summary["credits paid"],
        summary["rank correlation, all credits"],
        summary["rank correlation, the centre's"],
    )
