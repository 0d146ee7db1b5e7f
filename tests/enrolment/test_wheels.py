"""Wheels from the server: pip takes them by TLS, by name and digest, and gets nothing else out of the folder."""

from __future__ import annotations

import base64
import hashlib
import subprocess
import sys
import zipfile
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from filter_cases import HOST, Front, front
from starlette.applications import Starlette

from flower_edge.enrolment.wheels import wheel_routes
from flower_edge.errors import ConfigError


def make_wheel(folder: Path, name: str, version: str) -> Path:
    """A package of one line."""
    made = folder / f"{name}-{version}-py3-none-any.whl"
    files = {
        f"{name}.py": "HERE = True\n",
        f"{name}-{version}.dist-info/METADATA": f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n",
        f"{name}-{version}.dist-info/WHEEL": "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
    }
    record = f"{name}-{version}.dist-info/RECORD"
    lines = [f"{record},,"]
    for path, text in files.items():
        digest = base64.urlsafe_b64encode(hashlib.sha256(text.encode()).digest()).rstrip(b"=").decode()
        lines.append(f"{path},sha256={digest},{len(text)}")
    with zipfile.ZipFile(made, "w") as archive:
        for path, text in {**files, record: "\n".join(lines) + "\n"}.items():
            archive.writestr(path, text)
    return made


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Front, Path]]:
    folder = tmp_path_factory.mktemp("wheels")
    make_wheel(folder, "Some_Thing", "1.0+cpu")
    make_wheel(folder, "other", "2.0")
    (folder / "notes.txt").write_text("not for devices")
    (folder / "link-1.0-py3-none-any.whl").symlink_to("/etc/hostname")
    with front(tmp_path_factory.mktemp("server"), own=Starlette(routes=wheel_routes(folder))) as made:
        yield made, folder


def get(made: Front, path: str) -> httpx.Response:
    with httpx.Client(verify=made.trust(), timeout=60.0) as client:
        return client.get(f"https://{HOST}:{made.port}{path}")


def test_the_index_names_projects_and_files_with_their_digests(served: tuple[Front, Path]) -> None:
    made, folder = served
    assert '<a href="some-thing/">' in get(made, "/wheels/").text
    page = get(made, "/wheels/some-thing/").text
    (wheel,) = folder.glob("Some*.whl")
    digest = hashlib.sha256(wheel.read_bytes()).hexdigest()
    assert f'<a href="Some_Thing-1.0%2Bcpu-py3-none-any.whl#sha256={digest}">' in page
    for written in ("+", "%2B", "%2b"):
        answer = get(made, f"/wheels/some-thing/Some_Thing-1.0{written}cpu-py3-none-any.whl")
        assert hashlib.sha256(answer.content).hexdigest() == digest
    assert get(made, "/wheels/Some_Thing/").headers["location"] == "../some-thing/"


@pytest.mark.parametrize(
    "path", ["/wheels/notes-txt/", "/wheels/notes/notes.txt", "/wheels/link/", "/wheels/link/link-1.0-py3-none-any.whl"]
)
def test_nothing_else_of_the_folder_is_given(served: tuple[Front, Path], path: str) -> None:
    assert get(served[0], path).status_code == 404


def test_a_folder_that_is_not_there_is_refused_with_how_to_make_it(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"there is no such folder; `pip download -d .* flower-edge` makes it"):
        wheel_routes(tmp_path / "none")
    assert wheel_routes(None) == []


@pytest.mark.slow
def test_pip_installs_from_it(served: tuple[Front, Path], tmp_path: Path) -> None:
    made, _ = served
    command = [
        *(sys.executable, "-m", "pip", "--isolated", "install", "--no-input", "--disable-pip-version-check"),
        *("--index-url", f"https://{HOST}:{made.port}/wheels/", "--cert", str(made.authority)),
        *("--target", str(tmp_path / "site"), "some-thing"),
    ]
    done = subprocess.run(
        command, capture_output=True, text=True, timeout=180, env={"PATH": "/usr/bin:/bin", "HOME": str(tmp_path)}
    )
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "site" / "Some_Thing.py").read_text() == "HERE = True\n"
