"""What every data set promises, and how files that are missing or damaged are told."""

from __future__ import annotations

import gzip
import json
import os
import struct
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from flower_edge.data import DATA_VARIABLE, FLOW_CLASSES, FLOW_FEATURES, VOCABULARY, Dataset, load_dataset
from flower_edge.data.characters import SPEAKERS, characters, decode, encode
from flower_edge.data.network_traffic import network_traffic
from flower_edge.errors import ConfigError, DataError

EMBEDDED = ("digits", "network-traffic", "characters")


def shared_mnist() -> Path | None:
    """The folder with MNIST's test files, from the environment or beside a checkout."""
    root = Path(__file__).resolve().parents[2]
    beside = [folder / "data" for folder in (root, root / "shared", root.parent / "shared")]
    named = [Path(os.environ[DATA_VARIABLE])] if os.environ.get(DATA_VARIABLE) else []
    for folder in [*named, *beside, *(folder / "mnist10k" for folder in beside)]:
        if list(folder.glob("MNIST/raw/t10k-images-idx3-ubyte*")):
            return folder
    return None


needs_torchvision = pytest.mark.skipif(find_spec("torchvision") is None, reason="torchvision is not installed")


def write_idx(folder: Path, split: str, pictures: NDArray[np.uint8], labels: NDArray[np.uint8], pack: bool) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for part, array in (("images-idx3-ubyte", pictures), ("labels-idx1-ubyte", labels)):
        data = struct.pack(f">I{array.ndim}I", 0x0800 + array.ndim, *array.shape) + array.tobytes()
        name = f"{split}-{part}" + (".gz" if pack else "")
        (folder / name).write_bytes(gzip.compress(data) if pack else data)


def made_up(samples: int, seed: int = 0) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    rng = np.random.default_rng(seed)
    labels = (np.arange(samples) % 10).astype(np.uint8)
    return rng.integers(0, 256, (samples, 28, 28), dtype=np.uint8), labels


@pytest.mark.parametrize("name", EMBEDDED)
def test_one_seed_gives_one_data_set_and_another_seed_another(name: str) -> None:
    first, again, other = (load_dataset(name, seed=seed) for seed in (5, 5, 6))
    for one, two, three in zip(first, again, other, strict=True):
        np.testing.assert_array_equal(one.x, two.x)
        np.testing.assert_array_equal(one.y, two.y)
        assert not np.array_equal(one.x, three.x)


@pytest.mark.parametrize("name", EMBEDDED)
def test_every_class_is_in_the_training_part_and_targets_are_in_range(name: str) -> None:
    train, test = load_dataset(name)
    assert train.name == test.name == name
    assert len(train) > 3 * len(test) > 0
    assert train.x.dtype == (np.int64 if name == "characters" else np.float32)
    assert len(train.labels) == len(train)
    for part in (train, test):
        assert part.y.dtype == np.int64
        assert part.y.max() < part.num_classes
        assert np.isfinite(part.x).all()
    if name != "characters":
        np.testing.assert_array_equal(np.unique(train.y), np.arange(train.num_classes))


@pytest.mark.parametrize("size", [None, 8, 28, 32])
def test_digits_come_in_three_sizes_with_pixels_from_zero_to_one(size: int | None) -> None:
    train, test = load_dataset("digits", size=size)
    assert train.input_shape == test.input_shape == (1, size or 8, size or 8)
    assert len(train) + len(test) == 1797
    assert train.x.min() == 0.0
    assert 0.9 < train.x.max() <= 1.0
    shares = np.bincount(train.y) / len(train) - np.bincount(test.y) / len(test)
    assert np.abs(shares).max() < 0.002


def test_enlarged_digits_are_the_same_digits() -> None:
    small, large = (load_dataset("digits", size=size)[0] for size in (8, 32))
    np.testing.assert_array_equal(small.y, large.y)
    # Averaging each 4x4 block undoes bilinear enlarging up to a blur.
    back = large.x.reshape(-1, 8, 4, 8, 4).mean(axis=(2, 4))
    flat = small.x.reshape(-1, 8, 8)
    assert np.corrcoef(back.ravel(), flat.ravel())[0, 1] > 0.97


def test_traffic_needs_a_hidden_layer() -> None:
    from flower_edge.models import evaluate, make_model, train

    data, test = load_dataset("network-traffic", seed=0)
    accuracy = {}
    for hidden in ((), (64,)):
        model = make_model("numpy-mlp", input_shape=data.input_shape, num_classes=5, seed=0, hidden=hidden)
        train(model, data.x, data.y, steps=3000, batch_size=64, lr=0.1)
        accuracy[hidden] = evaluate(model, test.x, test.y).accuracy
    chance = np.bincount(test.y).max() / len(test)
    assert accuracy[()] > chance + 0.25
    assert accuracy[(64,)] > accuracy[()] + 0.06


