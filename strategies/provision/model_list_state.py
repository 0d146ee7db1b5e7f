"""What the layer `ModelList` carries from round to round, and its plain form for a checkpoint. Nothing here decides."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from flower_edge.conditions import Conditions
from flower_edge.events import Event
from flower_edge.submodels.catalogue import Catalogue
from flower_edge.submodels.step_times import StepTimes

from .choosing import Terminal

__all__ = ["ModelListState"]

#: By terminal, and so forgotten and handed over with it.
_OF_ONE = ("asked", "told", "chosen", "given", "sent", "steps", "links")
#: So many events are kept where nobody takes them.
_UNTOLD = 1000


@dataclass(frozen=True)
class ModelListState:
    """What is known of terminals, by their keys.

    Attributes:
        times: seconds of steps, as measured.
        number, round: training rounds so far, and cloud and edge round of the last one.
        keys: key of each node id that was seen.
        asked: number of the round in which it was last asked.
        told: conditions it told last, by name.
        chosen: the variant it wants.
        given: the variant that was decided for it.
        sent: the variant that its last training message carried; "" where that is not on the list.
        steps: of its last round.
        links: bits per second up and down, as a virtual clock measured them; 0 is not known.
        untimed: ids of those that answered in this round, of whom the clock is still to be asked.
        virtual_s: virtual time at which the last round was decided; `None` without a virtual clock.
        untold: events not yet taken.
    """

    times: StepTimes
    number: int = 0
    round: tuple[int, int] = (0, 0)
    keys: Mapping[int, str] = field(default_factory=dict)
    asked: Mapping[str, int] = field(default_factory=dict)
    told: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    chosen: Mapping[str, str] = field(default_factory=dict)
    given: Mapping[str, str] = field(default_factory=dict)
    sent: Mapping[str, str] = field(default_factory=dict)
    steps: Mapping[str, float] = field(default_factory=dict)
    links: Mapping[str, tuple[float, float]] = field(default_factory=dict)
    untimed: Mapping[str, int] = field(default_factory=dict)
    virtual_s: float | None = None
    untold: tuple[Event, ...] = ()

    def heard(self, key: str, told: Mapping[str, Any]) -> ModelListState:
        """With conditions that a terminal told; those it does not tell stay."""
        return replace(self, told={**self.told, key: {**self.told.get(key, {}), **told}}) if told else self

    def timed(self, key: str, name: str, seconds: float) -> ModelListState:
        """With the seconds a step took it, under the load it told last."""
        load = Conditions.read(self.told.get(key, {})).load
        return replace(self, times=self.times.noted(key, name, seconds, load))

    def terminal(self, key: str, row: Mapping[str, Any]) -> Terminal:
        """What is known of it, its properties and present conditions among that."""
        up_bps, down_bps = self.links.get(key, (0.0, 0.0))
        return Terminal(
            {**self.told.get(key, {}), **row},
            self.steps.get(key),
            up_bps or None,
            down_bps or None,
            self.chosen.get(key, ""),
            self.given.get(key, ""),
        )

    def with_event(self, event: Event) -> ModelListState:
        """With one more thing to tell."""
        return replace(self, untold=(*self.untold, event)[-_UNTOLD:])

    def parcel(self, key: str) -> tuple[dict[str, Any], ModelListState]:
        """All that is known of a terminal in plain values, and the state without it."""
        known = {name: getattr(self, name)[key] for name in _OF_ONE if key in getattr(self, name)}
        known.pop("asked", None)
        others: dict[str, Any] = {
            name: {k: value for k, value in getattr(self, name).items() if k != key} for name in _OF_ONE
        }
        after = replace(
            self,
            times=self.times.without(key),
            keys={node: one for node, one in self.keys.items() if one != key},
            untimed={one: node for one, node in self.untimed.items() if one != key},
            **others,
        )
        idle_s = dict(self.times.idle_s.get(key, {}))
        # It has answered the list already, wherever it goes.
        return {"key": key, "known": _plain(known), "idle_s": idle_s, "asked": key in self.asked}, after

    def unpacked(self, node_id: int, parcel: Mapping[str, Any]) -> ModelListState:
        """Inverse of `parcel`."""
        key = parcel["key"]
        known = dict(parcel["known"])
        if "links" in known:
            known["links"] = tuple(known["links"])
        if parcel["asked"]:
            known["asked"] = self.number
        times = replace(self.times, idle_s={**self.times.idle_s, key: dict(parcel["idle_s"])})
        grown: dict[str, Any] = {name: {**getattr(self, name), key: value} for name, value in known.items()}
        return replace(self, times=times, keys={**self.keys, node_id: key}, **grown)

    def to_tree(self) -> dict[str, Any]:
        """As nested plain values."""
        return {
            "times": self.times.to_tree(),
            "number": self.number,
            "round": list(self.round),
            "keys": [list(entry) for entry in self.keys.items()],
            "untimed": dict(self.untimed),
            "virtual_s": self.virtual_s,
            "untold": [event.to_json() for event in self.untold],
            **{name: _plain(getattr(self, name)) for name in _OF_ONE},
        }

    @classmethod
    def from_tree(cls, saved: Mapping[str, Any], catalogue: Catalogue) -> ModelListState:
        """Inverse of `to_tree`, as far as it is of variants that are listed."""
        times = StepTimes.from_tree(saved["times"])
        idle_s = {
            key: {name: seconds for name, seconds in own.items() if name in catalogue}
            for key, own in times.idle_s.items()
        }
        return cls(
            times=replace(times, idle_s=idle_s),
            number=saved["number"],
            round=(saved["round"][0], saved["round"][1]),
            keys=dict(saved["keys"]),
            asked=dict(saved["asked"]),
            told={key: dict(told) for key, told in saved["told"].items()},
            chosen=dict(saved["chosen"]),
            given={key: name for key, name in saved["given"].items() if name in catalogue},
            sent={key: name for key, name in saved["sent"].items() if name in catalogue},
            steps=dict(saved["steps"]),
            links={key: (up, down) for key, (up, down) in saved["links"].items()},
            untimed=dict(saved["untimed"]),
            virtual_s=saved["virtual_s"],
            untold=tuple(Event.from_json(text) for text in saved["untold"]),
        )


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {name: _plain(entry) for name, entry in value.items()}
    return list(value) if isinstance(value, tuple) else value
