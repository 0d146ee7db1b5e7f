"""Groups of a federation's nodes: from what is known of them, or from the models they train, to `Cells`.

`grouped_by(by_levels("load", ...))` for `Grouped(groups=...)`, or for `Hierarchical(cells=...)`. How groups are made is
`flower_edge.grouping`'s business; here are the nodes of the Grid. Nothing here merges.

Source: [4] ¶41, ¶49.
"""

from __future__ import annotations

from collections.abc import Mapping
from logging import getLogger
from typing import Any

import numpy as np
import numpy.typing as npt
from flwr.app import ArrayRecord, ConfigRecord, Message, RecordDict
from flwr.serverapp import Grid

from flower_edge.conditions import columns_of
from flower_edge.errors import ConfigError, ModelMismatch
from flower_edge.grouping import Grouping, by_models
from flower_edge.rounds import Round
from flower_edge.runtime.wrapped_grid import undisturbed
from flower_edge.wire import array_of, check_model, error_reason, model_spec

from ..hierarchy.cells import Cells
from ..node_rows import key_of, rows_of

__all__ = ["GroupedByModels", "grouped_by"]

log = getLogger("flwr.edge")


def grouped_by(grouping: Grouping, *, ask: bool = False) -> Cells:
    """Groups by what is known of each node, made anew before every cloud round; by load they change.

    Args:
        grouping: `by_value`, `by_levels`, `by_similarity` of `flower_edge.grouping`, or a function of your own from
            columns and the number of nodes to names.
        ask: send every node a `query.conditions` each time, for what changes: load, battery, place. Without, what is
            known is what `GridProxy` asked once, or the node config in a `LocalGrid`.

    Raises (when called):
        ConfigError: the function does not return one name per node.
    """

    def groups(grid: Grid, round: Round) -> Mapping[str, list[int]]:
        nodes = list(grid.get_node_ids())
        rows = rows_of(grid, nodes, ask=ask)
        names = list(grouping(columns_of([rows[node] for node in nodes]), len(nodes)))
        if len(names) != len(nodes) or not all(isinstance(name, str) for name in names):
            raise ConfigError(
                f"the grouping returned {names[:4]}… for {len(nodes)} nodes; expected one text per node, its group"
            )
        return _listed(dict(zip(nodes, names, strict=True)))

    return groups


def _listed(names: Mapping[int, str]) -> dict[str, list[int]]:
    found: dict[str, list[int]] = {name: [] for name in sorted(set(names.values()))}
    for node, name in names.items():
        found[name].append(node)
    return found


class GroupedByModels:
    """Groups of nodes whose training changes a model in the same direction: clustered federated learning.

    Before its first round every node trains once from the same model, and `by_models` clusters the changes. A node that
    appears later does the same, and joins the group whose mean direction its change is nearest to. A node that does not
    answer is in no group until it has.

    Args:
        arrays: the model they train from, the one the run begins with.
        groups: how many.
        config: the train config of that exchange; `server-round` is 0 where it does not say.
        timeout_s: how long to wait for it.
        prefix: groups are called `<prefix>-0`, …

    It is a cell function with a state, which a checkpoint holds: the group of each node by its key, and the mean
    direction of each group.
    """

    def __init__(
        self,
        arrays: ArrayRecord,
        groups: int,
        *,
        config: Mapping[str, Any] | None = None,
        timeout_s: float | None = 3600.0,
        prefix: str = "group",
    ) -> None:
        by_models([], groups)  # refuses what it cannot use, now and not in the first round
        self._arrays, self._groups, self._prefix = arrays, groups, prefix
        self._config, self._timeout_s = {"server-round": 0, **(config or {})}, timeout_s
        self.begin()

    def begin(self) -> None:
        """A run begins: forget the groups of the run before."""
        self._names: dict[str, str] = {}
        self._directions: dict[str, npt.NDArray[np.float64]] = {}

    def __call__(self, grid: Grid, round: Round) -> Mapping[str, list[int]]:
        """The groups, asking those nodes first that were never asked."""
        keys = {node: key_of(grid, node) for node in grid.get_node_ids()}
        new = [node for node, key in keys.items() if key not in self._names]
        changes = self._changes(grid, new) if new else {}
        if not self._directions and len(changes) < self._groups:
            # Too few to tell directions apart: together for now, and asked again when the next round begins.
            return {f"{self._prefix}-0": list(changes)} if changes else {}
        if changes and not self._directions:
            names = by_models(list(changes.values()), self._groups, prefix=self._prefix)
            for name in sorted(set(names)):
                alike = [_unit(change) for change, own in zip(changes.values(), names, strict=True) if own == name]
                self._directions[name] = _unit(np.mean(alike, axis=0))
        else:
            names = [self._nearest(change) for change in changes.values()]
        self._names.update({keys[node]: name for node, name in zip(changes, names, strict=True)})
        return _listed({node: self._names[key] for node, key in keys.items() if key in self._names})

    def _nearest(self, change: npt.NDArray[np.float64]) -> str:
        return max(self._directions, key=lambda name: float(self._directions[name] @ _unit(change)))

    def _changes(self, grid: Grid, nodes: list[int]) -> dict[int, npt.NDArray[np.float64]]:
        """What training changes, by node, of those that answer well."""
        content = RecordDict({"arrays": self._arrays, "config": ConfigRecord(dict(self._config))})
        with undisturbed(grid):
            messages = [Message(content, node, "train") for node in nodes]
            replies = list(grid.send_and_receive(messages, timeout=self._timeout_s))
        before, spec = _flat(self._arrays), model_spec(self._arrays)
        changes: dict[int, npt.NDArray[np.float64]] = {}
        for reply in replies:
            node = reply.metadata.src_node_id
            if reply.has_error():
                log.warning("node %s is in no group: %s", node, error_reason(reply))
                continue
            try:
                (arrays,) = reply.content.array_records.values()
                check_model(arrays, spec, sender=f"node {node}")
            except (ValueError, ModelMismatch) as error:
                log.warning("node %s is in no group: %s", node, error)
                continue
            change = _flat(ArrayRecord({name: arrays[name] for name in spec})) - before
            if np.isfinite(change).all():
                changes[node] = change
            else:
                log.warning("node %s is in no group: its model has values that are not finite", node)
        return {node: changes[node] for node in nodes if node in changes}

    def state_dict(self) -> dict[str, Any]:
        """The group of each node by its key, and each group's mean direction."""
        return {"names": dict(self._names), "directions": dict(self._directions)}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Inverse of `state_dict`."""
        self._names, self._directions = dict(state["names"]), dict(state["directions"])


def _flat(arrays: ArrayRecord) -> npt.NDArray[np.float64]:
    return np.concatenate([array_of(array).reshape(-1).astype(np.float64) for array in arrays.values()])


def _unit(change: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    length = float(np.linalg.norm(change))
    return change / length if length > 0 else change
