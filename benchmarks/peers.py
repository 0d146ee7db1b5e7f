"""What models from host to host cost: `flower-edge agent` beside bare grpc.aio streams, with the same mutual TLS.

    python -m benchmarks.peers [--quick] [--json]

Two processes at a time, over real sockets on the loopback address. The agents are those that users start: a packet is
offered, digested, written into a file at both ends and acknowledged; the bare side sends the same bytes from memory to
memory. docs/benchmarks.md says what the figures mean.
"""

from __future__ import annotations

import os
import signal
import sys
import tempfile
import time
from bisect import bisect_left
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from itertools import accumulate
from pathlib import Path
from typing import Any, Final

from .harness.parts import run_parts
from .harness.printing import benchmark_parser, progress
from .harness.targets import Figure
from .peers_processes import BlackHole, Child, Host, make_certificates, stop

__all__ = ["FIGURES", "main", "over_any_second"]

FIGURES: Final = (
    Figure("peer_over_plain_grpc_40mb", "goodput", "goodput of 40 MB, agent over bare grpc.aio", least=0.8),
    Figure("peer_over_plain_grpc_250kb", "goodput", "the same of 250 KB"),
    Figure("peer_goodput_40mb_mb_per_s", "goodput", "40 MB between agents, offer to acknowledgement, MB/s", decimals=0),
    Figure("plain_goodput_40mb_mb_per_s", "goodput", "the same over bare grpc.aio, MB/s", decimals=0),
    Figure("peer_goodput_250kb_mb_per_s", "goodput", "250 KB between agents, MB/s", decimals=0),
    Figure("plain_goodput_250kb_mb_per_s", "goodput", "the same over bare grpc.aio, MB/s", decimals=0),
    Figure("peer_rss_over_payload_mb", "memory", "peak memory of an agent, less the payload of 400 MB", most=64.0),
    Figure("peer_rss_mb", "memory", "that peak itself: letters go through files", decimals=0),
    Figure("pacing_over", "pacing", "most in any second over what the rate allows, less 1", most=0.02, decimals=4),
    Figure("pacing_under", "pacing", "1 less goodput over rate, letters of 1 s or more", most=0.02, decimals=4),
    Figure("detect_dead_s", "detection", "until a neighbour that was killed is noticed", most=0.5, decimals=3),
    Figure("detect_hung_s", "detection", "until one that hangs is noticed", most=8.0),
    Figure("detect_cut_s", "detection", "until one is noticed whose network went", most=8.0),
)  # fmt: skip
PARTS: Final = ("goodput", "memory", "pacing", "detection")

_SIZES: Final = {"40mb": 40_000_000, "250kb": 250_000}
#: Mbit/s and seconds.
_PACED: Final = ((5.0, 3.0), (20.0, 3.0), (80.0, 3.0))


def over_any_second(left: Sequence[tuple[float, float]], bps: float) -> float:
    """The most bits that left in any second, over `bps`, less 1; of pieces of which the time and bits are known.

    >>> over_any_second([(0.0, 500.0), (0.5, 500.0), (1.0, 500.0), (1.2, 600.0)], 1000.0)
    0.6000000000000001
    """
    times = [time_s for time_s, _ in left]
    sums = [0.0, *accumulate(bits for _, bits in left)]
    most = max(sums[i + 1] - sums[bisect_left(times, time_s - 1.0 + 1e-9)] for i, time_s in enumerate(times))
    return most / bps - 1.0


def measure(parts: Sequence[str], options: Any) -> dict[str, Any]:
    """All figures, by key.

    Raises:
        EdgeError: something did not start, or did not arrive.
    """
    found: dict[str, Any] = {}
    for part in parts:
        progress(f"{part} ...")
        with tempfile.TemporaryDirectory(prefix="peers-") as name, ExitStack() as stack:
            make_certificates(Path(name), 4)
            found.update(_MEASURED[part](stack, Path(name), bool(options.quick)))
    return found


