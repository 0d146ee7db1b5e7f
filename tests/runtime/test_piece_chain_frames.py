"""`ChainFrames`: a frame must go with what it is computed from; who says another one is told, whatever it claims."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from piece_chains import PROFILE, WIDTHS, chain

from flower_edge.errors import ProtocolError
from flower_edge.runtime.pieces.frames import ChainFrames
from flower_edge.runtime.pieces.messages import coder_at
from flower_edge.splitting.frame import Frame, Kind

STEP = 5
ORDERS = chain(3)
LABELS = np.array([0, 1])


def forward(place: int, *, labels: Any = LABELS, step: int = STEP) -> bytes:
    order = ORDERS[place]
    x = np.ones((len(labels), WIDTHS[order.stop]), np.float32)
    return coder_at(order, PROFILE, "next").encode(Frame(Kind.ACTIVATIONS, step, (x,), labels))


def back(place: int, *, samples: int = 2, loss: float = 0.5) -> bytes:
    order = ORDERS[place]
    x = np.ones((samples, WIDTHS[order.start]), np.float32)
    return coder_at(order, PROFILE, "previous").encode(Frame(Kind.GRADIENT, STEP, (x,), loss=loss))


def begun() -> ChainFrames:
    frames = ChainFrames(ORDERS, PROFILE)
    frames.check(0, "next", STEP, forward(0))
    return frames


def test_a_step_up_and_down_the_chain_passes_and_is_forgotten() -> None:
    frames = begun()
    frames.check(1, "next", STEP, forward(1))
    frames.check(2, "previous", STEP, back(2))
    frames.check(1, "previous", STEP, back(1))
    with pytest.raises(ProtocolError, match=f"place 1 sent a frame of step {STEP}, which is not under way"):
        frames.check(1, "previous", STEP, back(1))
    frames.check(0, "next", STEP + 1, forward(0, step=STEP + 1))


def test_other_labels_fewer_samples_or_another_loss_are_refused_and_the_right_frame_still_passes() -> None:
    frames = begun()
    with pytest.raises(ProtocolError, match="place 1 sent other labels"):
        frames.check(1, "next", STEP, forward(1, labels=np.array([0, 2])))
    with pytest.raises(ProtocolError, match="1 samples, expected 2"):
        frames.check(1, "next", STEP, forward(1, labels=np.array([0])))
    frames.check(1, "next", STEP, forward(1))
    with pytest.raises(ProtocolError, match="before the last place has sent any"):
        frames.check(1, "previous", STEP, back(1))
    with pytest.raises(ProtocolError, match="1 samples, expected 2"):
        frames.check(2, "previous", STEP, back(2, samples=1))
    frames.check(2, "previous", STEP, back(2))
    with pytest.raises(ProtocolError, match=r"loss 0\.7, and the last place said 0\.5"):
        frames.check(1, "previous", STEP, back(1, loss=0.7))
    frames.check(1, "previous", STEP, back(1))


def test_in_decoupled_mode_a_step_is_forgotten_where_it_ends() -> None:
    frames = ChainFrames(chain(3, mode="decoupled"), PROFILE)
    for _ in range(2):
        with pytest.raises(ProtocolError, match="not under way"):
            frames.check(1, "next", STEP, forward(1))
        frames.check(0, "next", STEP, forward(0))
        frames.check(1, "next", STEP, forward(1))
