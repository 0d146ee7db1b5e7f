"""`CodecLaws`: what every codec owes. Subclass, give `make`, get every law.

class TestMyCodec(CodecLaws):
    exact = False

    def make(self):
        return MyCodec(bits=8)
"""

from __future__ import annotations

import atexit
import copy
import hashlib
import importlib.util
import json
import subprocess
import sys
import tracemalloc
from abc import ABC, abstractmethod
from functools import cache
from typing import ClassVar

import numpy as np
import pytest

from flower_edge.codecs.codec import Codec, State, from_config, label
from flower_edge.codecs.moment import Moment
from flower_edge.errors import CodecError
from flower_edge.store import tree_from_bytes, tree_to_bytes

# Numba imports the package `coverage` if there is one; where there is none, Python finds the folder tests/coverage.
if getattr(importlib.util.find_spec("coverage"), "origin", None) is None:
    sys.modules["coverage"] = None  # type: ignore[assignment]

Model = dict[str, np.ndarray]

#: What another process does: import the module of the codec (which registers one that is not ours), rebuild it from
#: JSON, encode the same models, print the digest of all payloads.
_ELSEWHERE = """
import hashlib, importlib, json, sys
from laws.codec_laws import encoded, models
from flower_edge.codecs.codec import from_config
for line in sys.stdin:
    module, config = json.loads(line)
    importlib.import_module(module)
    payloads = encoded(from_config(config), models(3))
    print(hashlib.sha256(b"".join(payloads)).hexdigest(), flush=True)
"""


