"""A model from data: both ends build the same, or know that they do not."""

from __future__ import annotations

import subprocess
import sys
from typing import Any

import pytest
import torch
from odd_models import Branching, Tied
from torch import nn

from flower_edge.errors import SplitError
from flower_edge.splitting.architecture import build, described, known
from flower_edge.splitting.order import ArchitectureSpec

ZOO = {
    "lenet5": ((1, 28, 28), {}),
    "logistic": ((1, 8, 8), {}),
    "mlp": ((1, 8, 8), {"hidden": [16, 16]}),
    "cnn": ((1, 8, 8), {}),
    "resnet": ((1, 8, 8), {}),
    "char-transformer": ((6,), {"width": 16, "heads": 2, "blocks": 1}),
}


def spec(name: str, shape: tuple[int, ...] = (5,), **more: Any) -> ArchitectureSpec:
    return ArchitectureSpec(name=name, input_shape=shape, num_classes=10, **more)


@pytest.mark.parametrize("name", ZOO)
def test_both_ends_build_the_same_from_what_went_over_the_wire(name: str) -> None:
    shape, options = ZOO[name]
    asked = spec(name, shape, options=options)
    told = described(asked, build(asked, seed=1))
    read = ArchitectureSpec.model_validate_json(told.model_dump_json())
    one, other = build(read, seed=1), build(read, seed=1)
    assert one.digest == other.digest == told.digest
    for array, tensor in one.model.state_dict().items():
        assert torch.equal(tensor, other.model.state_dict()[array])


def test_another_seed_gives_other_numbers_and_the_same_architecture() -> None:
    one, other = build(spec("cnn", (1, 8, 8)), seed=1), build(spec("cnn", (1, 8, 8)), seed=2)
    assert one.digest == other.digest
    assert not torch.equal(one.model.state_dict()["conv1.weight"], other.model.state_dict()["conv1.weight"])


def test_building_leaves_the_random_state_alone() -> None:
    before = torch.get_rng_state()
    build(spec("cnn", (1, 8, 8)), seed=1)
    build(spec("own"), seed=1, models={"own": own})
    assert torch.equal(before, torch.get_rng_state())


def own(input_shape: tuple[int, ...], num_classes: int, width: int = 8) -> nn.Module:
    return nn.Sequential(nn.Linear(input_shape[0], width), nn.ReLU(), nn.Linear(width, num_classes))


def reader(input_shape: tuple[int, ...], num_classes: int) -> nn.Module:
    return Tied()


def symbols(input_shape: tuple[int, ...], num_classes: int) -> torch.Tensor:
    return torch.zeros(2, *input_shape, dtype=torch.int64)


def test_a_programs_own_model_is_built_by_name_with_its_options() -> None:
    found = build(spec("own", options={"width": 3}), models={"own": own})
    assert found.units == ("0", "1", "2")
    assert found.cuts[1].shapes == ((3,),)
    assert build(spec("own"), models={"own": own}).digest != found.digest


def test_a_factory_says_what_its_model_reads() -> None:
    reader.example = symbols  # type: ignore[attr-defined]
    try:
        assert build(spec("reader", (6,)), models={"reader": reader}).cuts[0].differentiable == (False,)
    finally:
        del reader.example  # type: ignore[attr-defined]
    with pytest.raises(SplitError, match=r"fails on an example of shape \(2, 6\) and torch.float32"):
        build(spec("reader", (6,)), models={"reader": reader})


def test_blocks_and_the_number_of_tensors_are_part_of_the_architecture() -> None:
    models = {"branching": lambda input_shape, num_classes: Branching.Root()}
    found = build(spec("branching", blocks=("first", "middle", "last")), models=models)
    assert found.units == ("first", "middle", "last")
    assert len(build(spec("resnet", (1, 8, 8), max_tensors=1)).units) < len(build(spec("resnet", (1, 8, 8))).units)


def test_another_digest_is_refused() -> None:
    asked = described(spec("own"), build(spec("own"), models={"own": own}))
    with pytest.raises(SplitError, match=r"'own' built here has the digest .* expected .* same version"):
        build(asked, models={"own": lambda input_shape, num_classes: own(input_shape, num_classes, 9)})


@pytest.mark.parametrize(
    ("asked", "words"),
    [
        (spec("nobody"), "no such model here; known are own, lenet5, logistic, mlp, cnn, resnet, char-transformer;"),
        (spec("numpy-mlp"), "NumPy's own model has no units to cut; known are own"),
        (spec("own", options={"depth": 3}), "cannot be built: .*unexpected keyword argument 'depth'"),
        (spec("cnn", (1, 8, 8), options={"depth": 3}), "'cnn' has no option 'depth'"),
        (spec("cnn", (1, 8, 9)), "square pictures"),
        (spec("failing"), "'failing' with .* cannot be built: 'depth'"),
        (spec("listing"), "`example` of the factory of 'listing' gave a list; return a tensor"),
        (spec("none"), "the factory of 'none' gave a NoneType; return a torch.nn.Module"),
    ],
)
def test_what_cannot_be_built_is_refused_with_the_reason(asked: ArchitectureSpec, words: str) -> None:
    def failing(input_shape: tuple[int, ...], num_classes: int) -> nn.Module:
        raise KeyError("depth")

    def listing(input_shape: tuple[int, ...], num_classes: int) -> nn.Module:
        return own(input_shape, num_classes)

    listing.example = lambda input_shape, num_classes: [0.0]  # type: ignore[attr-defined]
    models = {"own": own, "failing": failing, "listing": listing, "none": lambda input_shape, num_classes: None}
    with pytest.raises(SplitError, match=words):
        build(asked, models={asked.name: models[asked.name]} if asked.name in models else {"own": own})


def test_a_model_of_other_numbers_than_travel_is_refused() -> None:
    def double(input_shape: tuple[int, ...], num_classes: int) -> nn.Module:
        return nn.Linear(input_shape[0], num_classes).double()

    with pytest.raises(SplitError, match=r"parameter 'weight' is torch.float64; .*give the model \.float\(\)"):
        build(spec("double", (3,)), models={"double": double})


def test_a_negative_seed_is_refused() -> None:
    with pytest.raises(SplitError, match="seed = -1"):
        build(spec("cnn", (1, 8, 8)), seed=-1)


def test_a_programs_own_name_goes_before_the_zoos() -> None:
    assert known({"cnn": own}) == ("cnn", "lenet5", "logistic", "mlp", "resnet", "char-transformer")
    assert build(spec("cnn"), models={"cnn": own}).units == ("0", "1", "2")


def test_an_architecture_is_described_without_torch_and_its_lack_is_said() -> None:
    program = (
        "import sys; sys.modules['torch'] = None\n"
        "from flower_edge.splitting.architecture import build\n"
        "from flower_edge.splitting.order import ArchitectureSpec\n"
        "from flower_edge.errors import SplitError\n"
        "try: build(ArchitectureSpec(name='cnn', input_shape=(1, 8, 8), num_classes=10))\n"
        "except SplitError as error: print(error)\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert "pip install 'flower-edge[torch]'" in done.stdout
