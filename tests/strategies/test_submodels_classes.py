"""`SubModels(class_rows=...)`: rows of the last layer are merged over the terminals that tell their class."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from flwr.app import ConfigRecord, Context, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp
from flwr.serverapp.strategy import FedAdam, FedAvg
from submodel_toy import GROUPS, SIZES, numbers, run, whole
from toy import same_model

from flower_edge.clients.submodel import submodel, with_classes
from flower_edge.errors import ConfigError, DataError, ResumeError
from flower_edge.models import NumpyMLP
from flower_edge.strategies.provision.sub_models import SubModels
from flower_edge.submodels.classes import CLASSES_RECORD
from flower_edge.wire import record_of

ROWS = ("linear1.weight", "linear1.bias")
OWN = ([0], [0, 1], [1, 2], [2])
RATES = {"0": 1.0, "1": 0.5, "2": 0.25, "3": 1.0}


def adding(told: Any = OWN) -> ClientApp:
    """Node n adds n + 1 to every number of what it is sent, and tells its classes where it has some."""
    client = ClientApp()

    @client.train()
    def train(message: Message, context: Context) -> Message:
        number = int(context.node_config["partition-id"])
        model = submodel(message, NumpyMLP(SIZES))
        arrays = {name: array + np.float32(number + 1) for name, array in model.arrays().items()}
        content = RecordDict({"arrays": record_of(arrays), "metrics": MetricRecord({"num-examples": 10})})
        mine = None if told is None else told[number]
        if isinstance(mine, dict):
            content[CLASSES_RECORD] = ConfigRecord(mine)
        elif mine is not None:
            content = with_classes(content, np.array(mine, np.int64))
        return Message(content, reply_to=message)

    return client


def moved(strategy: SubModels, client: ClientApp) -> dict[str, np.ndarray]:
    begun, found = numbers(whole()), numbers(run(strategy, rounds=1, client=client).arrays)
    return {name: found[name] - begun[name] for name in begun}


def test_a_row_moves_by_the_mean_of_those_that_have_its_class() -> None:
    found = moved(SubModels(FedAvg(fraction_evaluate=0.0), GROUPS, assign=1.0, class_rows=ROWS), adding())
    np.testing.assert_allclose(found["linear1.bias"], [1.5, 2.5, 3.5], rtol=1e-5)
    np.testing.assert_allclose(found["linear1.weight"], np.broadcast_to([[1.5], [2.5], [3.5]], (3, 8)), rtol=1e-5)
    np.testing.assert_allclose(found["linear0.bias"], 2.5, rtol=1e-5)


def test_widths_and_classes_together_are_over_those_that_hold_both() -> None:
    found = moved(SubModels(FedAvg(fraction_evaluate=0.0), GROUPS, assign=RATES, class_rows=ROWS), adding())
    columns = found["linear1.weight"]
    np.testing.assert_allclose(columns[:, 0], [1.5, 2.5, 3.5], rtol=1e-5)
    np.testing.assert_allclose(columns[:, 3], [1.5, 2.0, 4.0], rtol=1e-5)
    np.testing.assert_allclose(columns[:, 7], [1.0, 0.0, 4.0], rtol=1e-5, atol=1e-6)


def test_who_tells_nothing_has_a_say_in_every_row() -> None:
    strategy = SubModels(FedAvg(fraction_evaluate=0.0), GROUPS, assign=1.0, class_rows=ROWS)
    found = moved(strategy, adding([None, [0], None, [2]]))
    np.testing.assert_allclose(found["linear1.bias"], [2.0, 2.0, 8 / 3], rtol=1e-5)


@pytest.mark.parametrize("told", [None, [[0, 1, 2]] * 4])
def test_nobody_tells_or_all_have_all_classes_is_the_strategy_alone_bit_for_bit(told: Any) -> None:
    alone = run(FedAdam(eta=0.05, fraction_evaluate=0.0), client=adding(told))
    around = run(
        SubModels(FedAdam(eta=0.05, fraction_evaluate=0.0), GROUPS, assign=1.0, class_rows=ROWS), client=adding(told)
    )
    assert same_model(alone.arrays, around.arrays)


def test_classes_that_nobody_asked_for_change_nothing() -> None:
    plain = moved(SubModels(FedAvg(fraction_evaluate=0.0), GROUPS, assign=RATES), adding(None))
    told = moved(SubModels(FedAvg(fraction_evaluate=0.0), GROUPS, assign=RATES), adding())
    assert all(np.array_equal(plain[name], told[name]) for name in plain)


def test_nonsense_is_left_out_and_the_round_goes_on() -> None:
    strategy = SubModels(FedAvg(fraction_evaluate=0.0), GROUPS, assign=1.0, class_rows=ROWS)
    found = moved(strategy, adding([{"classes": [0, 3]}, [0, 1, 2], {"of": "mine"}, [0, 1, 2]]))
    np.testing.assert_allclose(found["linear1.bias"], 3.0, rtol=1e-5)
    refused = sorted((event for event in strategy.events() if event.what == "refused"), key=lambda event: event.node)
    assert [(event.node, event.values["code"]) for event in refused] == [("0", "classes"), ("2", "classes")]
    assert "from 0 to 2" in refused[0].text


@pytest.mark.parametrize("names", ["linear1.bias", ("b", "b"), (1,)])
def test_what_are_no_names_is_refused(names: Any) -> None:
    with pytest.raises(ConfigError, match="names of arrays with a row per class"):
        SubModels(FedAvg(), GROUPS, assign=1.0, class_rows=names)


@pytest.mark.parametrize(
    ("names", "wanted"), [(("linear9.bias",), "'linear9.bias', and the model has"), (("linear0.bias", *ROWS), "rows")]
)
def test_arrays_that_have_no_row_per_class_are_refused_before_anything_is_sent(
    names: tuple[str, ...], wanted: str
) -> None:
    with pytest.raises(ConfigError, match=wanted):
        run(SubModels(FedAvg(), GROUPS, assign=1.0, class_rows=names), client=adding())


def test_a_checkpoint_of_other_rows_is_refused() -> None:
    saved = SubModels(FedAvg(), GROUPS, assign=1.0, class_rows=ROWS).state_dict()
    SubModels(FedAvg(), GROUPS, assign=1.0, class_rows=ROWS).load_state_dict(saved)
    with pytest.raises(ResumeError, match="class_rows"):
        SubModels(FedAvg(), GROUPS, assign=1.0).load_state_dict(saved)


def test_targets_that_are_no_classes_are_refused_where_they_are_told() -> None:
    for wrong in (np.array([0.5]), np.array([-1])):
        with pytest.raises(DataError, match="whole numbers from 0 on"):
            with_classes(RecordDict(), wrong)
