"""`flower-edge plan-split`: what each cut of a model costs on given devices, and which cuts to take. Trains nothing."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from ..splitting.cutting_torch import CutModel
    from ..splitting.profile import ModelProfile

__all__ = ["register"]


def register(app: typer.Typer) -> None:
    """Add the verb to the command line."""
    app.command("plan-split")(plan_split)


def plan_split(
    model: Annotated[str | None, typer.Option(help="A model's name, as in 'resnet'; else --profile.")] = None,
    profile: Annotated[
        Path | None, typer.Option(metavar="FILE", help="A profile that --save-profile wrote; needs no torch.")
    ] = None,
    input_shape: Annotated[str, typer.Option(metavar="SHAPE", help="Of one sample, with x between.")] = "1x32x32",
    classes: Annotated[int, typer.Option(min=1, help="Scores of the model.")] = 10,
    device: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME=GFLOPS:UP:DOWN:DELAY[:MEMORY]",
            help="GFLOP/s, Mbit/s, ms, MB; for each device. What is left out does not limit.",
        ),
    ] = None,
    devices: Annotated[
        Path | None, typer.Option(metavar="FILE", help="TOML or JSON: a list 'devices' of such, by field names.")
    ] = None,
    cloud: Annotated[
        str, typer.Option(metavar="GFLOPS[:UP[:DOWN]]", help="Shared by all; its access in Mbit/s where it binds.")
    ] = "50",
    batch: Annotated[int, typer.Option(min=1, help="Samples a step.")] = 32,
    steps: Annotated[int, typer.Option(min=1, help="Steps a round.")] = 10,
    merge_every: Annotated[int, typer.Option("--merge-every", min=1, help="Rounds between merges.")] = 5,
    codecs: Annotated[
        str,
        typer.Option(
            "--codecs",
            "--bits",
            metavar="NAMES",
            help="Candidates at the cut, with commas between: none, fp16, int8, int4, int2, top10, or int4/int8 for "
            "tensors/gradients. The first is that of the table of cuts.",
        ),
    ] = "int8",
    labels: Annotated[str, typer.Option(help="Who has them: 'cloud' or 'device' (U-shaped).")] = "cloud",
    tail: Annotated[int, typer.Option(min=0, help="Last units on the device; with --labels device.")] = 0,
    least_cut: Annotated[int, typer.Option("--least-cut", min=0, help="Units that stay on every device.")] = 1,
    train_ms: Annotated[float | None, typer.Option("--train-ms", help="Budget of computing, T_train.")] = None,
    transfer_ms: Annotated[float | None, typer.Option("--transfer-ms", help="Budget of transfers, T_trans.")] = None,
    jitter: Annotated[float, typer.Option(help="Rates may fall to 1 - jitter of what is reserved.")] = 0.0,
    timed: Annotated[int, typer.Option(min=0, help="Calibrate FLOPs with so many timed steps on this host.")] = 0,
    leakage: Annotated[
        str | None, typer.Option(metavar="DATA", help="Gauge what each cut gives away of 200 samples, as of 'digits'.")
    ] = None,
    save_profile: Annotated[
        Path | None, typer.Option("--save-profile", metavar="FILE", help="Write the profile, for --profile.")
    ] = None,
    plot: Annotated[Path | None, typer.Option(metavar="FILE", help="Draw costs by cut: .png or .svg.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON document and nothing else.")] = False,
) -> None:
    """Profile a model, say what a step costs each device at every cut, and plan cuts, codecs and bandwidth.

    The first table has all devices cut at the same unit: share of computing on the device, tensors that cross (skip
    connections are one more), bytes both ways of a step, and each device's time of it. The second is the plan: the
    least step time that all can keep together, and the most layers within it for each; or with --train-ms and
    --transfer-ms the most layers that keep these. The last line says whether splitting is quicker than plain federated
    training of the whole model, all costs in. Times are modelled.

    leakage: distance correlation of inputs and what crosses, 0 to 1, of a model that is not trained; no proof.

    Exit code: 0 planned (also where it does not pay), 2 something that cannot be planned.

    Example: flower-edge plan-split --model resnet --device camera=0.1:200 --device laptop=2:50
    """
    from ..errors import ConfigError, SplitError
    from ..splitting.budgets import Budgets
    from ..splitting.codec_pairs import codecs_named
    from ..splitting.costs import Job
    from ..splitting.dynamic import Dynamic
    from ..splitting.plan import DeviceView
    from ..units import ms_to_s
    from .plan_split_inputs import cloud_from, device_from, devices_from, unique
    from .plan_split_table import cut_costs, draw_costs, named, plain_values, tables

    if (train_ms is None) != (transfer_ms is None):
        raise ConfigError("budgets come in two: give --train-ms and --transfer-ms, or neither")
    if labels not in ("cloud", "device"):
        raise ConfigError(f"--labels {labels!r}: expected 'cloud' or 'device'")
    capacities = devices_from(devices.expanduser()) if devices else {}
    capacities |= unique([device_from(text) for text in device or []])
    if not capacities:
        raise ConfigError("no device to plan for; give --device camera=0.1:20:50:5, or --devices FILE")
    candidates = tuple(codecs_named(name.strip()) for name in codecs.split(",") if name.strip())
    shared = cloud_from(cloud)
    job = Job(batch, steps, merge_every, "cloud" if labels == "cloud" else "device", tail)
    budgets = None if train_ms is None or transfer_ms is None else Budgets(ms_to_s(train_ms), ms_to_s(transfer_ms))
    found, cut_model = _profile(model, profile, input_shape, classes, batch, timed)
    if save_profile is not None:
        from ..store.atomic import write_bytes

        write_bytes(save_profile.expanduser(), (found.to_json() + "\n").encode())
    leak = None if leakage is None else _leakage(leakage, cut_model)

    names = list(capacities)
    views = {at: DeviceView(capacities[name]) for at, name in enumerate(names)}
    planner = Dynamic(shared, job, budgets, candidates, least_cut, jitter=jitter)
    try:
        costs = cut_costs(found, names, views, shared, job, candidates[0], least_cut)
        plan = planner.plan(found, views, 1)
    except SplitError as error:
        raise SplitError(named(str(error), names)) from None
    name = model or (profile.stem if profile else "model")
    drawn = None
    if plot is not None:
        drawn = draw_costs(found, names, costs, plan, plot.expanduser(), f"{name}, batch {batch}, {candidates[0].name}")
    if as_json:
        values = plain_values(found, names, costs, plan, leak)
        print(json.dumps({"model": name, **values, "picture": drawn and str(drawn)}, indent=2))
        return
    flops = found.train_flops(0, found.last)
    print(
        f"{name}: {found.last} units, {flops / 1e6:.3g} MFLOP to train on a sample, "
        f"{found.state_bytes(0, found.last) / 1e3:.4g} kB; steps of {batch} samples, {candidates[0].name} at the cut\n"
    )
    print(tables(found, names, costs, plan, leak))
    if drawn is not None:
        print(f"drawn: {drawn}")


def _profile(
    model: str | None, path: Path | None, input_shape: str, classes: int, batch: int, timed: int
) -> tuple[ModelProfile, CutModel | None]:
    """From a file, or of a model that is built and measured here."""
    from ..errors import ConfigError
    from ..splitting.profile import ModelProfile
    from .plan_split_inputs import shape_from

    if (model is None) == (path is None):
        raise ConfigError("give --model NAME or --profile FILE, one of them; see flower-edge plan-split --help")
    if path is not None:
        if timed:
            raise ConfigError("--timed measures a model, and --profile was measured before; give --model instead")
        try:
            text = path.expanduser().read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise ConfigError(f"--profile {path}: {error}; write one with --save-profile") from None
        return ModelProfile.from_json(text), None
    from ..splitting.architecture import build
    from ..splitting.order import ArchitectureSpec

    spec = ArchitectureSpec(name=model or "", input_shape=shape_from(input_shape), num_classes=classes)
    cut_model = build(spec)
    from ..splitting.architecture_torch import example_of
    from ..splitting.profile_torch import measure

    example = example_of(spec)
    if timed:
        # On a batch as it will be trained: small ones take longer a sample.
        example = example.repeat(-(-batch // len(example)), *[1] * (example.dim() - 1))[:batch]
    return measure(cut_model, example, timed_steps=timed, progress=_progress(timed)), cut_model


def _progress(timed: int) -> Any:
    """Steps on stderr, where somebody looks on."""
    if not timed or not sys.stderr.isatty():
        return None
    return lambda done, total: print(f"\rmeasuring: {done} of {total} steps", end="", file=sys.stderr)


def _leakage(data: str, cut_model: CutModel | None) -> dict[int, float]:
    """Of the first 200 samples of a data set."""
    from ..errors import ConfigError

    if cut_model is None:
        raise ConfigError("--leakage runs a model, which a profile does not have; give --model")
    from ..data import load_dataset
    from ..splitting.leakage_torch import measure

    shape = tuple(cut_model.example.shape[1:])
    train, _ = load_dataset(data, size=shape[-1] if len(shape) == 3 else None)
    if train.input_shape != shape:
        raise ConfigError(
            f"--leakage {data!r} has samples of {'x'.join(map(str, train.input_shape))}, the model takes "
            f"{'x'.join(map(str, shape))}; give another --input-shape"
        )
    return measure(cut_model, train.x[:200])
