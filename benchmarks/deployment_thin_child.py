"""An executor process for `deployment_thin`: loads one app, works on messages, and tells what memory it holds then.

    python -m benchmarks.deployment_thin_child noop | thin | torch

`thin` and `torch` train three rounds of the same perceptron on the same samples; `noop` answers one message.
"""

from __future__ import annotations

import json
import sys
import time
from typing import Any, Final

from flwr.app import ConfigRecord, Context, Message, RecordDict
from flwr.clientapp import ClientApp

from flower_edge.runtime.flower_private import ensure_identity
from flower_edge.runtime.warm.worker import resident_bytes
from flower_edge.wire import copy_content, round_trip

_SIZES: Final = (784, 128, 10)
_ROUNDS, _STEPS, _SAMPLES, _BATCH = 3, 50, 2000, 32


def main(kind: str) -> None:
    """Load, work, tell."""
    ensure_identity(1)
    begun_s = time.monotonic()
    app, message = {"noop": _noop, "thin": _thin, "torch": _torch}[kind]()
    told = {"import_s": time.monotonic() - begun_s}
    for number in range(1 if kind == "noop" else _ROUNDS):
        _answered(app, message, number + 1)
    told["rss_bytes"] = resident_bytes()
    if kind == "thin":
        app, message = _thin(measured=False)  # the load is watched for 0.1 s a round, which is no training
    begun_s = time.monotonic()
    _answered(app, message, 1)
    print(json.dumps({**told, "step_ms": 1000.0 * (time.monotonic() - begun_s) / _STEPS}))


def _noop() -> tuple[ClientApp, RecordDict]:
    app = ClientApp()

    @app.train()
    def train(message: Message, context: Context) -> Message:
        return Message(RecordDict(), reply_to=message)

    return app, RecordDict()


def _thin(measured: bool = True) -> tuple[ClientApp, RecordDict]:
    from flower_edge.clients.measure import measure_conditions
    from flower_edge.clients.thin import thin_client
    from flower_edge.conditions import Conditions
    from flower_edge.models.numpy_mlp import NumpyMLP
    from flower_edge.wire import record_of

    samples = _samples()
    source = measure_conditions if measured else lambda context, now_s: Conditions()
    app = thin_client(lambda context: samples, source=source)
    return app, RecordDict({"arrays": record_of(NumpyMLP(_SIZES).arrays())})


def _torch() -> tuple[ClientApp, RecordDict]:
    import torch

    from flower_edge.models import get_arrays, make_model, set_arrays, train
    from flower_edge.wire import arrays_of, record_of

    torch.set_num_threads(1)
    model = make_model("mlp", input_shape=_SIZES[:1], num_classes=_SIZES[-1], seed=0, hidden=_SIZES[1:-1])
    (x, y), app = _samples(), ClientApp()

    @app.train()
    def train_here(message: Message, context: Context) -> Message:
        set_arrays(model, arrays_of(message.content.array_records["arrays"]))
        train(model, x, y, steps=_STEPS, batch_size=_BATCH)
        return Message(RecordDict({"arrays": record_of(get_arrays(model))}), reply_to=message)

    return app, RecordDict({"arrays": record_of(get_arrays(model))})


def _samples() -> tuple[Any, Any]:
    import numpy as np

    rng = np.random.default_rng(0)
    return rng.random((_SAMPLES, _SIZES[0]), np.float32), rng.integers(0, _SIZES[-1], _SAMPLES)


def _answered(app: ClientApp, content: RecordDict, number: int) -> None:
    """One message, there and back through Flower's serialisation."""
    sent = copy_content(content)
    sent["config"] = ConfigRecord({"server-round": number, "local-steps": _STEPS, "batch-size": _BATCH})
    reply = app(round_trip(Message(sent, 1, "train")), Context(1, 1, {"partition-id": 0}, RecordDict(), {}))
    if round_trip(reply).has_error():
        raise RuntimeError(f"the app failed: {reply.error.reason}")


if __name__ == "__main__":
    main(sys.argv[1])
