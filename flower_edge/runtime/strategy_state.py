"""What of a strategy a checkpoint must hold, class by class.

Flower's strategies keep their state in attributes and say nothing about it, so it is written down here, once, for
every class in `flwr.serverapp.strategy`. A class that is not in the table, a subclass included, must offer
`state_dict()` and `load_state_dict(state)`; otherwise resume is refused by name instead of losing momentum in
silence. Functions (`…_aggr_fn`, `selection_rule`) are code, not state: the resumed program passes them again.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from flwr.app import ArrayRecord, RecordDict
from flwr.serverapp import strategy as flower
from flwr.serverapp.strategy import Strategy

from ..errors import ResumeError
from ..wire import records_from_tree, records_to_tree

__all__ = ["STATE", "check_settings", "go_on_from", "innermost", "load_strategy_state", "strategy_state"]

_FEDAVG = (
    "fraction_train",
    "fraction_evaluate",
    "min_train_nodes",
    "min_evaluate_nodes",
    "min_available_nodes",
    "weighted_by_key",
    "arrayrecord_key",
    "configrecord_key",
)
_FEDOPT = (*_FEDAVG, "eta", "eta_l", "tau", "beta_1", "beta_2", "current_arrays", "m_t", "v_t")
_DP_FIXED = ("noise_multiplier", "clipping_norm", "num_sampled_clients", "_pending_events")
_DP_ADAPTIVE = (
    "num_sampled_clients",
    "clipping_norm",
    "target_clipped_quantile",
    "clip_norm_lr",
    "noise_multiplier",
    "clipped_count_stddev",
)

#: Every array or scalar attribute, by class. `strategy` (the wrapped one) is followed, not listed.
STATE: dict[type[Strategy], tuple[str, ...]] = {
    flower.FedAvg: _FEDAVG,
    flower.FedMedian: _FEDAVG,
    flower.FedTrimmedAvg: (*_FEDAVG, "beta"),
    flower.FedProx: (*_FEDAVG, "proximal_mu"),
    flower.FedAvgM: (
        *_FEDAVG,
        "server_learning_rate",
        "server_momentum",
        "server_opt",
        "current_arrays",
        "momentum_vector",
    ),
    flower.FedAdagrad: _FEDOPT,
    flower.FedAdam: _FEDOPT,
    flower.FedYogi: _FEDOPT,
    flower.Krum: (*_FEDAVG, "num_malicious_nodes", "num_nodes_to_select"),
    flower.MultiKrum: (*_FEDAVG, "num_malicious_nodes", "num_nodes_to_select"),
    flower.Bulyan: (*_FEDAVG, "num_malicious_nodes"),
    flower.QFedAvg: (*_FEDAVG, "q", "client_learning_rate", "train_loss_key", "current_arrays"),
    flower.FedXgbBagging: (*_FEDAVG, "current_bst"),
    flower.FedXgbCyclic: (*_FEDAVG, "registered_nodes"),
    flower.DifferentialPrivacyServerSideFixedClipping: (*_DP_FIXED, "current_arrays"),
    flower.DifferentialPrivacyClientSideFixedClipping: _DP_FIXED,
    flower.DifferentialPrivacyServerSideAdaptiveClipping: (*_DP_ADAPTIVE, "current_arrays"),
    flower.DifferentialPrivacyClientSideAdaptiveClipping: _DP_ADAPTIVE,
}


def go_on_from(strategy: Strategy, arrays: ArrayRecord) -> None:
    """Tell a strategy that remembers the model it made last which model is in force.

    Flower's FedAvgM goes on from its own, and FedAdam's likes take the step from it, also where a layer, an edge's
    centre or a mixture has made another of it.
    """
    core = innermost(strategy)
    remembered = getattr(core, "current_arrays", None)
    if isinstance(remembered, ArrayRecord):
        core.current_arrays = arrays  # type: ignore[attr-defined]
    elif isinstance(remembered, dict):
        core.current_arrays = {name: array.numpy() for name, array in arrays.items()}  # type: ignore[attr-defined]


def innermost(strategy: Strategy) -> Strategy:
    """The strategy inside every wrapper that keeps one in `.strategy`, as Flower's DP wrappers and `Layered` do."""
    while isinstance(inner := getattr(strategy, "strategy", None), Strategy):
        strategy = inner
    return strategy


def _own(strategy: Strategy) -> bool:
    return hasattr(strategy, "state_dict") and hasattr(strategy, "load_state_dict")


def _refuse(strategy: Strategy) -> ResumeError:
    name = type(strategy).__name__
    return ResumeError(
        f"{name} does not say what its state is, so a resumed run could differ from an uninterrupted one; "
        f"give {name} state_dict() and load_state_dict(state), or start without checkpoints"
    )


def _save(value: Any) -> Any:
    if isinstance(value, ArrayRecord):
        return {"record": records_to_tree(RecordDict({"arrays": value}))}
    return {"value": value}


def _load(saved: Mapping[str, Any]) -> Any:
    if "record" in saved:
        return records_from_tree(saved["record"])["arrays"]
    return saved["value"]


def strategy_state(strategy: Strategy) -> dict[str, Any]:
    """State of a strategy, and of the one it wraps, as a tree of plain values and arrays.

    Raises:
        ResumeError: a class whose state is not known; a privacy accountant, which has no public state.

    >>> strategy_state(flower.FedAvg(fraction_train=0.5))["own"]["fraction_train"]
    {'value': 0.5}
    """
    if _own(strategy):
        return {"class": type(strategy).__name__, "own": strategy.state_dict()}  # type: ignore[attr-defined]
    if type(strategy) not in STATE:
        raise _refuse(strategy)
    if getattr(strategy, "accountant", None) is not None:
        raise ResumeError(
            f"{type(strategy).__name__} has a privacy accountant, and Flower offers no way to save what it has spent; "
            "run it without checkpoints"
        )
    state: dict[str, Any] = {
        "class": type(strategy).__name__,
        "own": {name: _save(getattr(strategy, name)) for name in STATE[type(strategy)]},
    }
    if isinstance(inner := getattr(strategy, "strategy", None), Strategy):
        state["inner"] = strategy_state(inner)
    return state


def load_strategy_state(strategy: Strategy, state: Mapping[str, Any]) -> None:
    """Inverse of `strategy_state`.

    Raises:
        ResumeError: the state is that of another class, or of a class whose state is not known.
    """
    if state["class"] != type(strategy).__name__:
        raise ResumeError(
            f"the checkpoint was made with {state['class']}, this run uses {type(strategy).__name__}; "
            "resume with the strategy the run began with"
        )
    if _own(strategy):
        strategy.load_state_dict(state["own"])  # type: ignore[attr-defined]
        return
    if type(strategy) not in STATE:
        raise _refuse(strategy)
    for name, saved in state["own"].items():
        setattr(strategy, name, _load(saved))
    if "inner" in state:
        load_strategy_state(strategy.strategy, state["inner"])  # type: ignore[attr-defined]


def check_settings(strategy: str, saved: Mapping[str, Any], now: Mapping[str, Any]) -> None:
    """Refuse a checkpoint of a strategy that was told something else.

    Args:
        strategy: what it is called.
        saved, now: its arguments by name, in the checkpoint and in this run.

    Raises:
        ResumeError: names the argument that differs.
    """
    for name, value in now.items():
        if (before := saved.get(name)) != value:
            raise ResumeError(
                f"the checkpoint was made by {strategy} with {name} = {before!r}, this run has {value!r}; "
                "resume with the arguments the run began with"
            )
