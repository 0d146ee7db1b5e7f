"""What stands in the form is what is submitted, and what was submitted stands in the form again."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from flower_edge.errors import FringeError
from flower_edge.runtime.compression.settings import CompressionSettings
from flower_edge.ui.compression.form_values import FormValues

KNOWN = ["camera", "gateway", "server"]


@st.composite
def submissions(draw: st.DrawFn) -> CompressionSettings:
    machines = draw(st.sampled_from([(), ("camera", "server"), ("camera", "gateway", "server")]))
    cuts = draw(st.sampled_from([None, tuple(f"layer{number}" for number in range(len(machines) - 1))]))
    return CompressionSettings(
        machines=machines,
        cuts=cuts if machines else None,
        depth=draw(st.sampled_from([None, {"camera": 2}, {"camera": 1, "server": 3}])),
        methods=draw(st.sampled_from([(), ("pruning",), ("quantisation", "distillation")])),
        metric=draw(st.sampled_from(["accuracy", "recall", "loss", "error"])),
        drop=draw(st.floats(0, 0.5).map(lambda value: round(value, 4))),
        bandwidth=draw(st.sampled_from([None, "20x", "95%", "60 kB"])),
        latency=draw(st.sampled_from(["17 ms", "2.5 ms"])),
        reduction=draw(st.sampled_from([None, "4x", "79%", "60 ms"])),
        policy=draw(st.sampled_from(["rules", "learned"])),
        follow=draw(st.booleans()),
        seed=draw(st.integers(0, 9)),
    )


@hypothesis_settings(max_examples=40)
@given(submissions())
def test_the_form_of_a_submission_means_that_submission(submitted: CompressionSettings) -> None:
    again = FormValues.of(KNOWN, submitted.config() | {"why": [], "chosen": {}}).settings()
    assert again == submitted


def test_other_units_come_as_the_form_has_them() -> None:
    form = FormValues.of(
        KNOWN, CompressionSettings(drop=0.01, bandwidth="1.5 MB", latency="0.5 s", reduction="2 s").config()
    )
    assert (form.bandwidth, form.bandwidth_kind, form.latency_ms) == (1500.0, "kB", 500.0)
    assert (form.reduction, form.reduction_kind) == (2000.0, "ms")


def test_before_the_first_submission_everything_is_automatic_but_the_goal() -> None:
    settings = FormValues.of(KNOWN, {}).settings()
    assert settings == CompressionSettings(drop=0.01, bandwidth="20x")


def test_points_of_accuracy_are_hundredths_and_a_loss_is_as_it_is() -> None:
    assert FormValues(KNOWN, limit=1.5).settings().drop == 0.015
    assert FormValues(KNOWN, metric="loss", limit_kind="floor", limit=0.4).settings().floor == 0.4


def test_cuts_that_are_chosen_name_the_machines_between_which_they_lie() -> None:
    form = FormValues(KNOWN, cuts_automatic=False, cuts=["a", "b"])
    assert form.settings().machines == tuple(KNOWN)


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"limit": None}, "no limit"),
        ({"machines_automatic": False, "machines": ["camera"]}, "1 machines chosen"),
        ({"methods_automatic": False}, "no method chosen"),
        ({"cuts_automatic": False, "cuts": ["a", ""]}, "a cut is not chosen"),
        ({"bandwidth": None}, "no goal"),
        ({"bandwidth": 0.5}, "factor of 0.5"),
        ({"seed": 1.5}, "seed = 1.5"),
        ({"latency_ms": -1.0}, "latency"),
    ],
)
def test_what_cannot_be_is_said_in_words(changed: dict[str, object], said: str) -> None:
    with pytest.raises(FringeError, match=said):
        FormValues(KNOWN, **changed).settings()  # type: ignore[arg-type]
