"""`Session`: how far a federation is with split learning, device by device. A state machine; nothing here sends.

    REQUEST -> PREPARE -> READY -> TRAIN <-> AGGREGATE -> ... -> DONE

A device *requests* training once it has enough data. When all enrolled devices have, or the time-out has dropped those
that had not, the cloud *prepares*: it says which model and how samples are standardised. A device is *ready* when it
has built that very model. Devices that were dropped, and new ones, may join at a merge, where all begin alike.

Source: [3] §4.2 (docs/sources.md), the phases; time-outs, missing and late devices are left open there.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field
from enum import StrEnum
from typing import Any

from flower_edge.errors import ConfigError, NotEnoughNodes, ProtocolError
from flower_edge.events import Event
from flower_edge.runtime.splitting.messages import Offered

__all__ = ["Device", "EnrolRules", "Phase", "Session", "Standing"]


#: Characters that are kept of what a device says.
_LONGEST = 1000


class Phase(StrEnum):
    """Of a session."""

    REQUEST = "request"
    PREPARE = "prepare"
    READY = "ready"
    TRAIN = "train"
    AGGREGATE = "aggregate"
    DONE = "done"


class Standing(StrEnum):
    """Of a device in a session."""

    ENROLLED = "enrolled"
    REQUESTED = "requested"
    READY = "ready"
    MEMBER = "member"
    DROPPED = "dropped"
    REFUSED = "refused"


@dataclass(frozen=True)
class EnrolRules:
    """Whom a session waits for, and how long.

    Attributes:
        least_samples: how many samples are enough for a device to request training.
        min_devices: the least that must be ready.
        expected: how many devices must be there before the session begins; fewer are waited for until the time-out.
        timeout_s: after so long, devices that have not requested are dropped, on a virtual clock in virtual seconds.
        poll_s: between two questions to devices that have not requested yet.

    Raises:
        ConfigError: a value that cannot be.
    """

    least_samples: int = 1
    min_devices: int = 1
    expected: int = 1
    timeout_s: float = 600.0
    poll_s: float = 5.0

    def __post_init__(self) -> None:
        for name in ("least_samples", "min_devices", "expected"):
            count = getattr(self, name)
            if type(count) is not int or count < 1:
                raise ConfigError(f"EnrolRules({name}={count!r}): expected a whole number, 1 or more")
        if not (type(self.timeout_s) in (int, float) and 0 <= self.timeout_s < math.inf):
            raise ConfigError(f"EnrolRules(timeout_s={self.timeout_s!r}): expected seconds, 0 or more")
        if not (type(self.poll_s) in (int, float) and 0 < self.poll_s < math.inf):
            raise ConfigError(f"EnrolRules(poll_s={self.poll_s!r}): expected seconds, more than 0")


@dataclass
class Device:
    """What a session knows of a device.

    Attributes:
        standing: how far it is.
        samples: how many it told last.
        why: why it is dropped or refused, or what it said when it did not request.
    """

    standing: Standing = Standing.ENROLLED
    samples: int = 0
    why: str = ""


@dataclass
class Session:
    """All devices of a federation, by number.

    Attributes:
        rules: whom to wait for.
        phase: of the session.
        devices: all that were ever there.
        begun_s: when it began to wait; None before.
        told: what happened since `take_events`.
    """

    rules: EnrolRules
    phase: Phase = Phase.REQUEST
    devices: dict[int, Device] = field(default_factory=dict)
    begun_s: float | None = None
    told: list[Event] = field(default_factory=list)

    def with_standing(self, *standings: Standing) -> list[int]:
        """Numbers of the devices of these standings, in order."""
        return sorted(number for number, device in self.devices.items() if device.standing in standings)

    @property
    def members(self) -> list[int]:
        """Who trains, by number."""
        return self.with_standing(Standing.MEMBER)

    # -- requests ----------------------------------------------------------------------------------------------------

    def enrol(self, present: Iterable[int]) -> None:
        """Devices that are there, and were not known."""
        for number in present:
            self.devices.setdefault(number, Device())

    def requested(self, number: int, offered: Offered) -> None:
        """A device answered whether it has enough data."""
        device = self.devices[number]
        device.samples, device.why = offered.samples, offered.why[:_LONGEST]
        enough = offered.requests and offered.samples >= self.rules.least_samples
        if enough and device.standing in (Standing.ENROLLED, Standing.DROPPED):
            device.standing, device.why = Standing.REQUESTED, ""
            self._tell("requested", number, f"asks for training with {offered.samples} samples")

    def wait(self, now_s: float) -> bool:
        """Whether there is somebody to wait for. Moves on to PREPARE where there is not.

        Raises:
            NotEnoughNodes: the time is over, and too few have asked.
        """
        self._expect(Phase.REQUEST)
        self.begun_s = now_s if self.begun_s is None else self.begun_s
        missing = self.with_standing(Standing.ENROLLED)
        asked = self.with_standing(Standing.REQUESTED)
        over = now_s - self.begun_s >= self.rules.timeout_s
        rules = self.rules
        if not over and (missing or len(self.devices) < rules.expected or len(asked) < rules.min_devices):
            return True
        for number in missing:
            self._out(number, Standing.DROPPED, self.devices[number].why or "it did not answer")
        self._least(asked, "have asked for training")
        self._move(Phase.PREPARE)
        return False

    def awaited(self) -> str:
        """Whom it waits for in its first phase, in words."""
        rules = self.rules
        missing = self.with_standing(Standing.ENROLLED)
        if missing:
            shown = ", ".join(str(number) for number in missing[:6]) + (", …" if len(missing) > 6 else "")
            return f"{len(missing)} of {len(self.devices)} devices ({shown}) to have {rules.least_samples} samples"
        return f"{max(rules.expected, rules.min_devices)} devices, of which {len(self.devices)} are there"

    # -- preparation -------------------------------------------------------------------------------------------------

    def ready(self, number: int, digest: str, expected: str, why: str = "") -> None:
        """A device built the model, or told why it could not."""
        if digest == expected:
            self.devices[number].standing = Standing.READY
            self._tell("ready", number, "is ready")
            return
        if not digest:
            reason = why[:_LONGEST] or "it told no digest of the model"
        else:
            reason = (
                f"its model has digest {digest[:12]}, this run's {expected[:12]}; give split_client the same models= "
                "and install the same flower-edge and torch on both sides"
            )
        self._out(number, Standing.REFUSED, reason)

    def refuse(self, number: int, why: str) -> None:
        """A device told what cannot be."""
        self._out(number, Standing.REFUSED, why)

    def begin(self) -> None:
        """All that are ready become members, and training begins.

        Raises:
            NotEnoughNodes: too few are ready.
        """
        self._expect(Phase.PREPARE)
        for number in self.with_standing(Standing.REQUESTED):
            self._out(number, Standing.DROPPED, "it did not answer when the cloud had prepared")
        ready = self.with_standing(Standing.READY)
        self._least(ready, "are ready")
        self._move(Phase.READY)
        self.admit()
        self._move(Phase.TRAIN)

    def admit(self) -> list[int]:
        """Those that are ready become members; their numbers. At a merge only, or in the beginning."""
        ready = self.with_standing(Standing.READY)
        for number in ready:
            self.devices[number].standing, self.devices[number].why = Standing.MEMBER, ""
            if self.phase is not Phase.READY:
                self._tell("joined", number, "joins")
        return ready

    # -- training ----------------------------------------------------------------------------------------------------

    def merging(self) -> None:
        """Models are being merged."""
        self._expect(Phase.TRAIN)
        self._move(Phase.AGGREGATE)

    def merged(self) -> None:
        """Training goes on."""
        self._expect(Phase.AGGREGATE)
        self._move(Phase.TRAIN)

    def done(self, why: str) -> None:
        """What was wanted is reached."""
        if self.phase is not Phase.DONE:
            self._move(Phase.DONE, why)

    def training_goes_on(self) -> None:
        """Rounds are asked for, whatever was reached before."""
        if self.phase is Phase.DONE:
            self._move(Phase.TRAIN)

    # -- events and checkpoints --------------------------------------------------------------------------------------

    def take_events(self) -> list[Event]:
        """What happened since the last call."""
        told, self.told = self.told, []
        return told

    def state_dict(self) -> dict[str, Any]:
        """For a checkpoint; a time-out that runs begins anew after it."""
        return {
            "phase": str(self.phase),
            "devices": {
                str(number): {**asdict(device), "standing": str(device.standing)}
                for number, device in self.devices.items()
            },
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Inverse of `state_dict`."""
        self.phase, self.begun_s, self.told = Phase(state["phase"]), None, []
        self.devices = {
            int(number): Device(Standing(saved["standing"]), int(saved["samples"]), str(saved["why"]))
            for number, saved in state["devices"].items()
        }

    # -- inside ------------------------------------------------------------------------------------------------------

    def _expect(self, phase: Phase) -> None:
        if self.phase is not phase:
            raise ProtocolError(f"a split session in phase {str(self.phase)!r} was used as one in {str(phase)!r}")

    def _least(self, found: list[int], what: str) -> None:
        if len(found) >= self.rules.min_devices:
            return
        reasons = "; ".join(
            f"device {number}: {device.why}" for number, device in sorted(self.devices.items()) if device.why
        )
        raise NotEnoughNodes(
            f"{len(found)} of the {self.rules.min_devices} devices that EnrolRules(min_devices=...) wants {what} "
            f"after {self.rules.timeout_s:g} s{f' ({reasons})' if reasons else ''}; wait longer with timeout_s=, or "
            "lower min_devices or least_samples"
        )

    def _out(self, number: int, standing: Standing, why: str) -> None:
        self.devices[number].standing, self.devices[number].why = standing, why
        self._tell(str(standing), number, f"is {standing}: {why}")

    def _move(self, phase: Phase, why: str = "") -> None:
        self.phase = phase
        text = f"session: {phase}{f' ({why})' if why else ''}"
        self.told.append(Event("split-phase", text, values={"phase": str(phase)}))

    def _tell(self, what: str, number: int, text: str) -> None:
        self.told.append(Event(f"split-{what}", f"device {number} {text}", node=str(number)))