def test_traffic_features_are_scaled_on_the_training_part() -> None:
    train, test = network_traffic(2_000, seed=1)
    assert train.input_shape == (len(FLOW_FEATURES),)
    assert train.num_classes == len(FLOW_CLASSES)
    np.testing.assert_allclose(train.x.mean(axis=0), 0.0, atol=1e-5)
    np.testing.assert_allclose(train.x.std(axis=0), 1.0, atol=1e-5)
    assert np.abs(test.x.mean(axis=0)).max() < 0.3
    assert np.mean(train.y == 0) == pytest.approx(0.5, abs=0.05)


def test_the_target_is_the_next_character_and_windows_continue() -> None:
    train, test = characters(20, context=16, seed=2)
    assert train.x.shape == (16 * SPEAKERS, 16)
    assert test.x.shape == (4 * SPEAKERS, 16)
    np.testing.assert_array_equal(train.x[:, 1:], train.y[:, :-1])
    mine = train.groups == 3
    np.testing.assert_array_equal(train.y[mine][:-1, -1], train.x[mine][1:, 0])
    assert decode(train.x[train.labels == 1].ravel()).startswith("well, ")
    assert train.num_classes == len(VOCABULARY) == len(set(VOCABULARY)) == 32


def test_speakers_differ_and_share_a_language() -> None:
    train, _ = load_dataset("characters")
    words = [set(decode(train.x[train.labels == s].ravel()).replace("\n", " ").split()) for s in range(SPEAKERS)]
    everyone = set.intersection(*words)
    assert {"the", "a", "near", "old"} <= everyone
    for s, mine in enumerate(words):
        others = set.union(*(w for t, w in enumerate(words) if t != s))
        assert len(mine - others) >= 8


def test_characters_outside_the_vocabulary_are_named() -> None:
    with pytest.raises(DataError, match="'1X' are not in the vocabulary"):
        encode("aX1")


def test_a_subset_is_a_copy() -> None:
    train, _ = load_dataset("characters")
    part = train.subset(np.array([4, 2]))
    np.testing.assert_array_equal(part.labels, train.labels[[4, 2]])
    part.x[:] = 0
    assert train.x[4].any()


@pytest.mark.parametrize(
    ("name", "how", "message"),
    [
        ("digit", {}, "did you mean 'digits'"),
        ("imagenet", {}, "use one of digits, mnist"),
        ("digits", {"size": 16}, "use one of 8, 28, 32"),
        ("mnist", {"size": 8, "path": "somewhere"}, "use one of 28, 32"),
        ("characters", {"size": 28}, "leave size out"),
        ("digits", {"seed": -1}, "seed = -1"),
    ],
)
def test_bad_arguments_are_refused_with_what_to_use(name: str, how: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        load_dataset(name, **how)  # type: ignore[arg-type]


def test_data_sets_that_contradict_themselves_are_refused() -> None:
    x, y = np.zeros((2, 3), np.float32), np.array([0, 1])
    with pytest.raises(DataError, match="2 samples but 1 targets"):
        Dataset("d", x, y[:1], 2, "classification")
    with pytest.raises(DataError, match="targets of int32"):
        Dataset("d", x, y.astype(np.int32), 2, "classification")
    with pytest.raises(DataError, match=r"1 classes are 0\.\.0"):
        Dataset("d", x, y, 1, "classification")
    with pytest.raises(DataError, match="task 'guessing'"):
        Dataset("d", x, y, 2, "guessing")
    with pytest.raises(DataError, match=r"next-character needs \(2, 3\)"):
        Dataset("d", x, y, 2, "next-character")
    with pytest.raises(DataError, match="pass groups"):
        _ = Dataset("d", x, np.zeros((2, 3), np.int64), 2, "next-character").labels


def test_a_missing_folder_says_which_files_to_fetch_and_where_to_put_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv(DATA_VARIABLE, raising=False)
    with pytest.raises(DataError, match=r"t10k-images-idx3-ubyte.gz.*MNIST/raw/.*path=.*FLOWER_EDGE_DATA"):
        load_dataset("mnist")
    with pytest.raises(DataError, match=r"MNIST/raw is not a folder; put t10k-images"):
        load_dataset("mnist", path=tmp_path)
    raw = tmp_path / "FashionMNIST" / "raw"
    raw.mkdir(parents=True)
    with pytest.raises(DataError, match="holds nothing; put"):
        load_dataset("fashion-mnist", path=tmp_path)
    (raw / "t10k-labels-idx1-ubyte.gz").touch()
    with pytest.raises(DataError, match=r"holds t10k-labels-idx1-ubyte\.gz; put"):
        load_dataset("fashion-mnist", path=tmp_path)


@needs_torchvision
@pytest.mark.parametrize("pack", [True, False])
def test_test_files_alone_are_split_nine_to_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, pack: bool) -> None:
    pictures, labels = made_up(100)
    write_idx(tmp_path / "MNIST" / "raw", "t10k", pictures, labels, pack)
    before = sorted(tmp_path.rglob("*"))
    monkeypatch.setenv(DATA_VARIABLE, str(tmp_path))
    train, test = load_dataset("mnist")
    np.testing.assert_array_equal(train.x[:, 0], pictures[:90].astype(np.float32) / 255)
    np.testing.assert_array_equal(test.y, labels[90:])
    assert sorted(tmp_path.rglob("*")) == before


