"""Laws of what a launch has for itself."""

import http.server
import json
import socket
import sys
import threading
from contextlib import ExitStack
from pathlib import Path

import pytest

from flower_edge.errors import LaunchError
from flower_edge.runtime.launching.environment import (
    RESUME_VARIABLE,
    WorkFolder,
    answers,
    claim_run_folder,
    hold_port,
    scripts_folder,
)
from flower_edge.store.places import RUN_DIR_VARIABLE, RUNS_VARIABLE


def environment(base: dict[str, str], resume: Path | None = None) -> dict[str, str]:
    return WorkFolder(Path("/w")).environment(
        base,
        launch_id="me",
        port=4711,
        scripts=Path("/env/bin"),
        runs=Path("/runs"),
        run_folder=Path("/runs/one"),
        resume=resume,
    )


def test_flower_finds_its_own_programs_before_all_others() -> None:
    assert environment({"PATH": "/usr/bin"})["PATH"] == "/env/bin:/usr/bin"


def test_nothing_of_another_run_or_cluster_comes_through() -> None:
    made = environment({"RAY_ADDRESS": "10.0.0.1:6379", RESUME_VARIABLE: "/old", "FLWR_HOME": "/home/me/.flwr"})
    assert "RAY_ADDRESS" not in made
    assert RESUME_VARIABLE not in made
    assert made["FLWR_HOME"] == "/w/home"
    assert made["RAY_TMPDIR"] == "/w"


def test_the_switches_that_keep_flower_and_ray_from_the_network_are_set() -> None:
    made = environment({})
    assert made["FLWR_DISABLE_RUNTIME_DEPENDENCY_INSTALLATION"] == "1"
    assert made["FLWR_DISABLE_UPDATE_CHECK"] == "1"
    assert made["FLWR_TELEMETRY_ENABLED"] == "0"
    assert made["RAY_USAGE_STATS_ENABLED"] == "0"
    assert made["FLWR_LOCAL_SUPERLINK_HTTP_API_PORT"] == "4711"


def test_the_app_is_told_its_run_folder_and_the_one_to_go_on_from() -> None:
    made = environment({"MINE": "kept"}, resume=Path("/runs/zero"))
    assert made[RUN_DIR_VARIABLE] == "/runs/one"
    assert made[RUNS_VARIABLE] == "/runs"
    assert made[RESUME_VARIABLE] == "/runs/zero"
    assert made["FLOWER_EDGE_STATE"] == "/runs/zero/state", "a resumed run finds the nodes' files of its first part"
    assert made["MINE"] == "kept"


def test_a_proxy_is_never_asked_for_the_way_to_our_own_machine() -> None:
    made = environment({"http_proxy": "http://proxy:3128", "no_proxy": "example.org"})
    assert made["NO_PROXY"] == made["no_proxy"] == "127.0.0.1,example.org,localhost"


def test_the_environment_given_is_left_alone() -> None:
    base = {"RAY_ADDRESS": "x", "PATH": "/usr/bin"}
    environment(base)
    assert base == {"RAY_ADDRESS": "x", "PATH": "/usr/bin"}


def test_a_work_folder_has_room_for_the_sockets_ray_puts_into_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tempfile.tempdir", "/var/folders/zz/a-name-as-long-as-those-of-macos/T")
    work = WorkFolder.make()
    try:
        assert len(str(work.path)) + 75 <= 103
        assert list(work.cwd.iterdir()) == []
    finally:
        work.remove()
    assert not work.path.exists()


def test_a_hundred_held_ports_are_a_hundred_different_ones() -> None:
    with ExitStack() as stack:
        ports = [stack.enter_context(hold_port()) for _ in range(100)]
    assert len(set(ports)) == 100


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="only Linux lets a server bind beside the holder")
def test_a_held_port_is_free_for_the_server_it_is_held_for() -> None:
    class Health(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200 if self.path == "/health" else 404)
            self.end_headers()

        def log_message(self, format: str, *args: object) -> None:
            pass

    with hold_port() as port:
        assert not answers(port)
        with http.server.HTTPServer(("127.0.0.1", port), Health) as server:
            thread = threading.Thread(target=server.serve_forever, args=(0.01,))
            thread.start()
            try:
                assert answers(port)
            finally:
                server.shutdown()
                thread.join()


def test_something_that_is_no_superlink_does_not_count_as_one() -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        assert not answers(silent.getsockname()[1])


def test_two_runs_of_one_name_in_one_second_get_two_folders(tmp_path: Path) -> None:
    made = {claim_run_folder(tmp_path / "runs", "my app") for _ in range(5)}
    assert len(made) == 5
    assert all(folder.is_dir() and "my-app" in folder.name for folder in made)


def test_a_folder_of_runs_that_cannot_be_made_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(LaunchError, match=r"file/runs.*--runs DIR"):
        claim_run_folder(tmp_path / "file" / "runs", "app")


def test_an_environment_without_flower_is_told_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    assert (scripts_folder() / "flwr").is_file()
    monkeypatch.setattr("sys.executable", "/nowhere/bin/python")
    monkeypatch.setattr("sysconfig.get_path", lambda *args: "/nowhere/scripts")
    with pytest.raises(LaunchError, match=r"not beside /nowhere/bin/python; .*flower-edge\[simulation\]"):
        scripts_folder()


def test_a_run_resumed_twice_finds_the_nodes_files_it_began_with(tmp_path: Path) -> None:
    for name, earlier in (("a", None), ("b", "a"), ("c", "b")):
        (tmp_path / name).mkdir()
        (tmp_path / name / "run.json").write_text(json.dumps({"resumed_from": earlier}))
    made = environment({}, resume=tmp_path / "c")
    assert made["FLOWER_EDGE_STATE"] == str(tmp_path / "a" / "state")
