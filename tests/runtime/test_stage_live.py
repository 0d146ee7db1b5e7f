"""An entry keeps inputs only when told to, within bounds, and a deployment fetches what it needs of them."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from stage_cases import TRANSPORT, pipeline, samples, served
from torch import nn

from flower_edge.errors import ConfigError, FringeError, NotServed
from flower_edge.fringe import distribute
from flower_edge.runtime.fringe import kept_inputs
from flower_edge.runtime.fringe.deployment_torch import Deployment
from flower_edge.runtime.fringe.kept_inputs import KeptInputs
from flower_edge.runtime.fringe.live_inputs import fetched
from flower_edge.runtime.fringe.messages import input_wire
from flower_edge.runtime.fringe.settings import ServingLimits
from flower_edge.runtime.fringe.stage import StageServer

ONE = ServingLimits(batch_samples=1, keep_inputs=20)


def numbered(first: int, count: int) -> np.ndarray:
    return np.arange(first, first + count, dtype=np.float32)[:, None] * np.ones((1, 3), np.float32)


@settings(max_examples=40, deadline=None)
@given(most=st.integers(1, 20), batches=st.lists(st.integers(0, 15), max_size=8))
def test_what_is_kept_was_asked_and_is_no_more_than_may_be(most: int, batches: list[int]) -> None:
    kept, again, asked = KeptInputs(most), KeptInputs(most), 0
    for count in batches:
        for one in (kept, again):
            one.add(numbered(asked, count))
        asked += count
    told = kept.about()
    assert (told["seen"], told["kept"]) == (asked, min(asked, most))
    if told["kept"]:
        held = kept.take(range(told["kept"]))
        assert set(held[:, 0]) <= set(range(asked))
        assert len(set(held[:, 0])) == len(held)  # none twice
        assert np.array_equal(held, again.take(range(told["kept"])))  # by a seed


def test_after_a_shift_what_is_kept_follows_and_a_burst_does_not_take_all_of_it() -> None:
    kept = KeptInputs(400)
    kept.add(numbered(0, 4000))
    newer = []
    for _ in range(2):
        for _ in range(100):  # as requests come
            kept.add(numbered(10_000, 4))
        newer.append(float((kept.take(range(400))[:, 0] >= 10_000).mean()))
    assert newer[0] == pytest.approx(1 - np.exp(-1), abs=0.06)
    assert newer[1] == pytest.approx(1 - np.exp(-2), abs=0.06)
    older = kept.take(range(400))[:, 0]
    assert (older[older < 10_000] < 3600).any()  # the latest 400 would reach back to 3600 at most


def test_memory_is_bounded_in_bytes_too_and_what_is_not_finite_is_left_out() -> None:
    kept = KeptInputs(100, most_bytes=50)
    kept.add(numbered(0, 20))
    assert kept.about() == {"kept": 4, "seen": 20, "most": 100, "sample_bytes": 12}
    kept.add(np.full((3, 3), np.nan, np.float32))
    assert kept.about()["seen"] == 20
    kept.add(np.zeros((1, 2), np.float32))  # another pipeline's: those before are forgotten
    assert kept.about() == {"kept": 1, "seen": 1, "most": 100, "sample_bytes": 8}
    tiny = KeptInputs(100, most_bytes=8)
    tiny.add(numbered(0, 20))
    assert tiny.about()["kept"] == 0


@pytest.mark.parametrize("at", [[4], [-1], ["0"], [True], [0.0], list(range(4)) * 400_000])
def test_places_that_are_none_are_refused(at: list[object]) -> None:
    kept = KeptInputs(10)
    kept.add(numbered(0, 4))
    with pytest.raises(FringeError, match=r"expected (places|no more)"):
        kept.take(at)  # type: ignore[arg-type]


def test_nothing_is_kept_unless_it_is_said() -> None:
    with served(limits=ServingLimits(batch_samples=1)) as (deployment, stages):
        with pytest.raises(FringeError, match="nothing is deployed"):
            deployment.live_inputs()
        deployment.deploy(pipeline())
        deployment.infer(samples(4).numpy())
        assert deployment.live_inputs() is None
        assert deployment.statistics()["camera"]["inputs"]["most"] == 0
        assert stages["camera"]._inputs is None


def test_live_inputs_are_those_that_were_asked_in_frames_that_are_small(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kept_inputs, "FRAME_BYTES", 100)
    monkeypatch.setattr("flower_edge.runtime.fringe.live_inputs.FRAME_BYTES", 100)
    x = samples(30)
    with served(limits=ONE) as (deployment, stages):
        deployment.deploy(pipeline())
        assert deployment.live_inputs() is None
        for one in x[:12]:
            deployment.infer(one[None].numpy())
        with pytest.raises(FringeError):
            deployment.ask(np.zeros((1, 5), np.float32))
        found = deployment.live_inputs()
        assert np.array_equal(found, x[:12].numpy())  # four of 24 bytes go into a frame
        few = deployment.live_inputs(most=5)
        assert few is not None
        assert np.array_equal(few, x[[0, 3, 6, 8, 11]].numpy())
        deployment.infer(x[12:].numpy())
        held = deployment.live_inputs()
        assert held is not None
        assert len(held) == 20
        assert {one.tobytes() for one in held} <= {one.tobytes() for one in x.numpy()}
        told = {name: one["inputs"]["kept"] for name, one in deployment.statistics().items()}
        assert told == {"camera": 20, "gateway": 0, "cloud": 0}  # what goes between machines is kept by none
        with pytest.raises(FringeError, match="most = 0"):
            deployment.live_inputs(most=0)
        stages["camera"].close()
        assert stages["camera"]._control.kept({})["kept"] == 0  # forgotten


def test_requests_that_failed_are_not_kept() -> None:
    embedding = distribute(
        nn.Sequential(nn.Embedding(5, 3), nn.Linear(3, 2)), torch.zeros(2, 4, dtype=torch.int64), ["only"], []
    )
    with served(("only",), limits=ONE) as (deployment, _):
        deployment.deploy(embedding)
        deployment.infer(np.array([[0, 1, 2, 3]]))
        with pytest.raises(NotServed):
            deployment.infer(np.array([[0, 1, 2, 9]]))
        found = deployment.live_inputs()
        assert found is not None
        assert found.tolist() == [[0, 1, 2, 3]]


@pytest.mark.parametrize(
    "sent",
    [None, np.zeros((2, 4), np.float32), np.zeros((2, 3), np.float64), np.full((2, 3), np.inf, np.float32)],
)
def test_what_an_entry_sends_is_checked(sent: object) -> None:
    def ask(what: str, at: list[int]) -> dict[str, object]:
        return {"inputs": sent} if at else {"kept": 2, "sample_bytes": 12}

    with pytest.raises(FringeError, match="the entry sent inputs"):
        fetched(ask, input_wire((3,), "float32"))
    with pytest.raises(FringeError, match="expected how many"):
        fetched(lambda *_, **__: {"kept": "all"}, input_wire((3,), "float32"))


@pytest.mark.parametrize("count", [-1, 1.5, True])
def test_a_number_to_keep_that_is_none_is_refused(count: object) -> None:
    with pytest.raises(ConfigError, match="keep_inputs="):
        ServingLimits(keep_inputs=count)  # type: ignore[arg-type]


# -- who takes up what is served ------------------------------------------------------------------------------------


def test_a_controller_that_was_started_anew_takes_up_what_is_served_and_changes_nothing() -> None:
    made, alone = pipeline(), distribute(nn.Linear(6, 3), torch.zeros(2, 6), ["only"], [])
    x = samples(3).numpy()
    with served(limits=ONE) as (first, stages):
        addresses = {name: f"127.0.0.1:{stage.port}" for name, stage in stages.items()}
        with Deployment(addresses, TRANSPORT) as new:
            assert new.attach() is None
        number = first.deploy(made).version
        first.close()
        with Deployment(addresses, TRANSPORT) as new:
            assert new.attach() == number
            assert np.array_equal(new.infer(x), made.run(torch.from_numpy(x)).numpy())
            with pytest.raises(FringeError, match=r"swap.pipeline. says what it is"):
                _ = new.pipeline
            assert new.pipeline_version(number) is None
            same = new.swap(made)
            assert (same.version, same.before) == (number, number)
            assert new.pipeline_version(number) == made.version
            assert new.statistics()["gateway"]["versions"].keys() == {str(number)}  # nothing was loaded
            other = pipeline(1)
            assert new.swap(other).version == number + 1
            assert np.array_equal(new.infer(x), other.run(torch.from_numpy(x)).numpy())
            assert new.roll_back().version == number
            assert np.array_equal(new.infer(x), made.run(torch.from_numpy(x)).numpy())
            with pytest.raises(FringeError, match="a pipeline on"):
                new.swap(alone)


def test_what_is_served_is_loaded_anew_where_a_machine_is_dialled_elsewhere() -> None:
    made = pipeline()
    with served(limits=ONE) as (first, stages):
        number = first.deploy(made).version
        addresses = {name: f"127.0.0.1:{stage.port}" for name, stage in stages.items()}
        other = addresses["cloud"].replace("127.0.0.1", "localhost")
        with Deployment(addresses, TRANSPORT, via={"cloud": other}) as new:
            assert new.attach() == number
            assert new.swap(made).version == number + 1
            assert stages["gateway"].statistics()["next"][str(number + 1)] == other
            new.infer(samples(1).numpy())
            assert new.links()[1].transfers == 1  # of the way that is used now


def test_a_version_that_only_some_machines_hold_is_not_taken_up_and_goes_with_the_next_swap() -> None:
    made = pipeline()
    with served(limits=ONE) as (first, stages):
        number = first.deploy(made).version
        addresses = {name: f"127.0.0.1:{stage.port}" for name, stage in stages.items()}
        order, _ = first._orders(pipeline(1))["gateway"]
        stages["gateway"]._control.load({**order, "version": 9})  # whoever controlled it died while it was loading
        with Deployment(addresses, TRANSPORT) as new:
            assert new.attach() == number
            assert new.versions == (number,)
            assert new.swap(pipeline(1)).version == 10
            assert stages["gateway"].statistics()["versions"].keys() == {str(number), "10"}
        stages["gateway"]._versions.drop(10)
        with Deployment(addresses, TRANSPORT) as new:
            assert new.attach() is None
            assert new.deploy(made).version == 11
            assert {len(one["versions"]) for one in new.statistics().values()} == {1}


def test_a_version_of_which_something_is_under_way_is_not_dropped() -> None:
    made = pipeline()
    with served(limits=ONE) as (deployment, stages):
        number = deployment.deploy(made).version
        held = stages["camera"]._versions.begin()  # a request that takes long
        assert held is not None
        deployment._drain_s = 0.01
        deployment.deploy(pipeline(1))
        assert {str(number), str(number + 1)} == stages["cloud"].statistics()["versions"].keys()
        stages["camera"]._versions.end(held)
        deployment.swap(made)
        assert {str(number + 1), str(number + 2)} == stages["cloud"].statistics()["versions"].keys()


def test_a_controller_that_others_overtook_takes_nothing_away_from_what_is_served() -> None:
    x = samples(3)
    with served(limits=ONE) as (first, stages):
        first.deploy(pipeline(0))
        addresses = {name: f"127.0.0.1:{stage.port}" for name, stage in stages.items()}
        with Deployment(addresses, TRANSPORT) as stale:
            assert stale.attach() == 1
            assert first.swap(pipeline(1)).version == 2
            stale._forget(2)  # as after a load that machines refused, because they hold a version of that number
            assert np.array_equal(first.infer(x.numpy()), pipeline(1).run(x).numpy())
            assert stale.swap(pipeline(2)).version == 3
            assert np.array_equal(first.infer(x.numpy()), pipeline(2).run(x).numpy())


def test_who_attaches_while_a_version_is_swapped_looks_again(monkeypatch: pytest.MonkeyPatch) -> None:
    with served(limits=ONE) as (first, stages):
        first.deploy(pipeline(0))
        addresses = {name: f"127.0.0.1:{stage.port}" for name, stage in stages.items()}
        with Deployment(addresses, TRANSPORT) as new:
            tell, looks = new._controls.statistics, []

            def statistics(what: str) -> dict[str, dict[str, Any]]:
                told = tell(what)
                looks.append(what)
                if len(looks) == 1:  # the gateway told it before it had loaded what the entry serves by now
                    told["gateway"]["versions"] = {}
                return told

            monkeypatch.setattr(new._controls, "statistics", statistics)
            assert new.attach() == 1
            assert len(looks) == 2


def test_a_version_that_a_machine_lost_is_not_rolled_back_to() -> None:
    x = samples(3)
    with served(limits=ONE) as (deployment, stages):
        deployment.deploy(pipeline(0))
        port = stages["gateway"].port
        stages["gateway"].close()
        with StageServer("gateway", TRANSPORT, port=port, limits=ONE):
            deployment.swap(pipeline(1))
            assert np.array_equal(deployment.infer(x.numpy()), pipeline(1).run(x).numpy())
            with pytest.raises(FringeError, match="version 1 is not on 'gateway' any more"):
                deployment.roll_back()
            assert np.array_equal(deployment.infer(x.numpy()), pipeline(1).run(x).numpy())