@needs_torchvision
def test_all_four_files_keep_the_published_split_and_padding_is_black(tmp_path: Path) -> None:
    write_idx(tmp_path / "FashionMNIST" / "raw", "train", *made_up(60), pack=True)
    write_idx(tmp_path / "FashionMNIST" / "raw", "t10k", *made_up(20, seed=1), pack=False)
    train, test = load_dataset("fashion-mnist", path=str(tmp_path), size=32)
    assert (len(train), len(test)) == (60, 20)
    assert train.input_shape == (1, 32, 32)
    np.testing.assert_array_equal(test.x[:, 0, 2:-2, 2:-2], made_up(20, seed=1)[0].astype(np.float32) / 255)
    assert test.x.sum() == pytest.approx(test.x[..., 2:-2, 2:-2].sum())


@needs_torchvision
@pytest.mark.parametrize("damage", ["cut", "cut-packed", "garbage-packed", "not-idx", "lengths", "labels", "shape"])
def test_damaged_files_are_named(tmp_path: Path, damage: str) -> None:
    raw = tmp_path / "MNIST" / "raw"
    pictures, labels = made_up(50)
    if damage == "lengths":
        labels = labels[:-1]
    if damage == "labels":
        labels = labels + np.uint8(1)
    if damage == "shape":
        pictures = pictures[:, :20]
    write_idx(raw, "t10k", pictures, labels, pack="packed" in damage)
    file = raw / ("t10k-images-idx3-ubyte" + (".gz" if "packed" in damage else ""))
    if damage in ("cut", "cut-packed"):
        file.write_bytes(file.read_bytes()[:-100])
    if damage == "garbage-packed":
        file.write_bytes(b"not found")
    if damage == "not-idx":
        file.write_bytes(b"\x00\x00")
    with pytest.raises(DataError, match=r"t10k-images-idx3-ubyte.*fetch (it|them) again"):
        load_dataset("mnist", path=tmp_path)


def test_one_training_file_without_the_other_is_refused(tmp_path: Path) -> None:
    raw = tmp_path / "MNIST" / "raw"
    write_idx(raw, "t10k", *made_up(10), pack=True)
    (raw / "train-labels-idx1-ubyte.gz").touch()
    with pytest.raises(DataError, match=r"holds train-labels-idx1-ubyte.gz but not the other"):
        load_dataset("mnist", path=tmp_path)


@needs_torchvision
@pytest.mark.skipif(shared_mnist() is None, reason=f"MNIST's test files are not here; set {DATA_VARIABLE}")
def test_the_real_mnist_test_files_give_9000_and_1000_pictures() -> None:
    train, test = load_dataset("mnist", path=shared_mnist())
    if len(train) == 60_000:
        pytest.skip("the training files are here too")
    assert (len(train), len(test)) == (9_000, 1_000)
    # Rows 0..3 of the published test set are 7, 2, 1, 0.
    np.testing.assert_array_equal(train.y[:4], [7, 2, 1, 0])
    assert train.x.mean() == pytest.approx(0.1325, abs=0.001)


@needs_torchvision
def test_torchvision_is_helped_only_where_it_does_not_import_by_itself() -> None:
    """For real: in one new process torchvision alone, in another through our module."""
    code = (
        "import json\n"
        "from flower_edge.data.torchvision_torch import DECLARED, datasets\n"
        "import torchvision.transforms\n"
        "print(json.dumps([DECLARED is not None, datasets.MNIST.__name__]))"
    )
    plain, guarded = (
        subprocess.run([sys.executable, "-W", "error", "-c", script], capture_output=True, text=True, timeout=120)
        for script in ("import torchvision", code)
    )
    assert guarded.returncode == 0, guarded.stderr
    helped, name = json.loads(guarded.stdout)
    assert name == "MNIST"
    assert helped == (plain.returncode != 0)
    if plain.returncode:
        assert "operator torchvision::nms does not exist" in plain.stderr
