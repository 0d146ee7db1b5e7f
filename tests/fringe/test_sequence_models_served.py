"""A transformer and a recurrent model served by processes: versions that a controller made, with requests under way."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from sequence_cases import MACHINES, controlled, data
from stage_cases import wait_until
from stage_processes import StageProcesses

from flower_edge.runtime.fringe.channels import Served

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def processes(tmp_path_factory: pytest.TempPathFactory) -> Iterator[StageProcesses]:
    folder: Path = tmp_path_factory.mktemp("sequence-stages")
    with StageProcesses(folder, MACHINES, "--batch", "1") as running:
        yield running


@pytest.mark.parametrize("kind", ["transformer", "recurrent"])
def test_a_controller_swaps_versions_while_requests_flow_and_each_answer_is_of_one_version(
    kind: str, processes: StageProcesses
) -> None:
    x = data()[0][400:410]
    whole = controlled(kind).pipeline  # traced before anything serves
    stop = threading.Event()
    found: list[Served] = []
    with processes.deployment(keep=40) as deployment:
        first = deployment.deploy(whole).version

        def ask() -> None:
            while not stop.is_set():
                found.append(deployment.ask(x.numpy()).result(60))

        # The versions of a deployment go by the pipeline's own numbers, so a controller's can be told from its answers.
        controller = controlled(kind)
        expected = {first: whole.run(x).numpy()}
        with ThreadPoolExecutor(1) as pool:
            client = pool.submit(ask)
            try:
                wait_until(lambda: found)
                controller.run()
                for version in controller.versions[1:]:
                    controller.roll_back(version.number)
                    number = deployment.swap(controller.pipeline).version
                    expected[number] = controller.pipeline.run(x).numpy()
                    wait_until(lambda number=number: found[-1].version == number)
            finally:
                stop.set()
            client.result(60)
    assert len(expected) == len(controller.versions) > 2
    assert {one.version for one in found} == set(expected)
    assert all(np.array_equal(one.output, expected[one.version]) for one in found)
