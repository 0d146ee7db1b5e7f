"""Laws of the partitioners: nothing is lost, nothing is given twice, the seed decides."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import assume, example, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from flower_edge.data import (
    SCHEMES,
    Partition,
    classes_per_node,
    dirichlet,
    iid,
    load_dataset,
    make_partition,
    one_class,
    plot_partition,
    power_law,
    shards,
)
from flower_edge.errors import ConfigError, DataError

Labels = NDArray[np.int64]

#: Every scheme with options that work for any labels with 40 samples per class and up to 12 nodes.
OPTIONS: dict[str, dict[str, Any]] = {
    "iid": {},
    "classes-per-node": {"k": 2},
    "dirichlet": {"alpha": 0.5, "min_size": 0},
    "shards": {"shards_per_node": 2},
    "power-law": {"exponent": 1.2},
    "one-class": {},
}


@st.composite
def labelled(draw: st.DrawFn) -> Labels:
    """Two to six classes, not contiguous, of 40 to 80 samples each, in random order."""
    values = draw(st.lists(st.integers(0, 30), min_size=2, max_size=6, unique=True))
    counts = [draw(st.integers(40, 80)) for _ in values]
    order = np.random.default_rng(draw(st.integers(0, 1000)))
    return order.permutation(np.repeat(np.array(values, dtype=np.int64), counts))


nodes = st.integers(1, 12)
seeds = st.integers(0, 2**32 - 1)
schemes = st.sampled_from(sorted(SCHEMES))


def test_the_law_list_names_every_scheme() -> None:
    assert set(OPTIONS) == set(SCHEMES)


@given(schemes, labelled(), nodes, seeds)
def test_no_sample_is_given_to_two_nodes_and_indices_are_sorted(scheme: str, labels: Labels, n: int, seed: int) -> None:
    partition = make_partition(scheme, labels, n, seed=seed, **OPTIONS[scheme])
    assert len(partition) == n
    together = np.concatenate(list(partition))
    assert len(np.unique(together)) == len(together)
    assert all(mine.dtype == np.int64 and (np.diff(mine) > 0).all() for mine in partition)


@given(schemes, labelled(), nodes, seeds)
def test_every_sample_is_given_unless_nobody_holds_its_class(scheme: str, labels: Labels, n: int, seed: int) -> None:
    partition = make_partition(scheme, labels, n, seed=seed, **OPTIONS[scheme])
    together = np.sort(np.concatenate(list(partition)))
    held = np.isin(labels, labels[together])
    np.testing.assert_array_equal(together, np.flatnonzero(held))
    classes = len(np.unique(labels))
    per_node = {"classes-per-node": 2, "one-class": 1}.get(scheme, classes)
    if n * per_node >= classes:
        assert held.all()


@given(schemes, labelled(), nodes, seeds)
def test_one_seed_gives_one_partition(scheme: str, labels: Labels, n: int, seed: int) -> None:
    first = make_partition(scheme, labels, n, seed=seed, **OPTIONS[scheme])
    again = make_partition(scheme, labels.copy(), n, seed=seed, **OPTIONS[scheme])
    for mine, same in zip(first, again, strict=True):
        np.testing.assert_array_equal(mine, same)


@pytest.mark.parametrize("scheme", sorted(SCHEMES))
def test_another_seed_gives_another_partition(scheme: str) -> None:
    labels = np.arange(400) % 4
    first, other = (make_partition(scheme, labels, 8, seed=seed, **OPTIONS[scheme]) for seed in (0, 1))
    assert any(not np.array_equal(mine, yours) for mine, yours in zip(first, other, strict=True))


@given(labelled(), nodes, seeds)
def test_iid_sizes_differ_by_at_most_one(labels: Labels, n: int, seed: int) -> None:
    assert np.ptp(iid(labels, n, seed=seed).sizes()) <= 1


@given(labelled(), nodes, st.integers(1, 6), seeds)
def test_every_node_holds_exactly_k_classes_and_holders_are_balanced(labels: Labels, n: int, k: int, seed: int) -> None:
    classes = np.unique(labels)
    assume(k <= len(classes))
    held = classes_per_node(labels, n, k=k, seed=seed).label_counts(labels)[:, classes]
    assert ((held > 0).sum(axis=1) == k).all()
    assert np.ptp((held > 0).sum(axis=0)) <= 1
    for column in held.T:
        assert np.ptp(column[column > 0]) <= 1 if column.any() else True


def test_twelve_nodes_with_four_classes_each_hold_every_digit() -> None:
    pytest.importorskip("sklearn", reason="digits need scikit-learn")
    labels = load_dataset("digits", seed=0)[0].labels
    for seed in range(20):
        counts = classes_per_node(labels, 12, k=4, seed=seed).label_counts(labels)
        assert ((counts > 0).sum(axis=1) == 4).all()
        assert (counts.sum(axis=0) == np.bincount(labels)).all()


@given(labelled(), nodes, seeds)
def test_one_class_is_classes_per_node_with_k_one(labels: Labels, n: int, seed: int) -> None:
    for mine, same in zip(one_class(labels, n, seed=seed), classes_per_node(labels, n, k=1, seed=seed), strict=True):
        np.testing.assert_array_equal(mine, same)


@given(labelled(), nodes, st.floats(0.05, 1e3), st.integers(0, 5), seeds)
@settings(max_examples=50)
@example(np.arange(400) % 4, 12, 0.05, 5, 0)
def test_dirichlet_keeps_the_smallest_size_it_promises_or_refuses(
    labels: Labels, n: int, alpha: float, min_size: int, seed: int
) -> None:
    try:
        partition = dirichlet(labels, n, alpha=alpha, min_size=min_size, seed=seed)
    except ConfigError as error:
        assert f"alpha = {alpha}" in str(error)  # noqa: PT017
        return
    assert partition.sizes().min() >= min_size
    assert partition.sizes().sum() == len(labels)


def test_dirichlet_with_small_alpha_is_more_skewed_than_with_large_alpha() -> None:
    labels = np.arange(10_000) % 10

    def largest_share(alpha: float) -> float:
        counts = dirichlet(labels, 10, alpha=alpha, seed=0).label_counts(labels)
        return float((counts.max(axis=1) / counts.sum(axis=1)).mean())

    assert largest_share(1e4) < 0.12
    assert largest_share(0.05) > 0.5


@given(labelled(), nodes, st.integers(1, 4), seeds)
def test_shards_are_equal_and_hold_few_classes(labels: Labels, n: int, per_node: int, seed: int) -> None:
    partition = shards(labels, n, shards_per_node=per_node, seed=seed)
    assert np.ptp(partition.sizes()) <= per_node
    if n * per_node >= 2 * len(np.unique(labels)):
        # A shard no longer than the shortest class (40 of at most 80) touches at most three classes.
        assert ((partition.label_counts(labels) > 0).sum(axis=1) <= 3 * per_node).all()


def test_two_hundred_shards_give_a_hundred_nodes_two_digits_each() -> None:
    labels = np.repeat(np.arange(10), 6_000)
    counts = shards(labels, 100, shards_per_node=2, seed=0).label_counts(labels)
    assert (counts.sum(axis=1) == 600).all()
    assert ((counts > 0).sum(axis=1) <= 2).all()


def test_power_law_sizes_lie_on_a_line_in_a_log_log_plot() -> None:
    sizes = np.sort(power_law(np.zeros(100_000, np.int64), 50, exponent=1.5, seed=3).sizes())[::-1]
    slope, _ = np.polyfit(np.log(np.arange(1, 51)), np.log(sizes), 1)
    assert slope == pytest.approx(-1.5, abs=0.02)


@given(labelled(), nodes, seeds)
def test_power_law_with_exponent_zero_is_as_even_as_iid(labels: Labels, n: int, seed: int) -> None:
    assert np.ptp(power_law(labels, n, exponent=0.0, seed=seed).sizes()) <= 1


@given(labelled(), nodes, seeds)
def test_power_law_with_k_gives_exactly_k_classes(labels: Labels, n: int, seed: int) -> None:
    held = power_law(labels, n, exponent=1.0, k=2, seed=seed).label_counts(labels) > 0
    assert (held.sum(axis=1) == 2).all()


def test_label_counts_add_up_to_sizes() -> None:
    labels = np.array([2, 0, 2, 2])
    partition = Partition((np.array([0, 1]), np.array([3]), np.empty(0, np.int64)))
    np.testing.assert_array_equal(partition.label_counts(labels), [[1, 0, 1], [0, 0, 1], [0, 0, 0]])
    np.testing.assert_array_equal(partition.label_counts(labels).sum(axis=1), partition.sizes())


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("irid", [0, 1], 1, {}), "did you mean 'iid'"),
        (("dirichlet", [0, 1], 1, {}), "needs alpha"),
        (("classes-per-node", [0, 1], 1, {}), "needs k"),
        (("dirichlet", [0, 1], 1, {"alfa": 1.0}), "did you mean 'alpha'"),
        (("iid", [0, 1], 1, {"alpha": 1.0}), "it has none"),
        (("dirichlet", [0, 1], 1, {"alpha": 0.0}), "alpha = 0.0"),
        (("dirichlet", [0, 1], 2, {"alpha": 1.0, "min_size": 2}), "use 0..1"),
        (("classes-per-node", [0, 1], 1, {"k": 3}), "use 1..2"),
        (("classes-per-node", [0, 1, 1, 1], 4, {"k": 2}), "class 0 has 1 samples for 4 nodes"),
        (("shards", [0, 1], 1, {"shards_per_node": 3}), "use 1..2"),
        (("power-law", [0, 1], 1, {"exponent": -1.0}), "exponent = -1.0"),
        (("iid", [0, 1], 3, {}), "num_nodes = 3 but there are 2 samples"),
        (("iid", [0, 1], 0, {}), "num_nodes = 0"),
        (("iid", [[0, 1]], 1, {}), "one non-negative integer per sample"),
        (("iid", [0.5, 1.0], 1, {}), "one non-negative integer per sample"),
    ],
)
def test_bad_arguments_are_refused_by_value(arguments: tuple[str, Any, int, dict[str, Any]], message: str) -> None:
    scheme, labels, n, options = arguments
    with pytest.raises(ConfigError, match=message):
        make_partition(scheme, labels, n, seed=0, **options)


def test_a_negative_seed_is_refused() -> None:
    with pytest.raises(ConfigError, match="seed = -1"):
        iid([0, 1], 1, seed=-1)


def test_a_sample_of_two_nodes_is_refused_by_number() -> None:
    with pytest.raises(DataError, match="sample 3 belongs to more than one node"):
        Partition((np.array([1, 3]), np.array([3])))
    with pytest.raises(DataError, match="node 0 are not sorted"):
        Partition((np.array([3, 1]),))


def test_labels_are_written_into_the_parts_of_the_bars_that_have_room(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("matplotlib", reason="pictures need matplotlib")
    from matplotlib.axes import Axes

    written: list[tuple[float, str]] = []
    monkeypatch.setattr(Axes, "text", lambda self, x, y, text, **_: written.append((x, text)))
    labels = np.array([0] * 99 + [1] + [1] * 50)
    plot_partition(Partition((np.arange(100), np.arange(100, 150))), labels, tmp_path / "picture.png")
    assert written == [(0, "0"), (1, "1")]


@pytest.mark.parametrize("classes", [3, 15, 62])
def test_the_picture_is_a_png_and_leaves_pyplot_alone(tmp_path: Path, classes: int) -> None:
    pytest.importorskip("matplotlib", reason="pictures need matplotlib")
    labels = np.arange(1240) % classes
    path = plot_partition(iid(labels, 12, seed=0), labels, tmp_path / "new" / "picture.png", title="demo")
    assert path.read_bytes().startswith(b"\x89PNG\r\n")
    assert path.stat().st_size > 5_000
    head, *lines = path.with_suffix(".csv").read_text().splitlines()
    assert head.split(",")[:2] == ["node", "label 0"]
    assert [line.split(",")[0] for line in lines] == [str(node) for node in range(12)]
    assert sum(int(count) for line in lines for count in line.split(",")[1:]) == 1240
    import sys

    pyplot = sys.modules.get("matplotlib.pyplot")
    assert pyplot is None or not pyplot.get_fignums()