def _goodput(stack: ExitStack, folder: Path, quick: bool) -> dict[str, Any]:
    sender, receiver = Host(stack, folder, 0), Host(stack, folder, 1)
    serving = stack.enter_context(Child(["benchmarks.peers_child", "serve", str(folder)]))
    sending = stack.enter_context(Child(["benchmarks.peers_child", "send", str(folder)]))
    sending.ask(port=serving.hear()["port"])
    took_s: dict[str, list[float]] = {}
    payloads = {name: os.urandom(size) for name, size in _SIZES.items()}
    for name, data in payloads.items():
        (folder / name).write_bytes(data)
    times = {"40mb": 8 if quick else 30, "250kb": 40 if quick else 200}
    round_ = 0
    for name, data in payloads.items():
        # One after the other, turn by turn: whatever else the machine does, it does to both.
        for turn in range(times[name] + 2):
            round_ += 1
            receiver.begin(round_, {0: sender.card})
            sender.begin(round_, {1: receiver.card})
            sender.post(round_, data, [1])
            sender.flush()
            told = sender.to(round_, 1)
            ours_s = told["offer_s"] + told["first_to_ack_s"]
            plain_s = sending.ask(file=name)["took_s"]
            receiver.forget(round_)
            if turn >= 2:  # connections open, windows grow
                took_s.setdefault(f"peer_{name}", []).append(ours_s)
                took_s.setdefault(f"plain_{name}", []).append(plain_s)
    found: dict[str, Any] = {"goodput": took_s}
    for name, size in _SIZES.items():
        # The fastest turns: other programs only ever make one slower.
        ours_s, plain_s = (min(took_s[f"{side}_{name}"]) for side in ("peer", "plain"))
        found[f"peer_over_plain_grpc_{name}"] = plain_s / ours_s
        found[f"peer_goodput_{name}_mb_per_s"] = size / 1e6 / ours_s
        found[f"plain_goodput_{name}_mb_per_s"] = size / 1e6 / plain_s
    return found


def _memory(stack: ExitStack, folder: Path, quick: bool) -> dict[str, Any]:
    size = 400_000_000
    sender, receiver = Host(stack, folder, 0), Host(stack, folder, 1)
    receiver.begin(1, {0: sender.card})
    sender.begin(1, {1: receiver.card})
    sender.post(1, bytes(size), [1])
    sender.flush()
    asked = {"do": "fetch", "run": "benchmark", "round": 1, "sender": 0, "most_bytes": size}
    answer, data = receiver.client.call(asked, most_bytes=size)
    assert answer["found"]
    assert len(data) == size
    peak_mb = max(sender.peak_mb(), receiver.peak_mb())
    return {"peer_rss_mb": peak_mb, "peer_rss_over_payload_mb": peak_mb - size / 1e6}


def _pacing(stack: ExitStack, folder: Path, quick: bool) -> dict[str, Any]:
    sender, receiver = Host(stack, folder, 0, paced=True), Host(stack, folder, 1)
    over: list[float] = []
    under: list[float] = []
    for round_, (mbps, seconds) in enumerate(_PACED, 1):
        bps = mbps * 1e6
        receiver.begin(round_, {0: sender.card})
        sender.begin(round_, {1: receiver.card}, rates_bps={1: bps})
        sender.post(round_, os.urandom(int(bps * seconds * (1 if quick else 4) / 8)), [1])
        sender.flush()
        told = sender.to(round_, 1)
        under.append(1.0 - told["goodput_bps"] / bps)
        over.append(over_any_second(sender.child.ask()["left"], bps))
    return {"pacing_over": max(over), "pacing_under": max(under), "pacing": {"over": over, "under": under}}


def _detection(stack: ExitStack, folder: Path, quick: bool) -> dict[str, Any]:
    sender, *others = (Host(stack, folder, node) for node in range(4))
    dead, hung, cut = others
    hole = BlackHole(cut.card.address)
    stack.callback(hole.close)
    cards = {1: dead.card, 2: hung.card, 3: cut.card.model_copy(update={"address": hole.address})}
    for other in others:
        other.begin(1, {0: sender.card})
        other.begin(2, {0: sender.card})
    # A short one, so that all are connected; then one that is under way for minutes.
    sender.begin(1, cards)
    sender.post(1, os.urandom(1000), [1, 2, 3])
    sender.flush()
    sender.begin(2, cards, rates_bps={2: 1e6})
    sender.post(2, os.urandom(20_000_000), [2])
    time.sleep(1.0)
    killed_s = time.monotonic()
    os.kill(dead.pid, signal.SIGKILL)
    dead_s = sender.lost_after_s(1, killed_s, 30.0)
    hung_since_s = time.monotonic()
    stop(hung.pid)
    hole.pull()
    hung_s = sender.lost_after_s(2, hung_since_s, 60.0)
    cut_s = sender.lost_after_s(3, hung_since_s, 60.0)
    return {"detect_dead_s": dead_s, "detect_hung_s": hung_s, "detect_cut_s": cut_s}


_MEASURED: Final = {"goodput": _goodput, "memory": _memory, "pacing": _pacing, "detection": _detection}


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure and print; 0 also when a target is missed, 1 when something could not be measured."""
    parser = benchmark_parser("peers", "Models from host to host: agents beside bare grpc.aio.")
    parser.add_argument("--only", action="append", choices=PARTS, default=[], help="may be given again")
    options = parser.parse_args(arguments)
    return run_parts(options, options.only or list(PARTS), FIGURES, measure, _show, ("flower-edge", "grpcio"))


def _show(found: Mapping[str, Any]) -> None:
    """Everything is among the figures."""
    del found


if __name__ == "__main__":
    sys.exit(main())
