"""`FormValues`: what stands in the form, and the settings that it means. Values only; nothing here needs NiceGUI."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, Literal

from ...errors import FringeError
from ...runtime.compression.settings import CompressionSettings

__all__ = ["SHARES", "FormValues"]

#: Metrics that are shares of one: the form has them in per cent.
SHARES: Final = ("accuracy", "recall", "precision")

LimitKind = Literal["drop", "floor"]
SizeKind = Literal["x", "%", "kB"]
TimeKind = Literal["x", "%", "ms"]


@dataclass
class FormValues:
    """A form. What is automatic is kept, so that switching back and forth loses nothing.

    Attributes:
        known: all machines, in their order.
        machines_automatic, machines: those that are used.
        depths: by machine, as many layers from each of its cuts; None: automatic.
        cuts_automatic, cuts: names of units, one per connection.
        methods_automatic, methods: that may be tried.
        metric: by which versions are judged.
        limit_kind, limit: at most so much worse, or never worse than; in points or per cent of a share.
        bandwidth, bandwidth_kind: how much less; None: no such goal.
        latency_ms: at most; None: no such goal.
        reduction, reduction_kind: how much less; None: no such goal.
        policy, follow, live, weigh_compute, seed: see `CompressionSettings`.

    >>> FormValues(["a", "b"]).settings().bandwidth
    '20x'
    """

    known: Sequence[str]
    machines_automatic: bool = True
    machines: list[str] = field(default_factory=list)
    depths: dict[str, int | None] = field(default_factory=dict)
    cuts_automatic: bool = True
    cuts: list[str] = field(default_factory=list)
    methods_automatic: bool = True
    methods: list[str] = field(default_factory=list)
    metric: str = "accuracy"
    limit_kind: LimitKind = "drop"
    limit: float | None = 1.0
    bandwidth: float | None = 20.0
    bandwidth_kind: SizeKind = "x"
    latency_ms: float | None = None
    reduction: float | None = None
    reduction_kind: TimeKind = "%"
    policy: Literal["rules", "learned"] = "rules"
    follow: bool = True
    live: bool = False
    weigh_compute: bool = False
    seed: float | None = 0

    @property
    def used(self) -> list[str]:
        """Machines that a cut may lie between: the chosen ones, or all."""
        return list(self.known) if self.machines_automatic else [one for one in self.known if one in self.machines]

    def settings(self) -> CompressionSettings:
        """What the form means.

        Raises:
            FringeError: something that cannot be, as the settings say it.
        """
        if self.limit is None:
            raise FringeError("no limit of the metric; expected how much worse it may become, such as 1 point")
        if not self.machines_automatic and len(self.used) < 2:
            raise FringeError(f"{len(self.used)} machines chosen; expected two or more, or automatic")
        if not self.methods_automatic and not self.methods:
            raise FringeError("no method chosen; expected one or more, or automatic")
        used = self.used
        cuts = None if self.cuts_automatic else tuple(self.cuts[: len(used) - 1])
        if cuts is not None and (len(cuts) < len(used) - 1 or "" in cuts):
            raise FringeError(f"a cut is not chosen; expected {len(used) - 1}, one per connection, or automatic")
        depths = {name: depth for name, depth in self.depths.items() if depth is not None and name in used}
        limit = round(self.limit / 100, 12) if self.metric in SHARES else self.limit
        seed = 0 if self.seed is None else self.seed
        return CompressionSettings(
            # A number of cuts says how many machines there are: the form has one per connection of those it shows.
            machines=tuple(used) if not self.machines_automatic or cuts is not None else (),
            cuts=cuts,
            depth=depths or None,
            methods=() if self.methods_automatic else tuple(self.methods),
            metric=self.metric,
            floor=limit if self.limit_kind == "floor" else None,
            drop=limit if self.limit_kind == "drop" else None,
            bandwidth=_amount(self.bandwidth, self.bandwidth_kind),
            latency=_amount(self.latency_ms, "ms"),
            reduction=_amount(self.reduction, self.reduction_kind),
            policy=self.policy,
            follow=self.follow,
            live=self.live,
            weigh_compute=self.weigh_compute,
            seed=int(seed) if seed == int(seed) else seed,  # type: ignore[arg-type]  # the settings refuse it by name
        )

    @classmethod
    def of(cls, known: Sequence[str], told: Mapping[str, Any]) -> FormValues:
        """The form of a submission, so that a page that is opened later begins with it.

        Args:
            known: all machines.
            told: the settings that a session tells; empty before the first submission.
        """
        fields = CompressionSettings.__dataclass_fields__
        given = {name: value for name, value in told.items() if name in fields}
        try:
            settings = CompressionSettings.from_config(given)
        except FringeError:  # nothing was submitted
            return cls(known, machines=list(known))
        scale = 100.0 if settings.metric in SHARES else 1.0
        limit = settings.drop if settings.floor is None else settings.floor
        depth = settings.depth
        depths = depth if isinstance(depth, Mapping) else {} if depth is None else dict.fromkeys(known, depth)
        bandwidth, bandwidth_kind = _parts(settings.bandwidth, ("x", "%", "kB"))
        latency, _ = _parts(settings.latency, ("ms",))
        reduction, reduction_kind = _parts(settings.reduction, ("x", "%", "ms"))
        return cls(
            known,
            machines_automatic=not settings.machines,
            machines=list(settings.machines or known),
            depths=dict(depths),
            cuts_automatic=settings.cuts is None,
            cuts=[str(cut) for cut in settings.cuts or ()],
            methods_automatic=not settings.methods,
            methods=list(settings.methods),
            metric=settings.metric,
            limit_kind="drop" if settings.floor is None else "floor",
            limit=None if limit is None else round(scale * limit, 9),
            bandwidth=bandwidth,
            bandwidth_kind=bandwidth_kind or "x",  # type: ignore[arg-type]  # one of those that were asked for
            latency_ms=latency,
            reduction=reduction,
            reduction_kind=reduction_kind or "%",  # type: ignore[arg-type]
            policy=settings.policy,
            follow=settings.follow,
            live=settings.live,
            weigh_compute=settings.weigh_compute,
            seed=settings.seed,
        )


def _amount(value: float | None, kind: str) -> str | None:
    return None if value is None else f"{value:.12g}{'' if kind in 'x%' else ' '}{kind}"


def _parts(text: str | None, kinds: Sequence[str]) -> tuple[float | None, str | None]:
    """A number and its unit, brought to one of the form's."""
    from ...fringe.goals import Goals

    if text is None:
        return None, None
    if "ms" in kinds:
        if kinds == ("ms",):
            return round(1e3 * float(Goals(drop=0, latency_s=text).latency_s or 0.0), 9), "ms"
        amount, scale, unit = Goals(drop=0, reduction=text).reduction, 1e3, "ms"
    else:
        amount, scale, unit = Goals(drop=0, bandwidth=text).bandwidth, 1e-3, "kB"
    kind, value = amount.kind, amount.value  # type: ignore[union-attr]  # Goals makes an Amount of text
    factor, name = {"factor": (1.0, "x"), "share": (100.0, "%"), "amount": (scale, unit)}[kind]
    return round(value * factor, 9), name
