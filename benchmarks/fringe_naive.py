"""What sending less costs without training anything: fewer bits and fewer numbers at both cuts, and smaller inputs.

    python -m benchmarks.fringe_naive [--quick] [--json] [--seed N] [--folder FOLDER] [--epochs N]

Three kinds of rows. At the cuts: every tensor is rounded as `flower_edge.fringe`'s wire forms round it, the very
numbers that the other end would decode, and bytes are those of whole frames. As JPEG: nothing is divided, the input is
sent instead and decoded before the model. As few bits: the same, but the input goes through a wire form. Whoever says
that a cut is worth compressing has to beat the last two. Nothing here trains, but the base model where it is not kept.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from io import BytesIO
from typing import Any, Final, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import nn

from flower_edge.data.clutter import DEVIATION, MEAN
from flower_edge.data.dataset import Dataset
from flower_edge.fringe.report import savings
from flower_edge.fringe.wire import TensorSpec, Wire
from flower_edge.fringe.wire_forms import WireForm

from .fringe_base import RECIPE, Base, base_model, on_machines
from .fringe_task import CUT_AFTER, LINKS, best_reduction, link_seconds, parts, plain_bytes
from .harness.printing import benchmark_parser, print_json, print_table, progress

__all__ = [
    "CUT_FORMS",
    "INPUT_FORMS",
    "JPEG_QUALITIES",
    "JPEG_WAYS",
    "JpegWay",
    "NaiveRow",
    "jpeg",
    "main",
    "naive_figures",
]

Pictures = NDArray[np.float32]

#: At both cuts alike.
CUT_FORMS: Final[Mapping[str, WireForm]] = {
    "float32": WireForm(),
    "fp16": WireForm(bits=16),
    "int8": WireForm(bits=8),
    "int4": WireForm(bits=4),
    "int2": WireForm(bits=2),
    "top 25 %, int8": WireForm(bits=8, fraction=0.25),
    "top 10 %, int8": WireForm(bits=8, fraction=0.10),
}
#: Of the input, instead of a cut.
INPUT_FORMS: Final[Mapping[str, WireForm]] = {
    "input int8": WireForm(bits=8),
    "input int4": WireForm(bits=4),
    "input int2": WireForm(bits=2),
}
JPEG_QUALITIES: Final = (90, 50, 20)
_BATCH: Final = 250


class JpegWay(NamedTuple):
    """How pictures become JPEGs.

    Attributes:
        name: of it.
        lowest, highest: light, before it is scaled for the model, that goes to 0 and 255; what lies outside goes to the
            nearer end.
        own_tables: Huffman tables are made for each file, which is smaller by a fifth and more.
    """

    name: str
    lowest: float
    highest: float
    own_tables: bool


#: Light of digits is 0 .. 1, but noise goes beyond: with the wider range four pixels in a thousand are cut off, with
#: the other one a third, which costs the model more than the coding does. The first is what files usually are, and what
#: earlier figures were told against; the second is the opponent to beat.
JPEG_WAYS: Final = (JpegWay("usual", 0.0, 1.0, False), JpegWay("best", -0.3, 1.3, True))


@dataclass(frozen=True)
class NaiveRow:
    """One way to send less.

    Attributes:
        name: of it.
        place: "cuts" or "input".
        sent_bytes: of an inference at each connection; of inputs the one number there is, a mean where it varies.
        bandwidth_reduction, latency_reduction: Eqs. 1 and 2 as shares of what float32 takes, modelled; None of inputs.
        test_percent: of test pictures that are told right.
        points: less than without it.
    """

    name: str
    place: str
    sent_bytes: tuple[float, ...]
    bandwidth_reduction: float | None
    latency_reduction: float | None
    test_percent: float
    points: float


def naive_figures(
    model: nn.Sequential,
    data: Dataset,
    *,
    cut_forms: Mapping[str, WireForm] = CUT_FORMS,
    input_forms: Mapping[str, WireForm] = INPUT_FORMS,
    jpeg_qualities: Sequence[int] = JPEG_QUALITIES,
    told: Callable[[str], None] = progress,
) -> list[NaiveRow]:
    """A row for each of them.

    Args:
        model: of `fringe_base.network`, trained.
        data: what accuracies are of; x [pictures, 1, 32, 32].
        cut_forms: by name, at both cuts.
        input_forms: by name, for the input.
        jpeg_qualities: as Pillow counts them; each in all of `JPEG_WAYS`.
        told: what is being measured.
    """
    model.eval()
    whole = on_machines(model)
    before = [connection.size_bytes for connection in whole.connections]
    plain = _percent(whole.run, data.x, data.y)
    rows = []
    for name, form in cut_forms.items():
        told(f"naive: {name} at both cuts ...")
        formed = whole.formed(dict.fromkeys(range(len(before)), form))
        sent = [connection.size_bytes for connection in formed.connections]
        saved = savings(CUT_AFTER, before, sent, LINKS).total
        percent = _percent(formed.run, data.x, data.y)
        rows.append(
            NaiveRow(
                name,
                "cuts",
                tuple(map(float, sent)),
                saved.bandwidth_reduction,
                saved.latency_reduction,
                percent,
                plain - percent,
            )
        )

    def add_input(name: str, x: Pictures, sent_bytes: float) -> None:
        percent = _percent(model, x, data.y)
        rows.append(NaiveRow(name, "input", (sent_bytes,), None, None, percent, plain - percent))

    told("naive: inputs ...")
    for name, form in input_forms.items():
        wire = Wire.plain([TensorSpec("input", data.input_shape)]).formed(form)
        add_input(name, wire.heard([data.x])[0], wire.size_bytes())
    for quality in jpeg_qualities:
        for way in JPEG_WAYS:
            x, sizes = jpeg(data.x, quality, way)
            add_input(f"input JPEG q{quality}, {way.name}", x, float(sizes.mean()))
    return rows


def jpeg(x: Pictures, quality: int, way: JpegWay) -> tuple[Pictures, NDArray[np.int64]]:
    """What is left of pictures, and the bytes of each file.

    A file is counted as it is, without the header that a frame would add.

    Args:
        x: float32 [pictures, 1, height, width], scaled as the clutter pictures are.
        quality: 1 .. 95, as Pillow counts.
        way: see there.

    Returns:
        float32 as x, and int64 [pictures].
    """
    width = way.highest - way.lowest
    light = (x[:, 0] * DEVIATION + MEAN - way.lowest) / width
    grey = np.rint(np.clip(light, 0.0, 1.0) * 255).astype(np.uint8)
    decoded, sizes = np.empty_like(grey), np.empty(len(x), np.int64)
    for number, picture in enumerate(grey):
        file = BytesIO()
        Image.fromarray(picture).save(file, "JPEG", quality=quality, optimize=way.own_tables)
        sizes[number] = file.tell()
        file.seek(0)
        with Image.open(file) as opened:
            decoded[number] = np.asarray(opened)
    back = decoded.astype(np.float32) / 255 * width + way.lowest
    return ((back - MEAN) / DEVIATION).astype(np.float32)[:, None], sizes


def _percent(scores: Callable[[torch.Tensor], torch.Tensor], x: Pictures, y: NDArray[np.int64]) -> float:
    with torch.no_grad():
        batches = [scores(torch.tensor(x[begin : begin + _BATCH])) for begin in range(0, len(x), _BATCH)]
    return 100.0 * float(np.mean(torch.cat(batches).argmax(dim=1).numpy() == y))


# -- the command -----------------------------------------------------------------------------------------------------


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure and print; 0 also where the base model is not as good as the task means it to be."""
    parser = benchmark_parser("fringe_naive", "What sending less costs without training anything.")
    parser.add_argument("--seed", type=int, default=0, help="of pictures and base model; by default 0")
    parser.add_argument("--folder", help="of kept models; by default FLOWER_EDGE_CACHE or ~/.cache/flower-edge")
    parser.add_argument("--epochs", type=int, default=RECIPE.epochs, help="of the base model, to try something out")
    options = parser.parse_args(arguments)
    # Sums in one order, whatever the machine.
    torch.set_num_threads(1)
    base = base_model(options.seed, options.folder, replace(RECIPE, epochs=options.epochs))
    test = parts(options.seed).test
    rows = naive_figures(base.model, test, jpeg_qualities=JPEG_QUALITIES[:1] if options.quick else JPEG_QUALITIES)
    if options.json:
        print_json(_told(base, rows, options.seed))
    else:
        _print(base, rows, options)
    return 0


