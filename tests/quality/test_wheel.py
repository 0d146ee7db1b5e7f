"""The wheel, installed alone: no checkout beside it, no torch, no Ray, no scikit-learn."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import json
import shutil
import subprocess
import sys
import zipfile
from dataclasses import dataclass
from pathlib import Path

import pytest
from source_tree import PACKAGES, ROOT, module_name, tracked_files

pytestmark = [pytest.mark.slow]

#: What the installed wheel is tested with, on the toy federation, and what that needs.
SHARED = ("tests/conftest.py", "tests/toy.py")
STRATEGIES = ("tests/strategies/test_layered.py", "tests/strategies/test_hierarchical.py")
NOUNS_AND_GOSSIP = ("tests/core", "tests/strategies/test_gossip.py")
#: Extras: what a device without them must not need.
EXTRAS = ("torch", "torchvision", "ray", "sklearn", "matplotlib", "jinja2", "nicegui", "numba")


@dataclass(frozen=True)
class Installed:
    """A fresh environment with the wheel in it, and an empty folder far from the checkout."""

    wheel: Path
    bin: Path
    folder: Path
    modules: frozenset[str]
    """Names of the modules it was built from."""

    def run(self, *command: str, timeout_s: float = 400) -> subprocess.CompletedProcess[str]:
        environment = {"PATH": f"{self.bin}:/usr/bin:/bin", "HOME": str(self.folder), "OMP_NUM_THREADS": "1"}
        environment["FLWR_TELEMETRY_ENABLED"] = "0"
        return subprocess.run(
            [str(self.bin / command[0]), *command[1:]],
            cwd=self.folder,
            env=environment,
            capture_output=True,
            text=True,
            timeout=timeout_s,
        )


def _call(*command: object) -> None:
    done = subprocess.run([str(part) for part in command], capture_output=True, text=True)
    assert done.returncode == 0, f"{' '.join(map(str, command))}\n{done.stdout[-2000:]}\n{done.stderr[-2000:]}"


def _isolation() -> list[str]:
    """Building in isolation fetches setuptools; where one that is new enough is installed, it is used."""
    try:
        new_enough = int(importlib.metadata.version("setuptools").partition(".")[0]) >= 77
    except importlib.metadata.PackageNotFoundError:
        new_enough = False
    return ["--no-isolation"] if new_enough else []


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Installed:
    """Build from a copy (nothing left of earlier builds gets in), install, look from elsewhere."""
    base = tmp_path_factory.mktemp("wheel")
    sources = tracked_files()
    for path in sources:
        target = base / "source" / path.relative_to(ROOT)
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(path, target)
    _call(sys.executable, "-m", "build", "--wheel", *_isolation(), "--outdir", base / "dist", base / "source")
    (wheel,) = (base / "dist").glob("*.whl")
    # Neither a pip of its own nor bytecode of all that it needs: only what is imported here is compiled, then.
    _call(sys.executable, "-m", "venv", "--without-pip", base / "venv")
    pip = [sys.executable, "-m", "pip", "--python", base / "venv/bin/python", "install", "--no-compile"]
    pip += ["--quiet", "--disable-pip-version-check"]
    # From the same index as everything else; hypothesis and pytest are the tests' own.
    _call(*pip, wheel, "pytest", "pytest-timeout", "hypothesis")
    folder = base / "elsewhere"
    folder.mkdir()
    library = [path for path in sources if path.suffix == ".py" and path.relative_to(ROOT).parts[0] in PACKAGES]
    return Installed(wheel, base / "venv/bin", folder, frozenset(map(module_name, library)))


def test_the_wheel_installs_one_package_and_takes_no_name_of_somebody_elses(installed: Installed) -> None:
    with zipfile.ZipFile(installed.wheel) as archive:
        names = archive.namelist()
    tops = {name.partition("/")[0] for name in names}
    assert tops == {"flower_edge", "flower_edge-0.1.0.dist-info"}
    assert not [name for name in names if "/tests/" in name or "__pycache__" in name]


def test_the_wheel_holds_every_module_and_every_file_that_goes_with_them(installed: Installed) -> None:
    with zipfile.ZipFile(installed.wheel) as archive:
        names = set(archive.namelist())
    modules = {
        name.removesuffix(".py").replace("/", ".").removesuffix(".__init__")
        for name in names
        if name.endswith(".py") and not name.startswith("flower_edge/scenarios/")
    }
    assert modules == installed.modules
    beside = {path.name for path in (ROOT / "flower_edge/cli").iterdir() if path.suffix in (".j2", ".css")}
    assert {f"flower_edge/cli/{name}" for name in beside} | {"flower_edge/py.typed"} <= names
    assert any(name.endswith("licenses/LICENSE") for name in names)


def test_every_module_but_those_for_torch_numba_and_the_page_imports_without_any_extra(installed: Installed) -> None:
    script = f"""
