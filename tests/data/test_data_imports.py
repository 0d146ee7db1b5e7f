"""The data and model rooms open without any optional package, and say what to install when one is needed."""

from __future__ import annotations

import subprocess
import sys

import pytest

BLOCK = """
import sys

class Missing:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in ("torch", "torchvision", "sklearn", "matplotlib", "flwr"):
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)

sys.meta_path.insert(0, Missing())
"""

TRIES = {
    "digits": "from flower_edge.data import load_dataset; load_dataset('digits')",
    "clutter": "from flower_edge.data import load_dataset; load_dataset('clutter')",
    "mnist": (
        "import pathlib, tempfile; from flower_edge.data import load_dataset\n"
        "folder = tempfile.TemporaryDirectory()\n"
        "raw = pathlib.Path(folder.name, 'MNIST', 'raw'); raw.mkdir(parents=True)\n"
        "[(raw / f't10k-{part}').touch() for part in ('images-idx3-ubyte', 'labels-idx1-ubyte')]\n"
        "load_dataset('mnist', path=raw.parent.parent)"
    ),
    "picture": "from flower_edge.data import iid, plot_partition; plot_partition(iid([0], 1, seed=0), [0], 'x.png')",
    "model": ("from flower_edge.models import make_model; make_model('mlp', input_shape=(2,), num_classes=2, seed=0)"),
}
EXTRAS = {"digits": "data", "clutter": "data", "mnist": "torch", "picture": "report", "model": "torch"}


def without_extras(code: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-c", BLOCK + code], capture_output=True, text=True, timeout=120)


def test_everything_that_needs_no_extra_works_without_any() -> None:
    done = without_extras(
        "from flower_edge.data import Arrivals, load_dataset, make_partition\n"
        "from flower_edge.models import evaluate, get_arrays, make_model, set_arrays, train\n"
        "data, test = load_dataset('network-traffic')\n"
        "mine = data.subset(make_partition('dirichlet', data.labels, 5, seed=0, alpha=1.0)[2])\n"
        "model = make_model('numpy-mlp', input_shape=mine.input_shape, num_classes=mine.num_classes, seed=0)\n"
        "train(model, mine.x, mine.y, epochs=1); set_arrays(model, get_arrays(model))\n"
        "load_dataset('characters'); Arrivals.poisson(range(5), 1.0, seed=0, origin='a')\n"
        "print(evaluate(model, test.x, test.y).examples)"
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout == "1500\n"


@pytest.mark.parametrize("thing", sorted(TRIES))
def test_a_missing_package_is_told_by_the_command_that_installs_it(thing: str) -> None:
    done = without_extras(TRIES[thing])
    assert done.returncode == 1
    assert f"pip install 'flower-edge[{EXTRAS[thing]}]'" in done.stderr.splitlines()[-1]
    assert done.stderr.splitlines()[-1].startswith("flower_edge.errors.ConfigError: ")