@cache
def _elsewhere() -> subprocess.Popen[str]:
    """One other process for all codecs: to start one takes longer than what it does."""
    process = subprocess.Popen(
        [sys.executable, "-c", _ELSEWHERE],
        env={"PYTHONPATH": ":".join(sys.path), "PYTHONHASHSEED": "7", "OMP_NUM_THREADS": "1"},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    atexit.register(process.communicate)
    return process


def models(count: int, seed: int = 0) -> list[Model]:
    """Models of one kind: a matrix, a vector, a number, nothing at all, and float64 beside float32."""
    rng = np.random.default_rng(seed)
    return [
        {
            "layer.weight": rng.normal(size=(17, 5)).astype(np.float32),
            "layer.bias": rng.normal(size=(17,)),
            "scale": np.array(rng.normal(), np.float32),
            "empty": np.zeros((0, 3), np.float32),
        }
        for _ in range(count)
    ]


def encoded(codec: Codec, given: list[Model]) -> list[bytes]:
    """The payloads of one model after the other."""
    state, payloads = codec.init(given[0]), []
    for round_, model in enumerate(given):
        payload, state = codec.encode(model, state, Moment(round_, 1))
        payloads.append(payload)
    return payloads


def decoded(codec: Codec, like: Model, payloads: list[bytes]) -> list[Model]:
    state, out = codec.init(like), []
    for round_, payload in enumerate(payloads):
        model, state = codec.decode(payload, state, Moment(round_, 1))
        out.append(model)
    return out


def same(one: Model, other: Model) -> bool:
    return list(one) == list(other) and all(
        one[name].dtype == other[name].dtype
        and one[name].shape == other[name].shape
        and one[name].tobytes() == other[name].tobytes()
        for name in one
    )


class CodecLaws(ABC):
    """Laws of a codec."""

    #: Whether what is decoded is what was encoded, bit for bit.
    exact: ClassVar[bool] = True
    #: Float32 words per number that decoding may take, whatever came in.
    words: ClassVar[int] = 3

    @abstractmethod
    def make(self) -> Codec:
        """The codec under test."""

    def test_what_is_decoded_has_the_names_shapes_and_dtypes_of_the_model_in_its_order(self) -> None:
        given = models(3)
        for model, out in zip(given, decoded(self.make(), given[0], encoded(self.make(), given)), strict=True):
            assert [(n, a.shape, a.dtype) for n, a in out.items()] == [(n, a.shape, a.dtype) for n, a in model.items()]
            assert all(np.isfinite(array).all() for array in out.values())
            assert same(out, model) or not self.exact

    def test_the_same_models_give_the_same_bytes_again(self) -> None:
        assert encoded(self.make(), models(3)) == encoded(self.make(), models(3))

    def test_the_same_models_give_the_same_bytes_in_another_process(self) -> None:
        codec = self.make()
        line = json.dumps([type(codec).__module__, dict(codec.config())])
        other = _elsewhere()
        assert other.stdin is not None
        assert other.stdout is not None
        other.stdin.write(line + "\n")
        other.stdin.flush()
        own = hashlib.sha256(b"".join(encoded(codec, models(3)))).hexdigest()
        assert other.stdout.readline().strip() == own

    def test_the_order_in_which_arrays_are_given_makes_no_difference(self) -> None:
        codec, (model,) = self.make(), models(1)
        state = codec.init(model)
        backwards = dict(reversed(list(model.items())))
        assert codec.encode(backwards, state)[0] == codec.encode(model, state)[0]

    def test_what_is_handed_in_is_left_as_it_was(self) -> None:
        codec, (model,) = self.make(), models(1)
        before, state = copy.deepcopy(model), codec.init(model)
        kept = tree_to_bytes(state)
        payload, _ = codec.encode(model, state)
        codec.decode(payload, state)
        assert same(model, before)
        assert tree_to_bytes(state) == kept

    def test_a_codec_rebuilt_from_its_own_json_is_the_same_codec(self) -> None:
        codec = self.make()
        rebuilt = from_config(json.loads(json.dumps(dict(codec.config()))))
        assert rebuilt == codec
        assert repr(rebuilt) == repr(codec)
        assert label(rebuilt) == label(codec)
        assert encoded(rebuilt, models(3)) == encoded(codec, models(3))

    def test_its_label_is_short_and_printable(self) -> None:
        assert 0 < len(label(self.make())) <= 64
        assert label(self.make()).isascii()
        assert label(self.make()).isprintable()

    def test_an_option_it_does_not_have_is_refused(self) -> None:
        with pytest.raises(CodecError, match="'levle'"):
            from_config({**self.make().config(), "levle": 1})

    def test_a_state_out_of_a_checkpoint_goes_on_as_the_state_itself(self) -> None:
        codec, given = self.make(), models(4)
        _, state = codec.encode(given[0], codec.init(given[0]), Moment(0, 1))
        saved: State = tree_from_bytes(tree_to_bytes(state))
        for round_, model in enumerate(given[1:], start=1):
            payload, state = codec.encode(model, state, Moment(round_, 1))
            again, saved = codec.encode(model, saved, Moment(round_, 1))
            assert again == payload

    @pytest.mark.parametrize("change", ["missing", "more", "shape", "dtype"])
    def test_arrays_that_are_not_the_models_are_refused_by_name(self, change: str) -> None:
        codec, (model,) = self.make(), models(1)
        state = codec.init(model)
        other = dict(model)
        if change == "missing":
            del other["layer.bias"]
        elif change == "more":
            other["more"] = np.zeros(1, np.float32)
        elif change == "shape":
            other["layer.weight"] = np.zeros((5, 17), np.float32)
        else:
            other["layer.weight"] = other["layer.weight"].astype(np.complex128)
        with pytest.raises(CodecError, match=r"layer\.|more"):
            codec.encode(other, state)

    # -- whatever comes in -------------------------------------------------------------------------------------------

    def _survives(self, payload: bytes, like: Model) -> bool:
        """Whether the payload is read as a model of the right form; anything else must be a CodecError."""
        codec = self.make()
        try:
            out, _ = codec.decode(payload, codec.init(like))
        except CodecError:
            return False
        assert [(n, a.shape, a.dtype) for n, a in out.items()] == [(n, a.shape, a.dtype) for n, a in like.items()]
        return True

    def test_a_payload_that_was_cut_or_lengthened_is_refused(self) -> None:
        (model,) = models(1)
        (payload,) = encoded(self.make(), [model])
        cuts = sorted({0, 1, 7, len(payload) // 2, len(payload) - 1})
        assert not any(self._survives(payload[:cut], model) for cut in cuts)
        assert not self._survives(payload + b"\0", model)
        assert not self._survives(payload + payload, model)

    def test_a_payload_for_another_model_is_refused_or_read_in_the_form_of_the_own(self) -> None:
        (model,) = models(1)
        other = {**model, "layer.weight": np.zeros((17, 6), np.float32)}
        (payload,) = encoded(self.make(), [model])
        # Few bits for many numbers need not tell how many those were; an exact codec's do.
        assert not self._survives(payload, other) or not self.exact

    def test_any_bytes_are_a_model_of_the_right_form_or_a_codec_error(self) -> None:
        (model,) = models(1)
        (payload,) = encoded(self.make(), [model])
        rng = np.random.default_rng(3)
        for _ in range(200):
            bad = bytearray(payload)
            for _ in range(int(rng.integers(1, 6))):
                bad[int(rng.integers(len(bad)))] ^= 1 << int(rng.integers(8))
            self._survives(bytes(bad), model)
            self._survives(rng.bytes(int(rng.integers(0, 2 * len(payload)))), model)
            self._survives(rng.bytes(len(payload)), model)

    def test_garbage_takes_no_more_memory_than_a_model(self) -> None:
        like = {"w": np.zeros(100_000, np.float32)}
        (payload,) = encoded(self.make(), [like])
        rng = np.random.default_rng(4)
        codec, garbage = self.make(), [rng.bytes(len(payload)), rng.bytes(400_000), b"\xff" * len(payload)]
        state = codec.init(like)
        for bad in garbage:  # imports and compiled kernels are not what is measured
            self._survives(bad, like)
        tracemalloc.start()
        try:
            for bad in garbage:
                try:
                    codec.decode(bad, state)
                except CodecError:
                    continue
            assert tracemalloc.get_traced_memory()[1] < 4 * self.words * 100_000 + 64_000
        finally:
            tracemalloc.stop()
