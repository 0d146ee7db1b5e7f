"""N pieces in exact mode make the whole model's own steps, bit for bit: arrays, buffers, optimiser, loss."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from itertools import pairwise

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from piece_cases import EVERY, MLP, cut_of, even, frames_of, joined, works_of
from split_cases import ADAM, SGD, Case, Whole, assert_same, assert_same_whole, start_of
from torch.nn import functional

from flower_edge.models import get_arrays
from flower_edge.models.schedule import make_schedule
from flower_edge.models.train_torch import train
from flower_edge.pieces import PieceWork, run_chain
from flower_edge.splitting import CutModel, OptimiserSpec
from flower_edge.splitting.frame import Frame, Kind
from flower_edge.splitting.optimiser_torch import optimiser_arrays
from flower_edge.store import tree_from_bytes, tree_to_bytes

MOMENTUM = OptimiserSpec(lr=0.05, options={"momentum": 0.9})
#: Without dropout: there a whole model and a cut one draw alike only where both draw by unit.
PLAIN = [name for name in EVERY if name != "dropout"]
SMALL = EVERY["fan"]


def whole_loop(case: Case, spec: OptimiserSpec, steps: int = 3) -> tuple[Whole, float]:
    """As anyone would write it."""
    (x, y), model = case.data(), case.model().train()
    kind = {"sgd": torch.optim.SGD, "adam": torch.optim.Adam}[spec.name]
    optimiser = kind(model.parameters(), lr=spec.lr, **spec.options)
    losses, sizes = [], []
    for _, batch in make_schedule(x, y, steps=steps, epochs=None, batch_size=4, seed=3, first_step=0):
        optimiser.zero_grad()
        scores = model(torch.tensor(x[batch]))
        loss = functional.cross_entropy(scores.reshape(-1, case.classes), torch.tensor(y[batch]).reshape(-1))
        loss.backward()  # type: ignore[no-untyped-call]
        optimiser.step()
        losses.append(float(loss.detach()))
        sizes.append(len(batch))
    state = optimiser_arrays(optimiser, dict(model.named_parameters()))
    return Whole(get_arrays(model), state), float(np.average(losses, weights=sizes))


@pytest.mark.parametrize("name", PLAIN)
def test_one_to_five_pieces_train_as_one_machine_does_bit_for_bit(name: str) -> None:
    case, model = EVERY[name], cut_of(name)
    reference = case.model()
    expected = train(reference, *case.data(), steps=3, batch_size=4, lr=0.05, momentum=0.9, seed=3)
    for pieces in range(1, min(5, len(model.units)) + 1):
        works = works_of(case, model, start_of(case), even(len(model.units), pieces), optimiser=MOMENTUM)
        run_chain(works)
        got = joined(model, works)
        assert_same(got.arrays, get_arrays(reference))
        assert_same({key.partition("::")[0]: array for key, array in got.optimiser.items()}, expected.velocity)
        assert all(work.result().loss == expected.loss and work.made == 3 for work in works)


@pytest.mark.parametrize("spec", [SGD, ADAM], ids=["nesterov-and-weight-decay", "adam"])
@pytest.mark.parametrize("name", ["resnet", "char-transformer", "mlp"])
def test_uneven_cuts_and_other_optimisers_change_nothing(name: str, spec: OptimiserSpec) -> None:
    case, model = EVERY[name], cut_of(name)
    expected, loss = whole_loop(case, spec)
    last = len(model.units)
    for cuts in ((1,), (last - 1,), (1, 2, last - 2)):
        works = works_of(case, model, start_of(case), cuts, optimiser=spec)
        run_chain(works)
        assert_same_whole(joined(model, works), expected)
        assert works[0].result().loss == loss


@settings(max_examples=12, deadline=None)
@given(data=st.data())
def test_any_cuts_train_as_the_whole_model_does(data: st.DataObject) -> None:
    model = SMALL_MODEL
    cuts = sorted(data.draw(st.sets(st.integers(1, len(model.units) - 1), max_size=4)))
    works = works_of(SMALL, model, start_of(SMALL), cuts)
    run_chain(works)
    assert_same_whole(joined(model, works), SMALL_WHOLE[0])
    assert {work.result().loss for work in works} == {SMALL_WHOLE[1]}


SMALL_MODEL = cut_of("fan")
SMALL_WHOLE = whole_loop(SMALL, SGD)


def test_a_piece_for_every_unit_trains_as_one() -> None:
    model, case = cut_of("mlp"), MLP
    works = works_of(case, model, start_of(case), range(1, len(model.units)))
    run_chain(works)
    assert_same_whole(joined(model, works), whole_loop(case, SGD)[0])


def test_dropout_draws_alike_wherever_the_model_is_cut() -> None:
    case, model = EVERY["dropout"], cut_of("dropout")
    found = []
    for pieces in (1, 2, 5):
        works = works_of(case, model, start_of(case), even(len(model.units), pieces))
        run_chain(works)
        found.append(joined(model, works))
    assert_same_whole(found[1], found[0])
    assert_same_whole(found[2], found[0])


def test_rounds_with_other_cuts_go_on_where_the_last_ended() -> None:
    case, model = EVERY["resnet"], cut_of("resnet")
    last, now = len(model.units), start_of(case)
    for made, cuts in enumerate([(2, 9), (), (last - 1,)]):
        works = works_of(case, model, now, cuts, steps=1, first_step=made)
        run_chain(works)
        now = joined(model, works)
    assert_same_whole(now, whole_loop(case, SGD)[0])


def test_a_step_of_n_pieces_is_two_frames_for_each_cut() -> None:
    said = frames_of(works_of(SMALL, cut_of("fan"), start_of(SMALL), (2, 4)))
    one_step = [(0, "next"), (1, "next"), (2, "previous"), (1, "previous")]
    assert [(place, one.to) for place, one in said] == one_step * 3
    assert all((one.frame.labels is not None) == (one.to == "next") for _, one in said)


def resumed_everywhere(case: Case, model: CutModel, cuts: Sequence[int], works: list[PieceWork]) -> list[PieceWork]:
    """Run a chain whose processes are gone after every frame: all that is left of them is bytes."""
    x, y = case.data()
    waiting: deque[tuple[int, Frame | None]] = deque([(0, None)])
    while waiting:
        place, frame = waiting.popleft()
        order = works[place].order
        kept = tree_from_bytes(tree_to_bytes(works[place].state()))
        works[place] = PieceWork.resumed(order, model, kept, **({"x": x, "y": y} if order.first else {}))
        for said in works[place].take(frame):
            waiting.append((place + (1 if said.to == "next" else -1), said.frame))
        if order.mode == "decoupled" and not waiting and not works[0].done:
            waiting.append((0, None))
    return works


@pytest.mark.parametrize("name", ["resnet", "dropout", "char-transformer"])
def test_a_terminal_resumed_at_every_frame_changes_nothing(name: str) -> None:
    case, model = EVERY[name], cut_of(name)
    cuts = even(len(model.units), 3)
    plain = works_of(case, model, start_of(case), cuts)
    run_chain(plain)
    works = resumed_everywhere(case, model, cuts, works_of(case, model, start_of(case), cuts))
    assert all(work.done for work in works)
    assert_same_whole(joined(model, works), joined(model, plain))
    assert [work.result().loss for work in works] == [work.result().loss for work in plain]


def test_a_decoupled_terminal_resumed_at_every_frame_changes_nothing() -> None:
    case, model, cuts = MLP, cut_of("mlp"), (2, 5)
    plain = works_of(case, model, start_of(case), cuts, mode="decoupled")
    run_chain(plain)
    works = resumed_everywhere(case, model, cuts, works_of(case, model, start_of(case), cuts, mode="decoupled"))
    assert_same_whole(joined(model, works), joined(model, plain))
    for work, other in pairwise([works[1], plain[1]]):
        assert_same(work.result().head, other.result().head)
        assert_same(work.result().head_optimiser, other.result().head_optimiser)


def test_of_a_step_under_way_nothing_is_in_the_result() -> None:
    case, model = EVERY["resnet"], cut_of("resnet")
    works = works_of(case, model, start_of(case), even(len(model.units), 3))
    (said,) = works[0].take(None)
    works[1].take(said.frame)
    for work in works:
        found = work.result()
        assert (found.steps, found.samples, found.optimiser) == (0, 0, {})
        assert np.isnan(found.loss)
    assert_same(joined(model, works).arrays, start_of(case).arrays)


def test_the_work_is_counted_by_the_profile() -> None:
    works = works_of(SMALL, cut_of("fan"), start_of(SMALL), (2, 4))
    run_chain(works)
    profile = cut_of("fan").profile()
    results = [work.result() for work in works]
    assert [found.samples for found in results] == [10, 10, 10]
    assert sum(found.flops for found in results) == pytest.approx(10 * profile.train_flops(0, profile.last))
    assert all(found.compute_s > 0 for found in results)


def test_nopeek_is_part_of_the_loss_of_the_first_piece_only() -> None:
    model, one = cut_of("fan"), works_of(SMALL, cut_of("fan"), start_of(SMALL), (4,), steps=1)
    other = works_of(SMALL, model, start_of(SMALL), (4,), steps=1, nopeek=1.0)
    run_chain(one)
    run_chain(other)
    assert_same(other[1].result().arrays, one[1].result().arrays)
    assert not np.array_equal(other[0].result().arrays["first.weight"], one[0].result().arrays["first.weight"])
    assert one[0].result().loss == other[0].result().loss


def test_the_frame_kinds_are_those_of_split_learning() -> None:
    said = frames_of(works_of(SMALL, cut_of("fan"), start_of(SMALL), (3,), steps=1))
    assert [one.frame.kind for _, one in said] == [Kind.ACTIVATIONS, Kind.GRADIENT]