import importlib, importlib.util, pkgutil, flower_edge
there = [name for name in {EXTRAS!r} if importlib.util.find_spec(name)]
failed = {{}}
seen = 0
for found in pkgutil.walk_packages(flower_edge.__path__, "flower_edge."):
    if found.name.endswith("_torch") or ".codecs.fast." in found.name:
        continue
    seen += 1
    try:
        importlib.import_module(found.name)
    except ImportError as error:
        if found.name.startswith("flower_edge.ui.") and error.name == "nicegui":
            continue
        failed[found.name] = str(error)
import flower_edge.ui
print(there, failed, seen > 40, flower_edge.__file__)
"""
    done = installed.run("python", "-c", script)
    assert done.stdout.startswith("[] {} True "), done.stdout + done.stderr
    assert str(ROOT) not in done.stdout


def test_the_command_is_there_and_greets(installed: Installed) -> None:
    done = installed.run("flower-edge", "--help")
    assert done.returncode == 0, done.stderr
    assert "Usage" in done.stdout


def test_every_scenario_is_there_to_be_read_and_copied(installed: Installed) -> None:
    with zipfile.ZipFile(installed.wheel) as archive:
        packed = {name for name in archive.namelist() if name.startswith("flower_edge/scenarios/")}
    tracked = {path.relative_to(ROOT).as_posix() for path in tracked_files()}
    assert packed == {f"flower_edge/{name}" for name in tracked if name.startswith("scenarios/")}
    listed = installed.run("flower-edge", "scenarios", "--json")
    assert listed.returncode == 0, listed.stderr
    found = json.loads(listed.stdout)["scenarios"]
    assert {one["name"] for one in found} == {path.parent.name for path in ROOT.glob("scenarios/*/README.md")}
    assert all(str(installed.bin.parent) in one["folder"] for one in found)
    done = installed.run("flower-edge", "new", "my_terminals", "--from", "moving_terminals")
    assert done.returncode == 0, done.stderr
    assert (installed.folder / "my_terminals" / "my_terminals" / "server_app.py").is_file()


@pytest.mark.parametrize(
    "copied",
    [STRATEGIES, pytest.param(NOUNS_AND_GOSSIP, marks=pytest.mark.full)],
    ids=["strategies", "nouns and gossip"],
)
def test_what_needs_no_extra_passes_its_tests_against_the_wheel(installed: Installed, copied: tuple[str, ...]) -> None:
    for name in (*SHARED, *copied):
        source, target = ROOT / name, installed.folder / name
        target.parent.mkdir(parents=True, exist_ok=True)
        if source.is_dir():
            shutil.copytree(source, target, ignore=shutil.ignore_patterns("__pycache__"), dirs_exist_ok=True)
        else:
            shutil.copy(source, target)
    (installed.folder / "pytest.ini").write_text(
        "[pytest]\npythonpath = tests\nmarkers =\n    slow\n    full\naddopts = -ra -p no:cacheprovider\n"
        "filterwarnings =\n    error\n    ignore:'click.*is deprecated:DeprecationWarning\n"
    )
    done = installed.run("python", "-m", "pytest", "-q", "-m", "not slow and not full", *copied, timeout_s=500)
    assert done.returncode == 0, done.stdout[-4000:]
    assert "failed" not in done.stdout
    found = installed.run("python", "-c", "import flower_edge.strategies as s; print(s.__file__)").stdout
    assert found.startswith(str(installed.bin.parent))