def _told(base: Base, rows: Sequence[NaiveRow], seed: int) -> dict[str, Any]:
    return {
        "seed": seed,
        "base_test_percent": base.test_percent,
        "base_validation_percent": base.validation_percent,
        "base_accepted": base.accepted,
        "base_digest": base.digest,
        "W_bytes": list(plain_bytes()),
        "T_s": link_seconds(plain_bytes()),
        "best_latency_reduction": best_reduction(),
        "rows": [asdict(row) for row in rows],
    }


def _print(base: Base, rows: Sequence[NaiveRow], options: argparse.Namespace) -> None:
    print(
        f"base model, seed {options.seed}: validation {base.validation_percent:.2f} %, test {base.test_percent:.2f} %"
    )
    for name, link, sent in zip(CUT_AFTER, LINKS, plain_bytes(), strict=True):
        print(
            f"after {name}: W = {sent:,} B; {link.goodput_bps / 1e6:g} Mbit/s + {1e3 * link.delay_s:g} ms: "
            f"T = {1e3 * link.seconds(sent):.2f} ms"
        )
    print(
        f"all: W = {sum(plain_bytes()):,} B, T = {1e3 * link_seconds(plain_bytes()):.2f} ms, "
        f"of which at most {100 * best_reduction():.1f} % can be saved"
    )
    print_table(
        "Sent as it is, but smaller (per cent, and points of the test)",
        ("what", "bytes", "Eq. 1", "Eq. 2", "test", "lost"),
        [
            (
                row.name,
                " + ".join(f"{sent:,.0f}" for sent in row.sent_bytes),
                "-" if row.bandwidth_reduction is None else f"{100 * row.bandwidth_reduction:.1f}",
                "-" if row.latency_reduction is None else f"{100 * row.latency_reduction:.1f}",
                f"{row.test_percent:.2f}",
                f"{row.points:.2f}",
            )
            for row in rows
        ],
    )


if __name__ == "__main__":
    sys.exit(main())
