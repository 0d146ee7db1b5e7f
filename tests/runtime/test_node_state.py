"""What a node remembers: in `Context.state` while it is small, in files above, and never silently nothing."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from flwr.app import Context, RecordDict, UserConfig
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from flower_edge.errors import ConfigError, StateError
from flower_edge.runtime.node_state import (
    MEMORY,
    NodeState,
    export_files,
    remove_run_state,
    restore_files,
)
from flower_edge.runtime.node_state_files import state_root
from flower_edge.store.tree import tree_from_bytes, tree_to_bytes
from flower_edge.wire import payload_bits, records_from_tree, records_to_tree

FLOWER_RUN_ID = 13_000_000_000_000_000_001  # as a SuperLink draws them
BIG = np.arange(40_000, dtype=np.float32)  # 160 kB


def node(root: Path | str, partition: int = 0, run_id: int = FLOWER_RUN_ID, run_name: str = "") -> Context:
    """A node as it is after a (re)start of its SuperNode: configured, with nothing in memory."""
    config: UserConfig = {"partition-id": partition, "state-dir": str(root)}
    return Context(run_id, 1000 + partition, config, RecordDict(), {"run-name": run_name})


def content(state: NodeState) -> Any:
    """What it holds; something must be there."""
    found = state.load()
    assert found is not None
    return found


def copied(context: Context) -> Context:
    """The context as the next message brings it: state through a checkpoint or Flower's wire, nothing shared."""
    state = records_from_tree(tree_from_bytes(tree_to_bytes(records_to_tree(context.state))))
    return Context(context.run_id, context.node_id, dict(context.node_config), state, dict(context.run_config))


def files_under(root: Path) -> list[str]:
    return sorted(path.name for path in root.rglob("*.safetensors"))


arrays = hnp.arrays(st.sampled_from([np.float32, np.int64, np.uint8, np.bool_]), hnp.array_shapes(max_dims=2))
leaves = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5) | st.binary(max_size=9) | arrays
trees = st.recursive(
    leaves,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=3),
    max_leaves=6,
)


@settings(max_examples=40, deadline=None)
@given(trees)
def test_what_is_loaded_is_what_was_saved_in_memory_and_in_a_file(
    tmp_path_factory: pytest.TempPathFactory, tree: Any
) -> None:
    root = tmp_path_factory.mktemp("state")
    for durable in (False, True):
        context = node(root)
        NodeState(context, "any", durable=durable).save(tree)
        state = NodeState(copied(context), "any", durable=durable)
        assert state.where == ("file" if durable else "memory")
        assert tree_to_bytes(state.load()) == tree_to_bytes(tree)


def test_a_name_never_saved_is_absent_and_loads_as_none(tmp_path: Path) -> None:
    state = NodeState(node(tmp_path), "codec")
    assert state.load() is None
    assert state.where == "absent"
    assert not state.recovered


def test_a_hundred_megabytes_go_to_a_file_and_context_state_stays_small(tmp_path: Path) -> None:
    context = node(tmp_path)
    weights = np.random.default_rng(1).standard_normal(25_000_000, dtype=np.float32)
    NodeState(context, "model").save({"weights": weights})
    assert payload_bits(context.state) < 8 * 10_000
    state = NodeState(copied(context), "model")
    assert state.where == "file"
    assert np.array_equal(content(state)["weights"], weights)
    assert not state.recovered


def test_the_limit_counts_all_names_of_the_node(tmp_path: Path) -> None:
    context = node(tmp_path)
    for name in ("a", "b", "c"):
        NodeState(context, name, limit_bytes=400_000).save(BIG)
    where = [NodeState(context, name).where for name in ("a", "b", "c")]
    assert where == ["memory", "memory", "file"]
    NodeState(context, "a", limit_bytes=400_000).delete()
    NodeState(context, "c", limit_bytes=400_000).save(BIG)
    assert NodeState(context, "c").where == "memory"


def test_two_names_do_not_disturb_each_other_even_when_one_spells_like_the_others_file(tmp_path: Path) -> None:
    context = node(tmp_path)
    NodeState(context, "x", durable=True).save({"x": 1})
    twin = Path(files_under(tmp_path)[0]).stem  # x-<digest>
    NodeState(context, twin, durable=True).save({"twin": 2})
    NodeState(context, "x", durable=True).save({"x": 3})
    NodeState(context, "x", durable=True).save({"x": 4})
    assert NodeState(context, twin).load() == {"twin": 2}
    NodeState(context, twin).delete()
    assert NodeState(context, "x").load() == {"x": 4}


