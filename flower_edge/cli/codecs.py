"""`flower-edge codecs`: which there are, what they do to a model, which to take for a link. Changes nothing."""

from __future__ import annotations

import json
import math
import re
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer

from .columns import NOTHING, columns, traffic
from .runs import RootOption

if TYPE_CHECKING:
    from .codec_subjects import Subject
    from .codec_trials import Trial

__all__ = ["advice", "rate_bps", "register"]

JsonOption = Annotated[bool, typer.Option("--json", help="Print one JSON document and nothing else.")]
CodecsOption = Annotated[
    str | None,
    typer.Option("--codecs", metavar="NAMES", help="Names with commas between them, or a config as JSON; else all."),
]
BeforeOption = Annotated[
    str | None, typer.Option(metavar="FILE", help="An earlier version of the same arrays: what moved is measured.")
]
SeedOption = Annotated[int, typer.Option(help="Of what is drawn.")]

_RATE: Final = re.compile(r"\s*([0-9]+(?:\.[0-9]+)?)\s*([kKMG]?)bit/s\s*")
_TIMES: Final = {"": 1.0, "k": 1e3, "K": 1e3, "M": 1e6, "G": 1e9}
_MEASURED: Final = ("codec", "bytes", "ratio", "error", "encode GB/s", "decode GB/s", "pays up to")
#: Less than this many times as soon is within what such a measurement says.
_HARDLY: Final = 1.2


def register(app: typer.Typer) -> None:
    """Add the verb, which has verbs of its own, to the command line."""
    verbs = typer.Typer(
        help="Codecs: which there are, what they do to a model, which to take for a link.", no_args_is_help=True
    )
    verbs.command("list")(list_codecs)
    verbs.command("measure")(measure)
    verbs.command("recommend")(recommend)
    app.add_typer(verbs, name="codecs")


def list_codecs(as_json: JsonOption = False) -> None:
    """Say which codecs have a name: what they do and keep, whether they are unbiased, bits a parameter.

    keeps: 'errors', what a message left out, for later ones; 'state', something else; 'shared', it lives on what the
    server publishes (and is shown here without). Bits are of a drawn update of 100,000 numbers, all overhead within.

    Exit code: 0.

    Example: flower-edge codecs list
    """
    from ..codecs.named import CODECS
    from .codec_subjects import subject
    from .codec_trials import keeps_state, lives_on_shared, remembers

    on = subject("matrix:250x400")
    found: list[dict[str, Any]] = []
    for name, named in CODECS.items():
        codec = named.make(0)
        payload, _ = codec.encode(on.arrays, codec.init(on.arrays))
        kept = ["errors"] if remembers(codec) else ["state"] if keeps_state(codec, on.arrays) else []
        if lives_on_shared(codec):
            kept.append("shared")
        bits = 8 * len(payload) / on.params
        entry = {"name": name, "says": named.says, "keeps": kept, "unbiased": codec.unbiased, "bits_per_param": bits}
        found.append({**entry, "config": codec.config()})
    if as_json:
        print(json.dumps({"codecs": found}, indent=2, default=str))
        return
    lines = [
        [
            str(one["name"]),
            str(one["says"]),
            ", ".join(one["keeps"]) or NOTHING,
            "yes" if one["unbiased"] else "no",
            f"{one['bits_per_param']:.3g}",
        ]
        for one in found
    ]
    print("\n".join(columns(("codec", "what it does", "keeps", "unbiased", "bits/param"), lines, left=3)))


def measure(
    what: Annotated[
        str,
        typer.Argument(
            metavar="WHAT",
            help="A .safetensors or .npz file, a run's folder or name (what its last two models moved), a model's "
            "name, or matrix:ROWSxCOLUMNS.",
        ),
    ],
    codecs: CodecsOption = None,
    before: BeforeOption = None,
    seed: SeedOption = 0,
    within_s: Annotated[float, typer.Option("--within", help="Seconds for encoding, and for decoding, of each.")] = 1.0,
    root: RootOption = None,
    as_json: JsonOption = False,
) -> None:
    """Measure codecs on a model or checkpoint: bytes, error, speed, with and without compiled kernels.

    error: squared error over squared size, of the first message; with + the codec sends the rest with later messages.
    encode, decode: GB of the arrays a second, compiled / NumPy. pays up to: on faster links the arrays as they are
    would be there sooner.

    Exit code: 0 done, 2 nothing to measure, or a codec nobody knows.

    Example: flower-edge codecs measure mlp --codecs int8,eden-1,stc-1
    """
    on, trials = _trials(what, codecs, before, seed, within_s, root, quiet=as_json)
    if as_json:
        found = {"subject": _subject(on), "codecs": [_plain(trial, on) for trial in trials]}
        print(json.dumps(found, indent=2, allow_nan=False))
        return
    print(f"{on.name}: {on.params:,} number{'' if on.params == 1 else 's'}, {traffic(8 * on.bytes)}")
    _tell(_MEASURED, [_line(trial, on) for trial in trials if not trial.trouble], trials)


