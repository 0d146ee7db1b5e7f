"""Four bits on a logarithmic scale."""

from __future__ import annotations

import numpy as np
from laws.vector_codec_laws import VectorCodecLaws

from flower_edge.codecs.layout import Layout
from flower_edge.codecs.lgc.gate import nmse
from flower_edge.codecs.log4 import Log4
from flower_edge.codecs.moment import Moment


class TestLog4(VectorCodecLaws):
    def make(self) -> Log4:
        return Log4()


def test_kept_values_of_a_top_k_lose_less_than_three_per_mille() -> None:
    v = np.random.default_rng(0).normal(size=100_000).astype(np.float32)
    kept = v[np.argsort(-np.abs(v))[:1000]]
    data, _ = Log4().pack(kept, Layout.flat(1000), {}, Moment())
    decoded, _ = Log4().unpack(memoryview(data), Layout.flat(1000), {}, Moment())
    assert len(data) == 508
    assert nmse(kept, decoded) < 0.003