def test_two_nodes_and_two_runs_under_one_root_do_not_disturb_each_other(tmp_path: Path) -> None:
    contexts = [node(tmp_path, 0), node(tmp_path, 1), node(tmp_path, 0, run_name="second")]
    for number, context in enumerate(contexts):
        NodeState(context, "model", durable=True).save(number)
    assert [NodeState(node(tmp_path, 0), "model").load(), NodeState(node(tmp_path, 1), "model").load()] == [0, 1]
    assert NodeState(node(tmp_path, 0, run_name="second"), "model").load() == 2


# -- after a restart -------------------------------------------------------------------------------------------------


def test_a_file_is_found_again_after_the_memory_is_lost(tmp_path: Path) -> None:
    context = node(tmp_path)
    for step in range(3):
        NodeState(context, "model", durable=True).save({"step": step, "w": BIG})
    after = node(tmp_path)
    assert NodeState(after, "model").where == "absent"
    state = NodeState(after, "model")
    assert content(state)["step"] == 2
    assert state.recovered
    assert state.where == "file"
    again = NodeState(after, "model")
    assert content(again)["step"] == 2
    assert not again.recovered


def test_small_state_lost_with_the_memory_is_told_and_delete_starts_afresh(tmp_path: Path) -> None:
    NodeState(node(tmp_path), "codec").save({"residual": 1.5})
    after = NodeState(node(tmp_path), "codec")
    with pytest.raises(StateError, match=r"lost with the SuperNode's memory; pass durable=True") as told:
        after.load()
    assert "partition-0" in str(told.value)
    assert f"run-{FLOWER_RUN_ID}" in str(told.value)
    after.delete()
    assert NodeState(node(tmp_path), "codec").load() is None


def test_state_that_became_small_is_not_answered_with_an_old_file(tmp_path: Path) -> None:
    context = node(tmp_path)
    NodeState(context, "model", limit_bytes=100_000).save(BIG)
    NodeState(context, "model", limit_bytes=100_000).save("small now")
    assert NodeState(context, "model").load() == "small now"
    with pytest.raises(StateError, match="lost with the SuperNode's memory"):
        NodeState(node(tmp_path), "model").load()


def test_a_missing_or_damaged_file_is_an_error_that_names_path_node_and_run(tmp_path: Path) -> None:
    context = node(tmp_path, run_name="spring")
    NodeState(context, "model", durable=True).save(BIG)
    (path,) = tmp_path.rglob("model-*.safetensors")
    whole = path.read_bytes()
    path.write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))
    with pytest.raises(StateError, match=r"is damaged, its \d+ bytes are not the ones saved") as told:
        NodeState(context, "model").load()
    for part in (str(path), "partition-0", "spring"):
        assert part in str(told.value)
    path.write_bytes(tree_to_bytes("a whole tree, but another one"))
    with pytest.raises(StateError, match=r"is damaged, its"):
        NodeState(context, "model").load()
    path.unlink()
    with pytest.raises(StateError, match=r"cannot be read \(No such file"):
        NodeState(context, "model").load()
    with pytest.raises(StateError, match=r"none of its files"):
        NodeState(node(tmp_path, run_name="spring"), "model").load()


