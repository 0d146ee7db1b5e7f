"""Settings, tasks and fleets say what is wrong with what they are given."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from compression_cases import LINKS, MACHINES, modelled, settings, task
from torch import nn

from flower_edge.errors import ConfigError, FringeError
from flower_edge.fringe import Link
from flower_edge.runtime.compression.fleets import Modelled, RunningStages, links_between
from flower_edge.runtime.compression.local_stages import LocalStages
from flower_edge.runtime.compression.settings import CompressionSettings
from flower_edge.runtime.compression.task_torch import CompressionTask, task_named
from flower_edge.transport import GrpcTransport, Insecure


def test_settings_survive_json() -> None:
    given = settings(depth={"camera": 2}, latency="60 ms", policy="learned", seed=3)
    assert CompressionSettings.from_config(json.loads(json.dumps(given.config()))) == given


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"machines": ("camera",), "cuts": None}, "two names or more"),
        ({"machines": ("a", "a"), "cuts": None}, "none twice"),
        ({"machines": "camera"}, "names one by one"),
        ({"cuts": ("1",)}, "1 cuts for 3 machines; expected 2"),
        ({"machines": (), "cuts": ()}, "None chooses them"),
        ({"cuts": (1.5, 2)}, "names of units or modules"),
        ({"depth": -1}, "depth = -1"),
        ({"depth": {"cellar": 1}}, "depth of machine 'cellar'"),
        ({"methods": ("magic",)}, "quantisation, pruning, distillation"),
        ({"metric": "beauty"}, "expected one of accuracy"),
        ({"drop": None}, "drop=0.01"),
        ({"drop": "much"}, "expected a number"),
        ({"bandwidth": "much"}, "bandwidth = 'much'"),
        ({"bandwidth": "1x"}, "bandwidth = '1x': a factor of 1.0: expected above 1$"),
        ({"bandwidth": "1.2.3x"}, "bandwidth = '1.2.3x': expected a factor such as '20x'"),
        ({"bandwidth": "60"}, "bandwidth = '60': .* or a number of b, kb"),
        ({"latency": "soon"}, "latency = 'soon': expected a time above 0 with its unit"),
        (
            {"latency": "0.017"},
            "latency = '0.017': expected a time above 0 with its unit, such as '17 ms' or '0.017 s'",
        ),
        ({"bandwidth": None}, "no goal"),
        ({"policy": "fate"}, "rules, learned"),
        ({"follow": 1}, "true or false"),
        ({"seed": -1}, "whole number of 0 or more"),
        ({"seed": 2**63}, r"below 2\*\*63"),
        ({"metric": ["accuracy"]}, "expected the name of one"),
    ],
)
def test_a_field_that_cannot_be_is_named(wrong: dict[str, Any], said: str) -> None:
    with pytest.raises(FringeError, match=said):
        settings(**wrong)


def test_a_field_that_there_is_not_is_named() -> None:
    with pytest.raises(FringeError, match="settings with 'flor'"):
        CompressionSettings.from_config({"flor": 0.9})


def test_a_task_tells_its_units_and_counts_its_samples() -> None:
    told = task().told()
    assert told["samples"] == {"learn": 200, "validation": 100, "test": 100}
    assert told["units"] == ["0", "1", "2", "3"]
    assert told["input_shape"] == [16]
    json.dumps(told)


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"learn": np.zeros((3, 16), np.float32), "labels": None}, "3 samples; expected 10 or more"),
        ({"labels": np.zeros(7, np.int64)}, "200 inputs and 7 labels"),
        ({"model": print}, "expected a torch module"),
    ],
)
def test_a_task_without_what_it_needs_is_refused(wrong: dict[str, Any], said: str) -> None:
    whole = task()
    given: dict[str, Any] = {
        "name": "bumps",
        "model": whole.model,
        "learn": whole.learn.numpy(),
        "validation": whole.validation,
        "test": whole.test,
        "labels": whole.labels,
    }
    with pytest.raises(FringeError, match=said):
        CompressionTask(**{**given, **wrong})


def test_a_task_is_found_by_module_and_name_in_the_current_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "bumps_app.py").write_text(
        "from dataclasses import replace\nimport compression_cases\n"
        "def make(seed):\n    return replace(compression_cases.task(), name=f'seed {seed}')\n"
        "NOT_ONE = 3\n"
    )
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    assert task_named("bumps_app:make", seed=5).name == "seed 5"
    for source, said in (
        ("bumps_app:NOT_ONE", "gives a int"),
        ("json:dumps", "cannot be called: missing a required argument: 'obj'"),
        ("bumps_app:other", "no attribute 'other'"),
        ("no_such_app:make", "No module named"),
        ("diggits", "'digits'"),
    ):
        with pytest.raises(FringeError, match=said):
            task_named(source)


def test_over_a_machine_that_is_left_out_a_frame_takes_both_links() -> None:
    (link,) = links_between(MACHINES, LINKS, ("camera", "server"))
    assert link is not None
    assert link.seconds(1000) == pytest.approx(sum(one.seconds(1000) for one in LINKS))
    assert links_between(MACHINES, (LINKS[0], None), ("camera", "server")) == (None,)


@pytest.mark.parametrize(
    ("machines", "said"), [(("camera", "cellar"), "'cellar'"), (("server", "camera"), "the order")]
)
def test_machines_that_there_are_not_or_in_another_order_are_refused(machines: tuple[str, ...], said: str) -> None:
    with pytest.raises(FringeError, match=said):
        links_between(MACHINES, LINKS, machines)


def test_fleets_refuse_links_and_addresses_that_do_not_fit() -> None:
    with pytest.raises(FringeError, match="1 links for 3 machines; expected 2"):
        Modelled(MACHINES, LINKS[:1])
    with pytest.raises(FringeError, match="two names or more"):
        LocalStages(("camera",))
    with pytest.raises(ConfigError):
        RunningStages({"camera": "nowhere", "server": "127.0.0.1:9202"}, GrpcTransport(Insecure()))
    with pytest.raises(FringeError, match=r"'\.\./camera': expected a name without /"):
        LocalStages(("../camera", "server"))
    with pytest.raises(FringeError, match="no link that is shaped"):
        LocalStages(MACHINES).relink(0, Link(1e6))
    with pytest.raises(FringeError, match="expected 0 to 1, or one of camera -> gateway"):
        LocalStages(MACHINES, LINKS).relink("camera -> server", Link(1e6))


def test_nothing_is_deployed_on_modelled_machines() -> None:
    with modelled() as fleet:
        assert fleet.deployed(MACHINES) is None
        assert fleet.addresses() == {}


def test_numpy_arrays_become_tensors() -> None:
    whole = task()
    made = CompressionTask(
        "bumps", nn.Linear(16, 4), whole.learn.numpy(), (whole.test[0].numpy(), whole.test[1].numpy()), whole.test
    )  # type: ignore[arg-type]
    assert isinstance(made.validation[1], torch.Tensor)
