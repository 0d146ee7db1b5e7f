"""Replies that are wrong, each in its own way, and the code by which a gate refuses them; for tests."""

from __future__ import annotations

import io
import pickle
from collections.abc import Callable
from typing import Any

import numpy as np
from flwr.app import Array, ArrayRecord, ConfigRecord, MetricRecord, RecordDict
from toy import initial_model

Harm = Callable[[RecordDict], RecordDict]


def metric(**values: Any) -> Harm:
    def harm(content: RecordDict) -> RecordDict:
        metrics = {**dict(content["metrics"].items()), **{k.replace("_", "-"): v for k, v in values.items()}}  # type: ignore[union-attr]
        content["metrics"] = MetricRecord({name: value for name, value in metrics.items() if value is not None})
        return content

    return harm


def weights(change: Callable[[dict[str, Array]], dict[str, Array]]) -> Harm:
    def harm(content: RecordDict) -> RecordDict:
        content["arrays"] = ArrayRecord(change(dict(content.array_records["arrays"].items())))
        return content

    return harm


def values(change: Callable[[Any], Any]) -> Harm:
    """Of the array `weight`, whatever comes of it."""
    return weights(lambda arrays: {**arrays, "weight": Array(np.asarray(change(arrays["weight"].numpy().copy())))})


def spoilt(number: float) -> Harm:
    def change(w: Any) -> Any:
        w[3] = number
        return w

    return values(change)


def raw(
    change: Callable[[bytes], bytes] = lambda data: data,
    dtype: str = "float32",
    shape: tuple[int, ...] = (6,),
    stype: str = "numpy.ndarray",
) -> Harm:
    """The array `weight` with a label and bytes of one's own."""
    return weights(lambda arrays: {**arrays, "weight": Array(dtype, shape, stype, change(arrays["weight"].data))})


def record(name: str, value: Any | None) -> Harm:
    def harm(content: RecordDict) -> RecordDict:
        if value is None:
            del content[name]
        else:
            content[name] = value
        return content

    return harm


def renamed(old: str, new: str) -> Harm:
    def harm(content: RecordDict) -> RecordDict:
        content[new] = content[old]
        del content[old]
        return content

    return harm


def saved(array: Any, **options: Any) -> bytes:
    file = io.BytesIO()
    np.save(file, array, **options)
    return file.getvalue()


def header(text: bytes) -> Callable[[bytes], bytes]:
    length = len(text).to_bytes(4, "little")
    return lambda data: b"\x93NUMPY\x02\x00" + length + text + b"\0" * 24


SIX = "{'descr': '<f4', 'fortran_order': False, 'shape': (6,), }"

