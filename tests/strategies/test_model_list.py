"""The layer `ModelList`: asks, learns, decides, tells why, and comes back from a checkpoint."""

from __future__ import annotations

import logging
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from flwr.app import ConfigRecord, Context, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp
from flwr.serverapp.strategy import FedAvg
from model_list_toy import MODELS, SIZES, SPEEDS, STEPS, app, clock_of, layered, seeded, whole
from toy import same_model

from flower_edge.clients.model_list import largest_within
from flower_edge.errors import ConfigError, NestingError
from flower_edge.grouping import by_value
from flower_edge.rounds import Round
from flower_edge.runtime.clock.devices import Link
from flower_edge.runtime.local_grid import LocalGrid
from flower_edge.runtime.model_list_messages import MODEL_LIST
from flower_edge.runtime.steps.messages import Renewed
from flower_edge.store.run_folder import RunFolder
from flower_edge.store.tree import tree_from_bytes, tree_to_bytes
from flower_edge.strategies import Hierarchical, Layered, Metered, SubModels, blocks
from flower_edge.strategies.layered import LayeredGrid
from flower_edge.strategies.provision.by_load import ByLoad
from flower_edge.strategies.provision.choosing import AsChosen, ByGroup
from flower_edge.strategies.provision.model_list import ModelList
from flower_edge.submodels.mlp import mlp_groups
from flower_edge.wire import arrays_of

NODES = len(SPEEDS)


def run(client: ClientApp, choice: Any, rounds: int = 3, load: Any = None, link: Any = None, **how: Any) -> Any:
    """A run of the five classes: the layered Grid of its session, the seconds of each round, the model."""
    strategy, _listed = layered(choice, **how)
    seeded()
    with LocalGrid(client, NODES) as local:
        clock = clock_of(local, load, link)
        inner, grid = strategy.session(clock)
        arrays, ends_s, given = whole(), [0.0], []
        for number in range(1, rounds + 1):
            grid.announced(Round(number))
            messages = list(inner.configure_train(number, arrays, ConfigRecord({"server-round": number}), grid))
            replies = list(grid.send_and_receive(messages))
            merged, _ = inner.aggregate_train(number, replies)
            assert merged is not None
            arrays = merged
            ends_s.append(clock.now_s)
            state = grid.states[0]
            given.append("".join(state.given[str(place)] for place in range(NODES)))
        return grid, list(np.diff(ends_s)), given, arrays


def test_five_classes_get_five_sizes_and_the_round_time_falls() -> None:
    grid, rounds_s, given, _ = run(app(), ByLoad("fastest"))
    assert given == ["abcde"] * 3
    everybody = AsChosen("a")
    _, whole_s, alike, _ = run(app(), everybody)
    assert alike == ["aaaaa"] * 3
    # The slowest class is 16 times slower, and has about a sixteenth of the model: rounds are as long as the fastest's.
    assert whole_s[0] == pytest.approx(16 * STEPS * 8 * MODELS["a"].train_flops / SPEEDS[0])
    assert rounds_s[0] < whole_s[0] / 12
    events = [event for event in grid.events() if event.what == "model-list"]
    assert [event.node for event in events] == ["0", "1", "2", "3", "4"]
    assert events[4].text.startswith("terminal 4 is given 'e': ")
    assert events[4].values["rate"] == 0.0625
    assert grid.metrics() == {f"given_{name}": 1 for name in "abcde"}


def test_what_was_never_measured_is_learned_from_the_first_round() -> None:
    # Nobody times anything: all begin with the smallest, and the clock tells how fast they were.
    _, rounds_s, given, _ = run(app(measured=False), ByLoad("fastest"))
    assert given == ["eeeee", "abcde", "abcde"]
    assert rounds_s[1] < 1.1 * 16 * rounds_s[0]


def test_who_says_it_is_faster_than_it_is_is_found_out() -> None:
    # All say they are ten times as fast: with 0.2 s a round all seem to have time for the whole model.
    limit_s = STEPS * 8 * MODELS["a"].train_flops / SPEEDS[0]
    _, rounds_s, given, _ = run(app(fast=10.0), ByLoad(1.01 * limit_s, steps=STEPS), rounds=12)
    assert given[0] == "aaaab"
    assert given[-1] == "abcde"
    assert rounds_s[-1] <= 1.05 * limit_s < rounds_s[0] / 4


