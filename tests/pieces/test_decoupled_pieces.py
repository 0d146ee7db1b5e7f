"""Pieces that learn by heads of their own: no gradient travels, and no piece waits for the next."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from piece_cases import EVERY, MLP, cut_of, even, frames_of, joined, sent_bytes, works_of
from split_cases import SGD, assert_same, assert_same_whole, make_order, pick, start_of

from flower_edge.errors import ModelMismatch, SplitError
from flower_edge.models.train_torch import evaluate, set_arrays
from flower_edge.pieces import PieceWork, head_positions, make_head, piece_orders, run_chain
from flower_edge.splitting import CutModel, OptimiserSpec
from flower_edge.splitting.frame import Frame, Kind

MODEL = cut_of("mlp")
START = start_of(MLP)
CUTS = (3, 6)


def test_no_gradient_travels_and_half_the_tensors_do() -> None:
    exact, decoupled = (frames_of(works_of(MLP, MODEL, START, CUTS, mode=mode)) for mode in ("exact", "decoupled"))
    assert {said.frame.kind for _, said in decoupled} == {Kind.ACTIVATIONS}
    assert [(place, said.frame.step) for place, said in decoupled] == [(0, 0), (1, 0), (0, 1), (1, 1), (0, 2), (1, 2)]
    up = sent_bytes(exact, Kind.ACTIVATIONS)
    assert sent_bytes(decoupled, Kind.ACTIVATIONS) == up == sent_bytes(exact, Kind.GRADIENT)


@pytest.mark.parametrize("name", ["mlp", "dropout"])
def test_one_piece_is_exact(name: str) -> None:
    case, model, found = EVERY[name], cut_of(name), []
    for mode in ("exact", "decoupled"):
        works = works_of(case, model, start_of(case), (), mode=mode)
        assert works[0].take(None) == ()
        assert works[0].done
        found.append(joined(model, works))
    assert_same_whole(*found)


@pytest.mark.parametrize("place", [1, 2])
def test_a_piece_alone_on_recorded_activations_computes_the_same(place: int) -> None:
    works = works_of(MLP, MODEL, START, CUTS, mode="decoupled")
    recorded = [said.frame for who, said in frames_of(works) if who == place - 1]
    alone = works_of(MLP, MODEL, START, CUTS, mode="decoupled")[place]
    for frame in recorded:
        alone.take(frame)
    one, other = alone.result(), works[place].result()
    assert alone.done
    for mine, theirs in ((one.arrays, other.arrays), (one.optimiser, other.optimiser), (one.head, other.head)):
        assert_same(mine, theirs)
    assert one.loss == other.loss


def test_a_later_piece_may_be_any_number_of_steps_behind() -> None:
    prompt = works_of(MLP, MODEL, START, CUTS, mode="decoupled")
    run_chain(prompt)
    late = works_of(MLP, MODEL, START, CUTS, mode="decoupled")
    waiting: list[Frame | None] = [None] * 3
    for work in late:
        assert not work.made
        waiting = [said.frame for frame in waiting for said in work.take(frame)]
        assert work.done
    assert waiting == []
    assert_same_whole(joined(MODEL, late), joined(MODEL, prompt))


def test_the_first_piece_takes_the_step_its_own_head_asks_for() -> None:
    """Against autograd by hand: the units, the head, one step of plain SGD."""
    plain = OptimiserSpec(lr=0.1)
    works = works_of(MLP, MODEL, START, CUTS, mode="decoupled", optimiser=plain, steps=1, batch_size=10)
    (said,) = works[0].take(None)
    stage, head = CutModel.of(MLP.model(), MODEL.example).stage(0, 3).train(), make_head(MODEL.profile(), 3)
    x, y = MLP.data()
    order = np.random.default_rng([3, 0]).permutation(10)
    live = stage(torch.tensor(x[order]))[0]
    loss = torch.nn.functional.cross_entropy(head(live), torch.tensor(y[order]))
    loss.backward()  # type: ignore[no-untyped-call]
    found = works[0].result()
    for name, tensor in (*stage.named_parameters(), *head.named_parameters()):
        assert tensor.grad is not None
        moved = (tensor - 0.1 * tensor.grad).detach().numpy()
        np.testing.assert_allclose({**found.arrays, **found.head}[name], moved, rtol=1e-6, atol=1e-7)
    np.testing.assert_array_equal(said.frame.tensors[0], live.detach().numpy())
    np.testing.assert_array_equal(said.frame.labels, y[order])
    assert found.loss == float(loss.detach())


def test_heads_go_on_in_the_next_round() -> None:
    once = works_of(MLP, MODEL, START, CUTS, mode="decoupled", steps=2)
    run_chain(once)
    rounds = works_of(MLP, MODEL, START, CUTS, mode="decoupled", steps=1)
    run_chain(rounds)
    x, y = MLP.data()
    again = []
    work = make_order(1, steps=1, first_step=1, optimiser=SGD)
    for order, before in zip(piece_orders(work, len(MODEL.units), CUTS, mode="decoupled"), rounds, strict=True):
        kept = before.result()
        data = {"x": x, "y": y} if order.first else {}
        again.append(
            PieceWork(
                order,
                MODEL,
                kept.arrays,
                kept.optimiser,
                head=kept.head,
                head_optimiser=kept.head_optimiser,
                **data,
            )
        )
    run_chain(again)
    assert_same_whole(joined(MODEL, again), joined(MODEL, once))
    for one, other in zip(again, once, strict=True):
        assert_same(one.result().head, other.result().head)
        assert_same(one.result().head_optimiser, other.result().head_optimiser)


def test_the_model_that_is_put_together_learns() -> None:
    model = MLP.model()
    before = evaluate(model, *MLP.data())
    works = works_of(MLP, MODEL, START, CUTS, mode="decoupled", steps=60)
    run_chain(works)
    set_arrays(model, joined(MODEL, works).arrays)
    after = evaluate(model, *MLP.data())
    assert after.loss < 0.7 * before.loss
    assert works[0].result().loss < before.loss


@pytest.mark.parametrize("name", ["resnet", "lenet5", "char-transformer"])
def test_pictures_and_sequences_have_heads(name: str) -> None:
    case, model = EVERY[name], cut_of(name)
    places = head_positions(model.profile())
    cuts = (places[0], places[len(places) // 2])
    works = works_of(case, model, start_of(case), cuts, mode="decoupled")
    run_chain(works)
    assert all(work.done for work in works)
    assert [sorted(work.result().head) for work in works] == [["linear.bias", "linear.weight"]] * 2 + [[]]
    profile = model.profile()
    for work in works[:2]:
        found = work.result()
        matrix = found.head["linear.weight"].size * (6 if name == "char-transformer" else 1)
        assert found.flops == found.samples * (profile.train_flops(work.order.start, work.order.stop) + 6 * matrix)


def test_every_head_begins_alike_and_leaves_torch_s_generator_alone() -> None:
    state = torch.get_rng_state()
    one, other = make_head(MODEL.profile(), 3), make_head(MLP.cut_model().profile(), 3)
    assert torch.equal(torch.get_rng_state(), state)
    assert all(torch.equal(a, b) for a, b in zip(one.parameters(), other.parameters(), strict=True))


def test_heads_where_none_belong_are_refused() -> None:
    x, y = MLP.data()
    head = {"linear.weight": np.zeros((3, 16), np.float32), "linear.bias": np.zeros(3, np.float32)}
    exact = piece_orders(make_order(1), len(MODEL.units), CUTS)
    with pytest.raises(SplitError, match="a head for place 0 of 3 in mode 'exact'"):
        PieceWork(exact[0], MODEL, pick(MODEL, START, (0, 3)).arrays, {}, x=x, y=y, head=head)
    orders = piece_orders(make_order(1), len(MODEL.units), CUTS, mode="decoupled")
    last = pick(MODEL, START, (6, len(MODEL.units))).arrays
    with pytest.raises(SplitError, match="all places but the last"):
        PieceWork(orders[2], MODEL, last, {}, head=head)
    wrong = {**head, "linear.weight": np.zeros((3, 5), np.float32)}
    with pytest.raises(ModelMismatch, match=r"linear\.weight"):
        PieceWork(orders[0], MODEL, pick(MODEL, START, (0, 3)).arrays, {}, x=x, y=y, head=wrong)


def test_a_cut_with_several_tensors_names_cuts_with_one() -> None:
    model = cut_of("resnet")
    crowded = next(cut.position for cut in model.cuts if len(cut.shapes) > 1)
    with pytest.raises(SplitError, match=rf"cut {crowded} .*2 tensors .* are live there; cut at \d+ \(.*mode='exact'"):
        make_head(model.profile(), crowded)
    with pytest.raises(SplitError, match="nothing before it is trained"):
        make_head(MODEL.profile(), 1)


def test_even_pieces_of_the_case_have_heads() -> None:
    assert set(CUTS) <= set(head_positions(MODEL.profile()))
    assert even(9, 3) == (3, 6)