#: What a node does, and by which code it is refused.
HARMS: dict[str, tuple[Harm, str]] = {
    "10^18 examples": (metric(num_examples=10**18), "num-examples"),
    "-5 examples": (metric(num_examples=-5), "num-examples"),
    "-1 examples": (metric(num_examples=-1), "num-examples"),
    "0 examples": (metric(num_examples=0), "num-examples"),
    "0.0 examples": (metric(num_examples=0.0), "num-examples"),
    "NaN examples": (metric(num_examples=float("nan")), "num-examples"),
    "infinitely many examples": (metric(num_examples=float("inf")), "num-examples"),
    "1e30 examples": (metric(num_examples=1e30), "num-examples"),
    "10^40 examples": (metric(num_examples=10**40), "num-examples"),
    "a list of examples": (metric(num_examples=[5]), "num-examples"),
    "no count of examples": (metric(num_examples=None), "num-examples"),
    "more than enrolled": (metric(num_examples=1001), "num-examples"),
    "NaN in an array": (spoilt(float("nan")), "not-finite"),
    "infinity in an array": (spoilt(float("inf")), "not-finite"),
    "minus infinity in an array": (spoilt(float("-inf")), "not-finite"),
    "an array of NaN": (values(lambda w: w * np.float32("nan")), "not-finite"),
    "a missing array": (weights(lambda a: {"weight": a["weight"]}), "missing-array"),
    "an extra array": (weights(lambda a: {**a, "more": a["bias"]}), "extra-array"),
    "a renamed array": (weights(lambda a: {"weigth": a["weight"], "bias": a["bias"]}), "missing-array"),
    "an array record without arrays": (record("arrays", ArrayRecord({})), "missing-array"),
    "(1,) into (6,)": (values(lambda w: w[:1]), "shape"),
    "(3,) into (6,)": (values(lambda w: w[:3]), "shape"),
    "(6, 1) into (6,)": (values(lambda w: w[:, None]), "shape"),
    "no axis": (values(lambda w: w[0]), "shape"),
    "an empty array": (values(lambda w: w[:0]), "shape"),
    "a label of 2^40 numbers": (raw(shape=(2**40,)), "shape"),
    "bytes of 2^40 numbers": (raw(header(SIX.replace("(6,)", "(1099511627776,)").encode())), "bytes"),
    "float64": (values(lambda w: w.astype(np.float64)), "dtype"),
    "whole numbers": (values(lambda w: w.astype(np.int64)), "dtype"),
    "a label of objects": (raw(dtype="object"), "dtype"),
    "a label of the other byte order": (raw(dtype=">f4"), "dtype"),
    "a label of another dtype than the bytes": (raw(lambda data: saved(np.ones(6, np.float64))), "bytes"),
    "a label of another shape than the bytes": (raw(lambda data: saved(np.ones(7, np.float32))), "bytes"),
    "bytes of objects": (raw(lambda data: saved(np.array([1, "a"] * 3, object), allow_pickle=True)), "bytes"),
    "a pickle": (raw(lambda data: pickle.dumps([1.0] * 6)), "bytes"),
    "truncated bytes": (raw(lambda data: data[:-4]), "bytes"),
    "trailing bytes": (raw(lambda data: data + b"\0"), "bytes"),
    "no bytes": (raw(lambda data: b""), "bytes"),
    "garbage": (raw(lambda data: b"garbage" * 20), "bytes"),
    "a zip file": (raw(lambda data: b"PK\x03\x04" + data), "bytes"),
    "a header of 60 kB": (raw(header(SIX.encode() + b" " * 60_000)), "bytes"),
    "a header that is not text": (raw(header(b"\xff\xfe" * 40)), "bytes"),
    "a header with a no-break space": (raw(header(SIX.encode() + b"\xa0")), "bytes"),
    "a header with a vertical tab": (raw(header(SIX.encode() + b"\x0b")), "bytes"),
    "a size with a leading zero": (raw(header(SIX.replace("(6,)", "(06,)").encode())), "bytes"),
    "a shape without a comma": (raw(header(SIX.replace("(6,)", "(6)").encode())), "bytes"),
    "a deep header": (raw(header(b"(" * 2000)), "bytes"),
    "another wire form": (raw(stype="flower-edge.packet/1"), "bytes"),
    "no record of arrays": (record("arrays", None), "no-arrays"),
    "two records of arrays": (record("more", initial_model()), "no-arrays"),
    "another name of the arrays": (renamed("arrays", "model"), "no-arrays"),
    "replies folded into one": (
        record("flower-edge.folded", ConfigRecord({"nodes": [1], "weights": [1.0]})),
        "no-arrays",
    ),
    "no record of metrics": (record("metrics", None), "metrics"),
    "two records of metrics": (record("more", MetricRecord({"num-examples": 3})), "metrics"),
    "another name of the metrics": (renamed("metrics", "numbers"), "metrics"),
    "an extra metric": (metric(more=1.0), "metrics"),
    "a metric less": (lambda content: record("metrics", MetricRecord({"num-examples": 26}))(content), "metrics"),
    "a metric that is NaN": (metric(train_loss=float("nan")), "metrics"),
    "a list with infinity": (metric(more=[1.0, float("inf")]), "metrics"),
    "a metric too large for a float": (metric(more=10**400), "metrics"),
    "300 metrics": (metric(**{f"m{i}": 1.0 for i in range(300)}), "metrics"),
    "5,000 numbers in a metric": (metric(more=[1.0] * 5000), "metrics"),
    "100 kB beside the model": (record("note", ConfigRecord({"text": b"x" * 100_000})), "too-large"),
    "-3 steps": (metric(steps=-3), "steps"),
    "0 steps": (metric(steps=0), "steps"),
    "more steps than it was given": (metric(steps=21), "steps"),
    "NaN steps": (metric(steps=[3]), "steps"),
}