def test_after_a_restart_a_damaged_newest_file_gives_way_to_the_one_before(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    context = node(tmp_path)
    for step in range(2):
        NodeState(context, "model", durable=True).save({"step": step})
    newest = str(NodeState(context, "model")._record()["file"])  # type: ignore[index]
    (tmp_path / newest).write_bytes(b"")
    with caplog.at_level(logging.WARNING):
        assert NodeState(node(tmp_path), "model").load() == {"step": 0}
    assert "trying the one before" in caplog.text


def test_a_crash_between_file_and_pointer_leaves_the_old_state(tmp_path: Path) -> None:
    context = node(tmp_path)
    NodeState(context, "model", durable=True).save({"step": 1})
    crashed = NodeState(copied(context), "model", durable=True)
    assert crashed._files is not None
    crashed._files.write(tree_to_bytes({"step": 2}))
    assert len(files_under(tmp_path)) == 2
    assert NodeState(context, "model").load() == {"step": 1}
    assert NodeState(node(tmp_path), "model").load() == {"step": 1}  # and also if the memory went with it


def test_a_message_that_never_answered_can_be_handled_again_from_the_state_it_began_with(tmp_path: Path) -> None:
    supernode = node(tmp_path)
    NodeState(supernode, "model", durable=True).save({"step": 1})
    lost = NodeState(copied(supernode), "model", durable=True)
    for step in (2, 3, 4):  # saved three times in one message, and then the process died
        lost.save({"step": step})
    assert NodeState(supernode, "model").load() == {"step": 1}


def test_exactly_one_previous_generation_is_kept(tmp_path: Path) -> None:
    context = node(tmp_path)
    held = []
    for step in range(5):
        held.append(copied(context))
        NodeState(context, "model", durable=True).save({"step": step})
        assert len(files_under(tmp_path)) == min(step + 1, 2)
    assert NodeState(held[-1], "model").load() == {"step": 3}
    with pytest.raises(StateError):
        NodeState(held[-2], "model").load()


def test_delete_leaves_no_file_of_the_name(tmp_path: Path) -> None:
    context = node(tmp_path)
    NodeState(context, "keep").save(1)
    for step in range(2):
        NodeState(context, "model", durable=True).save(step)
    NodeState(context, "model").delete()
    assert [path.name for path in tmp_path.rglob("*") if path.is_file()] == ["keep.json"]
    assert remove_run_state(tmp_path, f"run-{FLOWER_RUN_ID}")
    assert list(tmp_path.iterdir()) == []
    assert not remove_run_state(tmp_path, f"run-{FLOWER_RUN_ID}")


# -- handover and checkpoints ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("tree", [{"small": [1, 2.5]}, {"large": BIG}])
def test_a_state_handed_to_another_node_on_another_grid_is_the_same(tmp_path: Path, tree: Any) -> None:
    source, target = node(tmp_path / "a"), node(tmp_path / "b", partition=7, run_id=5)
    NodeState(source, "model", limit_bytes=1000).save(tree)
    data = NodeState(source, "model").export()
    origin = NodeState(target, "model").import_(data)
    assert (origin.name, origin.node_key, origin.run_name) == ("model", "partition-0", f"run-{FLOWER_RUN_ID}")
    assert tree_to_bytes(NodeState(target, "model").load()) == tree_to_bytes(tree)


def test_a_handover_under_another_name_of_nothing_or_of_another_version_is_refused(tmp_path: Path) -> None:
    context = node(tmp_path)
    NodeState(context, "a").save(1)
    data = NodeState(context, "a").export()
    with pytest.raises(StateError, match=r"import them with NodeState\(context, 'a'\)"):
        NodeState(context, "b").import_(data)
    with pytest.raises(StateError, match="never saved"):
        NodeState(context, "b").export()
    newer = tree_to_bytes({**tree_from_bytes(data), "schema": "flower-edge.state/2"})
    with pytest.raises(StateError, match="same flower-edge version"):
        NodeState(context, "a").import_(newer)
    with pytest.raises(StateError, match="handover of state 'a'"):
        NodeState(context, "a").import_(data[:-3])


def test_a_checkpoint_with_its_files_goes_back_to_that_moment_on_an_empty_disk(tmp_path: Path) -> None:
    contexts = [node(tmp_path / "first", partition) for partition in range(3)]
    for context in contexts:
        NodeState(context, "same", durable=True).save(BIG)
        NodeState(context, "own", durable=True).save(context.node_id)
    checkpoint = tree_to_bytes(
        [[records_to_tree(c.state) for c in contexts], export_files([c.state for c in contexts], tmp_path / "first")]
    )
    for context in contexts:  # the run goes on after its checkpoint
        for step in range(3):
            NodeState(context, "own", durable=True).save(f"later {step}")
    for root in (tmp_path / "first", tmp_path / "elsewhere"):
        states, files = tree_from_bytes(checkpoint)
        assert len(files["files"]) == 6
        assert len(files["contents"]) == 4  # the content all three share is carried once
        restore_files(files, root)
        for partition, state in enumerate(states):
            context = node(root, partition)
            assert NodeState(node(root, partition), "own").load() == 1000 + partition  # restarted right after
            context.state = records_from_tree(state)
            assert NodeState(context, "own").load() == 1000 + partition
            assert np.array_equal(content(NodeState(context, "same")), BIG)


def test_a_checkpoint_cannot_write_or_read_outside_of_the_root(tmp_path: Path) -> None:
    context = node(tmp_path)
    NodeState(context, "model", durable=True).save(1)
    record = context.state.config_records["flower-edge.state.model"]
    good = str(record["file"])
    for bad in ("../../etc/model-" + 32 * "0" + ".safetensors", "/" + good, good.replace("/", "/../", 1)):
        record["file"] = bad
        with pytest.raises(StateError, match="not the path of a state file"):
            NodeState(context, "model").load()
        tree = {"schema": "flower-edge.state/1", "files": {bad: "0" * 32}, "contents": {"0" * 32: b""}}
        with pytest.raises(StateError, match="not the path of a state file"):
            restore_files(tree, tmp_path)


# -- names and roots -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("bad", ["../x", "a/b", "a\\b", "", " ", ".hidden", "x" * 101, "naïve"])
def test_a_name_that_cannot_name_a_file_is_refused_wherever_it_comes_from(tmp_path: Path, bad: str) -> None:
    context = node(tmp_path)
    with pytest.raises(ConfigError, match="state name"):
        NodeState(context, bad)
    if bad:  # an empty run name or node key means "the usual one"
        with pytest.raises(ConfigError, match="run name"):
            NodeState(context, "a", run_name=bad)
        context.node_config["node-key"] = bad
        with pytest.raises(ConfigError, match="node key"):
            NodeState(context, "a")


def test_run_name_and_node_key_come_from_argument_then_config_then_flowers_ids() -> None:
    bare = Context(5, 77, {}, RecordDict(), {})
    named = Context(5, 77, {"node-key": "edge-a", "partition-id": 3}, RecordDict(), {"run-name": "spring"})
    numbered = Context(5, 77, {"partition-id": 3}, RecordDict(), {"run-name": ""})

    def keys(context: Context, **given: str) -> tuple[str, str]:
        state = NodeState(context, "x", **given)  # type: ignore[arg-type]
        return state.run_name, state.node_key

    assert keys(bare) == ("run-5", "node-77")
    assert keys(named) == ("spring", "edge-a")
    assert keys(numbered) == ("run-5", "partition-3")
    assert keys(named, run_name="other", node_key="me") == ("other", "me")


def test_the_root_is_argument_then_node_then_run_config_then_environment_then_home(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("USERPROFILE", str(tmp_path))
    monkeypatch.delenv("FLOWER_EDGE_STATE", raising=False)
    assert state_root(FLOWER_RUN_ID, {}, {}) == tmp_path / ".flower-edge" / "state"
    monkeypatch.setenv("FLOWER_EDGE_STATE", "/env")
    assert state_root(FLOWER_RUN_ID, {}, {}) == Path("/env")
    assert state_root(FLOWER_RUN_ID, {}, {"state-dir": "/run"}) == Path("/run")
    assert state_root(FLOWER_RUN_ID, {"state-dir": "/node"}, {"state-dir": "/run"}) == Path("/node")
    assert state_root(FLOWER_RUN_ID, {"state-dir": "/node"}, {}, "/argument") == Path("/argument")
    assert state_root(FLOWER_RUN_ID, {"state-dir": MEMORY}, {}) is None


def test_a_grid_in_one_process_writes_only_where_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FLOWER_EDGE_STATE", str(tmp_path))
    context = Context(1, 1000, {"partition-id": 0}, RecordDict(), {})
    NodeState(context, "model", durable=True, limit_bytes=0).save(BIG)
    assert NodeState(context, "model").where == "memory"
    assert np.array_equal(content(NodeState(context, "model")), BIG)
    assert list(tmp_path.iterdir()) == []


def test_a_pointer_cannot_be_followed_by_a_node_that_keeps_state_in_memory(tmp_path: Path) -> None:
    context = node(tmp_path)
    NodeState(context, "model", durable=True).save(1)
    context.node_config["state-dir"] = MEMORY
    with pytest.raises(StateError, match="set state-dir to the folder"):
        NodeState(context, "model").load()


def test_a_folder_that_cannot_be_written_is_named_with_what_to_set(tmp_path: Path) -> None:
    (tmp_path / "occupied").write_text("a file where the folder should be")
    for durable in (False, True):
        with pytest.raises(ConfigError, match=r"occupied.* cannot be written .*state-dir"):
            NodeState(node(tmp_path / "occupied"), "model", durable=durable).save(1)


def test_foreign_records_and_damaged_markers_are_told(tmp_path: Path) -> None:
    context = node(tmp_path)
    NodeState(context, "model").save(1)
    (marker,) = tmp_path.rglob("model.json")
    marker.write_text("{")
    with pytest.raises(StateError, match=r"model\.json cannot be read"):
        NodeState(node(tmp_path), "model").load()
    context.state.config_records["flower-edge.state.model"]["schema"] = "flower-edge.state/9"
    with pytest.raises(StateError, match="another version of flower-edge"):
        NodeState(context, "model").load()