def recommend(
    link: Annotated[str, typer.Option(metavar="RATE", help="Of the slowest link, as in 10Mbit/s.")],
    what: Annotated[
        str, typer.Argument(metavar="WHAT", help="As of measure; else a drawn update of a million numbers.")
    ] = "matrix:1000x1000",
    error: Annotated[
        float, typer.Option(min=0.0, help="The most that one message may leave out, squared and relative.")
    ] = 0.6,
    memory: Annotated[
        bool, typer.Option("--memory", help="Take codecs that send later what they left out, whatever their error.")
    ] = False,
    codecs: CodecsOption = None,
    before: BeforeOption = None,
    seed: SeedOption = 0,
    root: RootOption = None,
    as_json: JsonOption = False,
) -> None:
    """Say which codec brings a model through a link soonest: encoding, transfer and decoding, measured here.

    Where nothing is sooner than the arrays as they are, it says so. An error below 1 is no promise about accuracy:
    try the codec on your task. The times are those of this machine, at both ends.

    Exit code: 0 done (also where none pays), 2 a rate or codec that is none.

    Example: flower-edge codecs recommend --link 10Mbit/s --error 0.3
    """
    from .codec_trials import round_s, soonest

    link_bps = rate_bps(link)
    on, trials = _trials(what, codecs, before, seed, 0.5, root, quiet=as_json)
    plain_s = 8 * on.bytes / link_bps
    fit = soonest([trial for trial in trials if trial.name != "identity"], link_bps, error, memory=memory)
    best = fit[0] if fit and round_s(fit[0], link_bps) < plain_s else None
    if as_json:
        found: dict[str, Any] = {
            "subject": _subject(on),
            "link_bps": link_bps,
            "plain_s": plain_s,
            "recommended": None if best is None else best.name,
            "codecs": [{**_plain(trial, on), "round_s": round_s(trial, link_bps)} for trial in fit],
        }
        print(json.dumps(found, indent=2, allow_nan=False))
        return
    print(f"{on.name}: {traffic(8 * on.bytes)}, {_time(plain_s)} as it is over {link.strip()}")
    lines = [[*_line(trial, on), _time(round_s(trial, link_bps))] for trial in fit[:8]]
    _tell((*_MEASURED, "there in"), lines, trials)
    print(advice(best, fit, trials, on, link_bps, error))


def advice(
    best: Trial | None, fit: list[Trial], trials: list[Trial], on: Subject, link_bps: float, error: float
) -> str:
    """What to take, in a sentence; what speaks against it where nothing is worth taking."""
    from .codec_trials import breaks_even_bps, round_s

    plain_s = 8 * on.bytes / link_bps
    if best is not None:
        times = plain_s / round_s(best, link_bps)
        if times >= _HARDLY:
            return f"take {best.name}: {times:.1f} times as soon as without"
        return (
            f"compression hardly pays on this link: {best.name} is {times:.2f} times as soon as the arrays as they are"
        )
    if fit:
        first = fit[0]
        widest = max(fit, key=lambda trial: breaks_even_bps(trial, on))
        most = breaks_even_bps(widest, on)
        until = f"; it pays up to {_rate(most)} ({widest.name})" if most else ""
        return (
            "take none, compression does not pay on this link: the arrays as they are take "
            f"{_time(plain_s)}, with {first.name} {_time(round_s(first, link_bps))}{until}"
        )
    known = [trial for trial in trials if trial.name != "identity" and trial.error >= 0]
    least = min(known, key=lambda trial: trial.error, default=None)
    nearest = "" if least is None else f" ({least.name} is nearest, with {least.error:.2g})"
    return f"take none: no codec leaves out {error:g} or less{nearest}; allow a larger --error, or --memory"


