"""`automatic`: machines, cuts, depths and methods for a model, from what is measured. `model_costs` measures it.

    model  ->  seconds and bytes of units, places to cut, what coding them takes  ->  choose  ->  Chosen, and why

The first machine has the input, the last one needs the output; those between may be left out. Seconds are measured on
this host; `speeds` says how other machines compare. Links are whatever is measured or said: `automatic` with the same
costs on other links says whether to move, see `automatic_following`. Nothing here compresses.

Source: [2] ¶44-46, automated control.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping, Sequence
from statistics import median

import torch
from torch import nn

from ..errors import EdgeError, FringeError
from ..splitting.cutting_torch import CutModel
from .actions import prunable
from .automatic_choice import between, choose
from .automatic_reach import RuleReach
from .automatic_values import Chosen, CutPlace, Given, Kind, ModelCosts, Reach
from .automatic_words import told
from .fringe_torch import fringe
from .goals import Goals
from .links import Link
from .pair_shapes import PairShape, least_shape, pair_shapes
from .pair_torch import Pair
from .parts_torch import position_of
from .pipeline_torch import Pipeline, distribute
from .policy_learned import CostModel
from .pruning_pipeline_torch import prune
from .wire_forms import WireForm

__all__ = ["automatic", "model_costs"]

#: How much worse the metric may become where goals name a floor and nobody says what it is now.
_DROP = 0.01
_KINDS: Mapping[int, Kind] = {3: "picture", 2: "sequence", 1: "vector"}


def automatic(
    model: CutModel | nn.Module,
    example: torch.Tensor,
    machines: Sequence[str],
    links: Sequence[Link] | Mapping[tuple[str, str], Link],
    goals: Goals,
    *,
    speeds: Mapping[str, float] | None = None,
    first: bool = True,
    last_machine: bool = True,
    given: Given | None = None,
    learned: Reach | CostModel | None = None,
    most_bytes: Mapping[str, int] | None = None,
    score: float | None = None,
    costs: ModelCosts | None = None,
    blocks: Sequence[str] = (),
    to_floor: bool = False,
) -> Chosen:
    """Choose what the user has not.

    Args:
        model: one tensor in, one tensor out; cut already or not.
        example: [batch, ...] with a batch of 2 or more.
        machines: names of all there are, in the order in which an inference may pass them.
        links: between each two neighbours, or by two names; see `between`.
        goals: what is asked for.
        speeds: of machines, this host having 1; those not named have 1.
        first: whether the first machine has to be used, because it has the input.
        last_machine: whether the last one has to be, because it needs the output.
        given: what is decided already.
        learned: how few bytes compression leaves, from what was recorded: a `LearnedPlan`, or the `CostModel` of a
            policy; None: rules of thumb.
        most_bytes: of parameters and buffers, of machines that have a limit.
        score: of the metric without compression, where `goals` have a floor instead of a drop.
        costs: of the same model, measured before; None: measured now.
        blocks: as for `CutModel.of`, where the model is not cut yet.
        to_floor: choose for the least latency that the floor allows, whatever the goals are; they are expected to be
            such that compression does not end before.

    Returns:
        The choice, and why. Goals that are not expected to be met are said to be so in `why`, with `reached` False.

    Raises:
        FringeError: names, speeds or links that do not go together; a model that does not fit; goals that no placement
            can reach, with the most that one could.
        SplitError: a model that cannot be cut.
    """
    names, given = tuple(machines), given or Given()
    if isinstance(machines, str) or not names or len(set(names)) != len(names) or "" in names:
        raise FringeError(f"machines = {machines!r}: expected names, none twice, such as ['camera', 'cloud']")
    wanted = {*(given.machines or ()), *(given.depth or {}), *(speeds or {}), *(most_bytes or {})}
    unknown = sorted(wanted - set(names))
    order = [name for name in names if name in (given.machines or ())]
    if unknown or (given.machines is not None and order != list(given.machines)):
        raise FringeError(f"machines {unknown or list(given.machines or ())}: expected some of {names}, in that order")
    for machine, speed in (speeds or {}).items():
        if not 0 < speed < math.inf:
            raise FringeError(f"speed = {speed!r} of machine {machine!r}: expected above 0; 1 is as fast as this host")
    cut_model = model if isinstance(model, CutModel) else CutModel.of(model, example, blocks=blocks)
    positions = None if given.cuts is None else [position_of(cut_model, cut) for cut in given.cuts]
    if positions is not None and positions != sorted(set(positions)):
        raise FringeError(f"cuts = {list(given.cuts or ())} at positions {positions}: expected rising ones")
    if costs is None or (positions and not set(positions) <= {place.position for place in costs.places}):
        costs = model_costs(cut_model, example, also=positions or ())
    if positions is not None and not set(positions) <= {place.position for place in costs.places}:
        raise FringeError(f"cuts = {list(given.cuts or ())}: {cut_model.units} cannot be cut at all of them")
    reach: Reach = RuleReach()
    if isinstance(learned, CostModel):
        from .automatic_learned import CostReach

        reach = CostReach(learned)
    elif learned is not None:
        reach = learned
    drop = (
        goals.drop
        if goals.drop is not None
        else _DROP
        if score is None
        else goals.judge.lost(goals.worst(score), score)
    )
    found = choose(
        costs, names, between(names, links), goals, reach,
        drop=drop, speeds=dict(speeds or {}), first=first and given.machines is None,
        last_machine=last_machine and given.machines is None, given=given, positions=positions,
        room_bytes=dict(most_bytes or {}), to_floor=to_floor,
    )  # fmt: skip
    return told(found, names, costs, goals, reach, given, drop, dict(speeds or {}))


def model_costs(
    cut_model: CutModel,
    example: torch.Tensor,
    *,
    also: Sequence[int] = (),
    repeats: int = 5,
    clock: Callable[[], float] = time.perf_counter,
) -> ModelCosts:
    """Measure a model in evaluation, one sample at a time.

    Places that cannot be the best are left out: of neighbouring ones where the same shapes cross all but the last, and
    those inside a block, with more than one tensor, that lie between two places where no more bytes cross. So are those
    that cannot be cut because a weight would be on both sides.

    Args:
        cut_model: to be placed; left as it was.
        example: [batch, ...] with a batch of 2 or more.
        also: positions that are measured in any case.
        repeats: whose median counts, after one that does not.
        clock: seconds.

    Raises:
        FringeError: fewer repeats than one.
    """
    if repeats < 1:
        raise FringeError(f"repeats = {repeats}: expected 1 or more")
    training = cut_model.model.training
    unit_s = []
    try:
        with torch.no_grad():
            tensors: tuple[torch.Tensor, ...] = (example[:1],)
            for unit in range(len(cut_model.units)):
                stage = cut_model.stage(unit, unit + 1).eval()
                inputs = tensors
                unit_s.append(_timed(lambda stage=stage, inputs=inputs: stage(*inputs), repeats, clock))  # type: ignore[misc]
                tensors = stage(*inputs)
    finally:
        cut_model.model.train(training)
    state = cut_model.model.state_dict()
    unit_bytes = tuple(
        sum(state[name].numel() * state[name].element_size() for name in cut_model.names(unit, unit + 1))
        for unit in range(len(cut_model.units))
    )
    places = []
    for position in sorted({*_worth(cut_model), *also}):
        try:
            pipeline = distribute(cut_model, example, ["before", "after"], [position])
        except EdgeError:  # a weight on both sides, or a tensor that no wire carries
            continue
        places.append(_place(cut_model, pipeline, position, repeats, clock))
    return ModelCosts(tuple(unit_s), unit_bytes, tuple(places))


def _worth(cut_model: CutModel) -> list[int]:
    inner = cut_model.cuts[1:-1]
    last = [
        cut for number, cut in enumerate(inner)
        if number + 1 == len(inner) or inner[number + 1].shapes != cut.shapes
    ]  # fmt: skip
    return [
        cut.position
        for number, cut in enumerate(last)
        if len(cut.shapes) == 1
        or not any(one.values <= cut.values for one in last[:number])
        or not any(one.values <= cut.values for one in last[number + 1 :])
    ]


def _place(
    cut_model: CutModel, pipeline: Pipeline, position: int, repeats: int, clock: Callable[[], float]
) -> CutPlace:
    wire = pipeline.wires[0]
    tensor, axis = prunable(wire)
    shapes = tuple(spec.shape for spec in wire.specs)
    largest = shapes[tensor] if tensor >= 0 else ()
    channels = largest[axis - 1] if tensor >= 0 else 0
    refusal = "" if channels > 1 else "one channel, or whole numbers, cross"
    if not refusal:
        try:
            # As deep as can be: which layers may change is chosen later.
            prune(pipeline, 0, range(channels - 1), fringe=fringe(pipeline, 2), tensor=tensor, axis=axis)
        except FringeError as error:
            refusal = str(error)
    crossing = [one[:1].numpy() for one in pipeline.crossing(pipeline.example)[0]]
    four = wire.formed(WireForm(4))
    frame = four.encode(crossing)
    encode_s = _timed(lambda: four.encode(crossing), repeats, clock)
    decode_s = _timed(lambda: four.decode(frame), repeats, clock)
    shape = _code(shapes) if all(spec.dtype == "float32" for spec in wire.specs) else None
    return CutPlace(
        position,
        cut_model.units[position - 1],
        _KINDS.get(len(largest), "other"),
        channels,
        sum(math.prod(one) for one in shapes),
        wire.size_bytes(),
        wire.formed(WireForm(8)).size_bytes(),
        four.size_bytes(),
        None if shape is None else least_shape(shapes).size_bytes,
        not refusal,
        refusal,
        (encode_s, decode_s),
        (0.0, 0.0) if shape is None else _pair_s(shape, crossing, repeats, clock),
    )


def _code(shapes: tuple[tuple[int, ...], ...]) -> PairShape | None:
    """Of about a sixteenth of the bytes; None where no pair takes the tensors."""
    try:
        least, plain = least_shape(shapes).size_bytes, PairShape(shapes, 1).plain_bytes
        return pair_shapes(shapes, max(least, plain // 16))[0]
    except FringeError:
        return None


def _pair_s(
    shape: PairShape, crossing: Sequence[object], repeats: int, clock: Callable[[], float]
) -> tuple[float, float]:
    pair = Pair(shape).eval()
    tensors = [torch.as_tensor(one) for one in crossing]
    with torch.no_grad():
        code = pair.encoder(*tensors)
        return (
            _timed(lambda: pair.encoder(*tensors), repeats, clock),
            _timed(lambda: pair.decoder(code), repeats, clock),
        )


def _timed(work: Callable[[], object], repeats: int, clock: Callable[[], float]) -> float:
    taken = []
    for _ in range(repeats + 1):
        begun = clock()
        work()
        taken.append(clock() - begun)
    return max(0.0, median(taken[1:]))
