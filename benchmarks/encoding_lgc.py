"""What an autoencoder of values is worth: LGC beside scalar coders that may spend the same bytes.

Two tables. Errors, on recorded updates of a run without encoding: `lgc_table` of the library. Accuracies: the same
lagged leader's support and the same innovation, only the values at the leader's places are coded otherwise; fractions
are such that values take about as many bytes as the code of the ring. The per-layer rule is left out for all.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, Final

import numpy as np

from flower_edge.codecs.eden import Eden
from flower_edge.codecs.error_feedback import ErrorFeedback
from flower_edge.codecs.layout import Layout
from flower_edge.codecs.lgc.lgc import Lgc
from flower_edge.codecs.lgc.table import lgc_table
from flower_edge.codecs.log4 import Log4
from flower_edge.codecs.shared_support import SharedSupport
from flower_edge.codecs.sign import Sign
from flower_edge.codecs.top_k import TopK
from flower_edge.codecs.vector_codec import VectorCodec

from .encoding_rounds import Outcome, Setting
from .encoding_task import SPLITS, collect_updates, first_model

__all__ = ["TABLE", "TableJob", "lgc_errors", "lgc_figures", "lgc_settings", "table_jobs"]

ROUNDS: Final = {True: 20, False: 30}
INNOVATION: Final = 0.001
#: Bits per value of the ring's code in int8: 4 channels per 16 values.
_BITS: Final = 2
_SMALL: Final = (8, 16, 32, 8, 4)

#: Rounds that are recorded, and steps of the autoencoder's training on them.
_RECORDED: Final = {True: (12, 40), False: (30, 300)}
#: split, seed, rounds, steps
TableJob = tuple[str, int, int, int]


def _shared(values: VectorCodec, bits: float, fraction: float = 0.01) -> VectorCodec:
    """As many values as fit into the bytes of the ring's code."""
    whole = fraction * _BITS / bits
    return ErrorFeedback(SharedSupport(whole, INNOVATION, values, Sign(), TopK(fraction)))


def _lgc(variant: str, gated: bool) -> VectorCodec:
    return ErrorFeedback(Lgc(0.01, INNOVATION, variant=variant, channels=_SMALL, first=0, last=0, gated=gated))


TABLE: Final[Mapping[str, VectorCodec]] = {
    "LGC server, gated": _lgc("server", gated=True),
    "LGC server, always": _lgc("server", gated=False),
    "LGC ring, gated": _lgc("ring", gated=True),
    "LGC ring, always": _lgc("ring", gated=False),
    "sign + mean": _shared(Sign(), 1),
    "log-q4": _shared(Log4(), 4),
    "EDEN 1 bit": _shared(Eden(bits=1), 1),
    "EDEN 2 bit": _shared(Eden(bits=2), 2),
}


#: In the short form.
QUICK: Final = ("LGC server, gated", "LGC ring, gated", "LGC ring, always", "sign + mean", "log-q4", "EDEN 1 bit")


def lgc_settings(seeds: Sequence[int], *, quick: bool) -> list[Setting]:
    """Runs of the table of accuracies, and those without encoding; the short form has the even split only."""
    splits, names = (SPLITS[:1], QUICK) if quick else (SPLITS, tuple(TABLE))
    dense = [Setting(split, seed, ROUNDS[quick]) for split in splits for seed in seeds]
    return [*dense, *(replace(setting, up=TABLE[name]) for name in names for setting in dense)]


def table_jobs(*, quick: bool) -> list[TableJob]:
    """One run of each split."""
    return [(split, 0, *_RECORDED[quick]) for split in SPLITS]


def lgc_errors(job: TableJob) -> list[dict[str, Any]]:
    """Rows of the table of errors, for one run's updates.

    Args:
        job: split, seed, rounds, steps.
    """
    split, seed, count, steps = job
    arrays = first_model(seed)
    layout = Layout(tuple(arrays), tuple(array.shape for array in arrays.values()))
    rounds = [dict(enumerate(updates)) for updates in collect_updates(split, count, seed)]
    return [
        {
            "name": row.name,
            "lgc_nmse": row.lgc_nmse,
            "bytes_per_node": row.bytes_per_node,
            "scalar_nmse": dict(row.scalar_nmse),
            "gate_open": row.gate_open,
        }
        for row in lgc_table(rounds, layout, steps=steps, seed=seed)
    ]


def lgc_figures(found: Mapping[Setting, Outcome], errors: Mapping[TableJob, list[dict[str, Any]]]) -> dict[str, Any]:
    """`lgc_table`: both tables."""
    accuracies: dict[str, dict[str, Any]] = {}
    names = {codec: name for name, codec in TABLE.items()}
    for split in dict.fromkeys(setting.split for setting in found):
        of = {setting: outcome for setting, outcome in found.items() if setting.split == split}
        dense = [outcome.accuracy for setting, outcome in of.items() if setting == setting.dense]
        for codec in dict.fromkeys(setting.up for setting in of if setting != setting.dense):
            runs = [outcome for setting, outcome in of.items() if setting.up == codec]
            accuracies.setdefault(split, {})[names[codec]] = {
                "accuracy": float(np.mean([run.accuracy for run in runs])),
                "loss_points": float(np.mean(dense) - np.mean([run.accuracy for run in runs])),
                "up_bytes_per_message": float(np.mean([run.up_bytes / run.messages for run in runs])),
                "gate_open": [run.told.get("lgc_gate_open") for run in runs],
                "codebooks": [run.told.get("lgc_codebooks") for run in runs],
            }
    return {
        "lgc_table": {
            "errors": {f"{split}, seed {seed}": rows for (split, seed, *_), rows in errors.items()},
            "accuracies": accuracies,
        }
    }