def test_a_load_makes_the_model_smaller_while_it_lasts() -> None:
    begins_s, ends_s = 0.15, 0.8

    def load(number: int, time_s: float) -> float:
        return 0.75 if number == 0 and begins_s <= time_s < ends_s else 0.0

    limit_s = 1.2 * STEPS * 8 * MODELS["a"].train_flops / SPEEDS[0]
    grid, _, given, _ = run(app(load), ByLoad(limit_s, steps=STEPS), rounds=12, load=load, conditions=True)
    first = [names[0] for names in given]
    assert first[0] == "a"
    assert "c" in first
    assert first[-1] == "a"
    assert [names[1:] for names in given] == [given[0][1:]] * 12
    told = [event.text for event in grid.events() if event.node == "0"]
    assert any(text.startswith("terminal 0 is given 'c' instead of 'a': ") for text in told)
    assert any("would take" in text for text in told)


def test_a_slow_link_is_measured_and_counts() -> None:
    bits = 8 * MODELS["a"].state_bytes
    link = Link(up_bps=bits / 5.0, down_bps=bits / 5.0)
    _, rounds_s, given, _ = run(app(), ByLoad(6.0, steps=STEPS), link=link)
    # Two ways of the whole model take 10 s, and names and shapes some more, for a model as small as this.
    assert given[0][0] == "a"
    assert given[1][0] == "b"
    assert rounds_s[1] < 0.75 * rounds_s[0]


def test_each_terminal_has_what_it_chose() -> None:
    # As if each wanted steps of at most what the fastest needs for the whole model.
    limit_s = 1.01 * 8 * MODELS["a"].train_flops / SPEEDS[0]
    grid, _, given, _ = run(app(choose=largest_within(step_s=limit_s)), AsChosen("e"))
    assert given[0] == "abcde"
    assert "its own choice" in grid.events()[0].text


def test_each_group_has_its_size() -> None:
    choice = ByGroup(by_value("partition-id"), {"0": "a", "1": 0.5}, other="d")
    assert run(app(), choice)[2] == ["abddd"] * 3


def test_one_size_of_the_whole_model_for_all_is_the_strategy_alone_bit_for_bit() -> None:
    _, _, _, around = run(app(), AsChosen("a"))
    seeded()
    with LocalGrid(app(), NODES) as local:
        alone = Layered(FedAvg(fraction_evaluate=0.0)).start(clock_of(local), whole(), num_rounds=3).arrays
    assert same_model(alone, around)


def test_lies_are_refused_and_told(caplog: pytest.LogCaptureFixture) -> None:
    liar = app(listed=False)

    @liar.query(MODEL_LIST)
    def answer(message: Message, context: Context) -> Message:
        told = {"step-s.a": math.nan, "step-s.b": -1.0, "chosen": "everything", "load": 0.5}
        return Message(RecordDict({MODEL_LIST: ConfigRecord(told)}), reply_to=message)

    with caplog.at_level(logging.WARNING, logger="flwr.edge"):
        grid, _, given, _ = run(liar, AsChosen("d"), rounds=1)
    assert given == ["ddddd"]
    refused = [event.text for event in grid.events() if event.what == "refused" and event.node == "3"]
    assert len(refused) == 2
    assert any("it chose 'everything', and the list has a, b, c, d, e" in text for text in refused)
    assert "is not believed" in caplog.text


def test_who_does_not_know_the_question_is_given_something_all_the_same() -> None:
    assert run(app(listed=False), ByLoad("fastest"), rounds=2)[2] == ["eeeee", "abcde"]


def test_a_resumed_run_is_as_an_uninterrupted_one(tmp_path: Path) -> None:
    def start(rounds: int, **how: Any) -> Any:
        # They say they are faster than they are: what is known changes from round to round.
        strategy, _ = layered(ByLoad(0.3, steps=STEPS), every=2)
        seeded()
        with LocalGrid(app(fast=8.0), NODES) as local:
            clock = clock_of(local)
            return strategy.start(clock, whole(), num_rounds=rounds, **how).arrays, clock.now_s

    through = start(6)
    with RunFolder.create("test", config={}, seed=0, root=tmp_path) as folder:
        begun = start(3, run=folder)
        resumed = start(6, run=folder, resume=True)
    assert begun[1] < through[1]
    assert same_model(through[0], resumed[0])
    assert through[1] == resumed[1]


def test_the_state_goes_through_a_checkpoint_and_is_laid_out() -> None:
    grid, _, given, _ = run(app(), ByLoad("fastest"))
    saved = tree_from_bytes(tree_to_bytes(grid.state_dict()))
    _, listed = layered(ByLoad("fastest"))
    with LocalGrid(app(), NODES) as local:
        again = LayeredGrid(local, [listed])
        again.load_state_dict(saved)
    assert again.states[0] == grid.states[0]
    assert [listed.assign(4, str(place), {}) for place in range(NODES)] == [MODELS[name].size for name in given[-1]]