def rate_bps(text: str) -> float:
    """A rate as typed, in bit/s.

    Raises:
        ConfigError: something that is none.

    >>> rate_bps("10Mbit/s"), rate_bps("2.5 Gbit/s"), rate_bps("800bit/s")
    (10000000.0, 2500000000.0, 800.0)
    """
    from ..errors import ConfigError

    found = _RATE.fullmatch(text)
    if found is None or not float(found[1]) > 0:
        raise ConfigError(f"--link {text!r}: expected a rate above 0, as in 500kbit/s, 10Mbit/s or 1Gbit/s")
    return float(found[1]) * _TIMES[found[2]]


def _trials(
    what: str, codecs: str | None, before: str | None, seed: int, within_s: float, root: Path | None, *, quiet: bool
) -> tuple[Subject, list[Trial]]:
    from rich.console import Console
    from rich.progress import Progress

    from ..codecs.named import CODECS, make_codec
    from .codec_subjects import subject
    from .codec_trials import measure as measured

    names = [codecs] if codecs and codecs.lstrip().startswith("{") else (codecs or ",".join(CODECS)).split(",")
    chosen = {name.strip(): make_codec(name.strip(), seed=seed) for name in names if name.strip()}
    on = subject(what, before, root=root, seed=seed)
    # On stderr: what comes on stdout is the result alone.
    console = Console(file=sys.stderr, quiet=quiet)
    trials = []
    with Progress(console=console, transient=True, disable=not console.is_terminal) as progress:
        for name, codec in progress.track(chosen.items(), description="codecs"):
            label = str(codec.config()["kind"]) if name.startswith("{") else name
            trials.append(measured(label, codec, on, within_s=within_s))
    return on, trials


def _line(trial: Trial, on: Subject) -> list[str]:
    from .codec_trials import breaks_even_bps

    paces = trial.paces or {}
    ways = [paces[way] for way in ("fast", "reference") if way in paces]
    return [
        trial.name,
        traffic(8 * trial.payload_bytes),
        f"{trial.ratio:.1f}",
        NOTHING if math.isnan(trial.error) else f"{trial.error:.2g}{'+' if trial.remembers else ''}",
        " / ".join(f"{on.bytes / pace.encode_s / 1e9:.2g}" for pace in ways),
        " / ".join(f"{on.bytes / pace.decode_s / 1e9:.2g}" for pace in ways),
        _rate(breaks_even_bps(trial, on)),
    ]


def _plain(trial: Trial, on: Subject) -> dict[str, Any]:
    from .codec_trials import breaks_even_bps

    if trial.trouble:
        return {"name": trial.name, "trouble": trial.trouble}
    return {
        "name": trial.name,
        "payload_bytes": trial.payload_bytes,
        "ratio": trial.ratio,
        "error": None if math.isnan(trial.error) else trial.error,
        "remembers": trial.remembers,
        "unbiased": trial.unbiased,
        "shared": trial.shared,
        "paces": {
            way: {
                **vars(pace),
                "encode_bytes_per_s": on.bytes / pace.encode_s,
                "decode_bytes_per_s": on.bytes / pace.decode_s,
            }
            for way, pace in (trial.paces or {}).items()
        },
        "pays_up_to_bps": breaks_even_bps(trial, on),
    }


def _subject(on: Subject) -> dict[str, Any]:
    return {"name": on.name, "params": on.params, "bytes": on.bytes}


def _tell(heading: tuple[str, ...], lines: list[list[str]], trials: list[Trial]) -> None:
    """The table, and below it what its columns do not say."""
    if lines:
        print("\n".join(columns(heading, lines)))
    notes = ["error: squared, relative"]
    if any(trial.remembers for trial in trials):
        notes.append("+ later messages send the rest")
    if any(len(trial.paces or {}) > 1 for trial in trials):
        notes.append("GB/s: compiled / NumPy")
    if lines:
        print(f"({'; '.join(notes)})")
    for trial in trials:
        if trial.shared:
            print(f"{trial.name} lives on what a server publishes, and was measured without: its first round")
        if trial.trouble:
            print(f"{trial.name} was not measured: {trial.trouble}")


def _rate(value_bps: float) -> str:
    if not value_bps:
        return "never"
    for least, unit in ((1e9, "Gbit/s"), (1e6, "Mbit/s"), (1e3, "kbit/s")):
        if value_bps >= least:
            return f"{value_bps / least:.3g} {unit}"
    return f"{value_bps:.3g} bit/s"


def _time(value_s: float) -> str:
    from ..units import human_s

    if value_s < 1e-4:
        return f"{value_s * 1e6:.2g} µs"
    return f"{value_s * 1e3:.2g} ms" if value_s < 0.01 else human_s(value_s)