def test_what_is_known_of_a_terminal_goes_with_it() -> None:
    grid, *_ = run(app(), ByLoad("fastest"))
    state = grid.states[0]
    _, listed = layered(ByLoad("fastest"))
    node = next(node for node, key in state.keys.items() if key == "2")
    parcel, left = listed.hand_over(state, node)
    there = listed.take_over(listed.init(), node, tree_from_bytes(tree_to_bytes({"p": parcel}))["p"])
    assert "2" not in left.times.idle_s
    assert there.times.idle_s == {"2": state.times.idle_s["2"]}
    assert there.terminal("2", {}) == state.terminal("2", {})
    assert listed.hand_over(state, 77) == (None, state)


def test_it_works_at_the_edges_of_a_hierarchy() -> None:
    lists: list[ModelList] = []

    def edge(cell: str) -> Layered:
        strategy, listed = layered(AsChosen("c"))
        lists.append(listed)
        return strategy

    with LocalGrid(app(), NODES) as local:
        done = Hierarchical(edge, cells=blocks(2)).start(clock_of(local), whole(), num_rounds=1)
    assert not same_model(done.arrays, whole())
    assert arrays_of(done.arrays)["linear0.weight"].shape == (SIZES[1], SIZES[0])
    assert {listed.assign(1, "0", {}) for listed in lists[:1]} == {MODELS["c"].size}


def test_where_it_cannot_work_it_says_what_to_write() -> None:
    with pytest.raises(NestingError, match="ModelList around FedAvg"):
        Layered(FedAvg(), ModelList(MODELS, AsChosen("a")))
    listed = ModelList(MODELS, AsChosen("a"))
    alone = SubModels(FedAvg(fraction_evaluate=0.0), mlp_groups(SIZES), assign=listed.assign)
    with LocalGrid(app(), NODES) as local, pytest.raises(ConfigError, match="with one and the same `listed`"):
        alone.start(local, whole(), num_rounds=1)
    with pytest.raises(ConfigError, match="no variant 'z'"):
        ModelList(MODELS, AsChosen("z"))
    for how in ({"every": -1}, {"steps": -1}, {"batch": 0}, {"weight": 0.0}, {"budget_s": math.inf}):
        with pytest.raises(ConfigError):
            ModelList(MODELS, AsChosen("a"), **how)
    with pytest.raises(ConfigError, match="expected ByLoad"):
        ModelList(MODELS, 0.5)  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match="expected catalogue"):
        ModelList([1.0], AsChosen("a"))  # type: ignore[arg-type]
    Layered(alone, listed, Metered())


def test_a_round_on_two_sizes_or_of_another_round_tells_the_speed_of_neither() -> None:
    listed = ModelList(MODELS, ByLoad())
    state = replace(listed.init(), keys={1000: "0"}, sent={"0": "a"}, virtual_s=0.0)
    with LocalGrid(app(), 1):
        asked = Message(RecordDict(), 1000, "train")

    def reply(steps: int, **records: ConfigRecord) -> Message:
        metrics = {"metrics": MetricRecord({"steps": steps, "num-examples": 8})}
        return Message(
            RecordDict({**metrics, **{f"flower-edge.{k}": one for k, one in records.items()}}), reply_to=asked
        )

    first, second = reply(3), reply(6, renewed=Renewed(1, 3).to_record())
    late = reply(9, late=ConfigRecord({"base-round": 1, "cell": "", "steps": 9}))
    _, plain = listed.inbound(state, Round(1), [first])
    assert (dict(plain.untimed), plain.steps["0"]) == ({"0": 1000}, 3.0)
    _, changed = listed.inbound(state, Round(1), [first, second])
    assert (dict(changed.untimed), changed.steps["0"]) == ({}, 9.0)
    _, same = listed.inbound(state, Round(1), [late])
    assert (dict(same.untimed), dict(same.steps)) == ({}, {})
    # Without a virtual clock the first part's own seconds are its own, and the second's are not believed to be.
    told = [reply(3), reply(6, renewed=Renewed(1, 3).to_record()), late]
    for one in told:
        one.content["metrics"]["train_s"] = 6.0  # type: ignore[index, call-overload]
    _, timed = listed.inbound(replace(state, virtual_s=None), Round(1), told)
    assert timed.times.idle_s == {"0": {"a": 2.0}}
