"""`Form`: the settings of a submission as fields, with what is attainable beside the goals while they change.

It keeps what stands in its fields (`FormValues`) and nothing else; the session chooses, refuses and compresses.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from itertools import pairwise
from typing import Any, Final

from nicegui import ui

from ...errors import EdgeError
from ...fringe.actions import METHODS
from ...fringe.metrics import METRICS
from ...runtime.compression.settings import CompressionSettings
from .. import words
from ..markup import paragraph, table
from .form_values import SHARES, FormValues

__all__ = ["Form"]

Propose = Callable[[CompressionSettings], Awaitable[dict[str, Any]]]
Submit = Callable[[CompressionSettings], Awaitable[None]]

#: Seconds without a change before the session is asked what it would choose.
_PAUSE_S: Final = 0.6
_DEEPEST: Final = 6
_METHODS: Final = {"pruning": "pruning", "distillation": "knowledge distillation", "quantisation": "quantisation"}


class Form:
    """See the module. Made inside the element that it is to stand in.

    Args:
        values: to begin with.
        units: names of the units of the model that can be cut after.
        propose: what the session would choose, and what is attainable.
        submit: hands settings to the session.

    Attributes:
        said: what the last submission was refused for.
    """

    def __init__(self, values: FormValues, units: Sequence[str], propose: Propose, submit: Submit) -> None:
        self.values, self._units = values, list(units)
        self._propose, self._submit = propose, submit
        self._asked = self._shown = 0
        self.said = ""
        with (
            ui.element("form")
            .props('aria-label="Settings of a submission"')
            .on(
                # Enter in a field submits, as in any form, and the browser does not leave the page.
                "submit.prevent",
                self._send,
            )
        ):
            self._machines()
            self._cuts()
            self._methods()
            self._limit()
            self._goals()
            self._more()
            self._error = ui.html("", sanitize=False).classes("fe-error").props('role="alert"')
            with ui.element("div").classes("fe-row fe-submit"):
                self.button = ui.button("Submit", color=None).classes("fe-button fe-first").props('type="submit"')
        with ui.element("details"):
            ui.html("What would be chosen, and why", sanitize=False, tag="summary")
            self._chosen = ui.html(paragraph("Nothing was proposed yet.", "quiet"), sanitize=False)
        self._timer = ui.timer(_PAUSE_S, self._ask_if_changed)
        self.changed()

    def refuse(self, message: str) -> None:
        """Say beside the form why something was refused; "" clears it."""
        self.said = message
        self._error.set_content(paragraph(message, "bad") if message else "")
        if message:  # once is enough
            self._reach_refused.set_content("")

    def changed(self) -> None:
        """Another value: what is attainable is asked for again, after a moment; what was refused is no longer there."""
        self._asked += 1
        if self.said:  # still said: the page is not to say it anew, at its top
            self._error.set_content("")

    def _set(self, name: str, also: Callable[[], None] | None = None) -> Callable[[Any], None]:
        def change(event: Any) -> None:
            setattr(self.values, name, event.value)
            if also is not None:
                also()
            self.changed()

        return change

    def _machines(self) -> None:
        values = self.values
        with _fieldset("Machines"):
            ui.switch(
                "automatic: machines that do not pay are left out",
                value=values.machines_automatic,
                on_change=self._set("machines_automatic", self._draw_both),
            )
            self._machine_fields = ui.element("div")
            self._draw_machines()

    def _draw_both(self) -> None:
        self._draw_machines()
        self._draw_cuts()

    def _draw_machines(self) -> None:
        values = self.values
        self._machine_fields.clear()
        depths: dict[Any, str] = {0: "automatic"} | {
            number: f"{number} layer{'' if number == 1 else 's'}" for number in range(1, _DEEPEST + 1)
        }
        with self._machine_fields:
            for place, name in enumerate(values.known, start=1):
                with ui.element("div").classes("fe-line"):
                    box = ui.checkbox(
                        f"{place}. {name}",
                        value=values.machines_automatic or name in values.machines,
                        on_change=lambda event, name=name: self._use(name, bool(event.value)),
                    )
                    box.set_enabled(not values.machines_automatic)
                    ui.select(
                        depths,
                        label=f"optimise at {name}",
                        value=values.depths.get(name) or 0,
                        on_change=lambda event, name=name: self._deep(name, event.value),
                    ).props("outlined dense")

    def _use(self, name: str, used: bool) -> None:
        kept = [one for one in self.values.known if (used if one == name else one in self.values.machines)]
        self.values.machines = kept
        self._draw_cuts()
        self.changed()

    def _deep(self, name: str, depth: int) -> None:
        self.values.depths[name] = depth or None
        self.changed()

    def _cuts(self) -> None:
        with _fieldset("Cuts"):
            ui.switch(
                "automatic: where latency is expected to be least",
                value=self.values.cuts_automatic,
                on_change=self._set("cuts_automatic", self._draw_cuts),
            )
            self._cut_fields = ui.element("div")
        self._draw_cuts()

    def _draw_cuts(self) -> None:
        values = self.values
        self._cut_fields.clear()
        if values.cuts_automatic:
            return
        used = values.used
        wanted = max(0, len(used) - 1)
        values.cuts = [*values.cuts, *[""] * wanted][: max(wanted, len(values.cuts))]
        with self._cut_fields:
            for place, (one, other) in enumerate(pairwise(used)):
                given = values.cuts[place]
                ui.select(
                    self._units,
                    label=f"{one} ends after",
                    value=given if given in self._units else None,
                    on_change=lambda event, place=place: self._cut(place, event.value),
                ).props(f'outlined dense hint="then {other}"').style("width: 100%")

    def _cut(self, place: int, unit: str | None) -> None:
        self.values.cuts[place] = unit or ""
        self.changed()

    def _methods(self) -> None:
        values = self.values
        with _fieldset("Method"):
            ui.switch(
                "automatic",
                value=values.methods_automatic,
                on_change=self._set("methods_automatic", self._draw_methods),
            )
            self._method_fields = ui.element("div").classes("fe-row")
        self._draw_methods()

    def _draw_methods(self) -> None:
        values = self.values
        self._method_fields.clear()
        with self._method_fields:
            for method in METHODS:
                box = ui.checkbox(
                    _METHODS.get(method, method),
                    value=values.methods_automatic or method in values.methods,
                    on_change=lambda event, method=method: self._may(method, bool(event.value)),
                )
                box.set_enabled(not values.methods_automatic)

    def _may(self, method: str, may: bool) -> None:
        self.values.methods = [one for one in METHODS if (may if one == method else one in self.values.methods)]
        self.changed()

    def _limit(self) -> None:
        values = self.values
        with _fieldset("What it must not cost"):
            with ui.element("div").classes("fe-line"):
                ui.select(list(METRICS), label="metric", value=values.metric, on_change=self._metric).props(
                    "outlined dense"
                )
                ui.select(
                    {"drop": "may worsen by", "floor": "floor"},
                    label="limit",
                    value=values.limit_kind,
                    on_change=self._set("limit_kind", self._unit_of_limit),
                ).props("outlined dense")
            with ui.element("div").classes("fe-line"):
                self._limit_field = _number("value", values.limit, self._set("limit"))
            self._unit_of_limit()

    def _metric(self, event: Any) -> None:
        self.values.metric = str(event.value)
        self._unit_of_limit()
        self.changed()

    def _unit_of_limit(self) -> None:
        kind = "points" if self.values.limit_kind == "drop" else "%"
        unit = kind if self.values.metric in SHARES else ""
        self._limit_field.props(f'suffix="{unit}"')

    def _goals(self) -> None:
        values = self.values
        with _fieldset("Goals, at least one"):
            with ui.element("div").classes("fe-line"):
                _number("bandwidth, less by", values.bandwidth, self._set("bandwidth"))
                ui.select(
                    {"x": "times", "%": "per cent", "kB": "kB of an inference"},
                    label="bandwidth in",
                    value=values.bandwidth_kind,
                    on_change=self._set("bandwidth_kind"),
                ).props("outlined dense")
            self._reach_bytes = ui.html("", sanitize=False).classes("fe-reach")
            with ui.element("div").classes("fe-line"):
                _number("latency, at most", values.latency_ms, self._set("latency_ms")).props('suffix="ms"')
            with ui.element("div").classes("fe-line"):
                _number("latency, less by", values.reduction, self._set("reduction"))
                ui.select(
                    {"%": "per cent", "x": "times", "ms": "ms"},
                    label="reduction in",
                    value=values.reduction_kind,
                    on_change=self._set("reduction_kind"),
                ).props("outlined dense")
            self._reach_time = ui.html("", sanitize=False).classes("fe-reach")
            self._reach_refused = ui.html("", sanitize=False).classes("fe-reach").props('aria-live="polite"')

    def _more(self) -> None:
        values = self.values
        with ui.element("details"):
            ui.html("More", sanitize=False, tag="summary")
            with _fieldset("Order and samples"):
                with ui.element("div").classes("fe-line"):
                    ui.select(
                        {"rules": "slowest connection first", "learned": "learned from iterations"},
                        label="what to try next",
                        value=values.policy,
                        on_change=self._set("policy"),
                    ).props("outlined dense")
                    _number("seed", values.seed, self._set("seed"))
                ui.switch("follow links as they change", value=values.follow, on_change=self._set("follow"))
                ui.switch("heal with inputs that were served", value=values.live, on_change=self._set("live"))
                ui.switch(
                    "refuse what costs more computing than it saves",
                    value=values.weigh_compute,
                    on_change=self._set("weigh_compute"),
                )

    async def _send(self) -> None:
        self.refuse("")
        try:
            settings = self.values.settings()
        except EdgeError as error:
            self.refuse(str(error))
            return
        await self._submit(settings)

    async def _ask_if_changed(self) -> None:
        """Once nothing changed for a moment; one question at a time, and only the last answer is shown."""
        asked = self._asked
        if asked == self._shown:
            return
        self._shown = asked
        self._reach_refused.set_content(paragraph("looking what is reachable …"))
        try:
            proposed = await self._propose(self.values.settings())
        except EdgeError as error:
            if asked == self._asked:
                self._reach_bytes.set_content("")
                self._reach_time.set_content("")
                self._reach_refused.set_content(paragraph(str(error), "bad"))
                self._chosen.set_content(paragraph("Nothing: see what is said beneath the goals.", "quiet"))
            return
        if asked == self._asked:
            self._show(proposed)

    def _show(self, proposed: dict[str, Any]) -> None:
        most_bytes = (
            f"{words.minus(proposed.get('attainable_bytes_share'))} of {words.size(proposed.get('before_bytes'))}"
        )
        if factor := proposed.get("attainable_factor"):
            most_bytes += f", {factor:.3g} times less"
        self._reach_bytes.set_content(paragraph(f"at most reachable: {most_bytes}"))
        self._reach_time.set_content(
            paragraph(
                f"at most reachable: {words.seconds(proposed.get('attainable_s'))} "
                f"({words.minus(proposed.get('attainable_time_share'))} of {words.seconds(proposed.get('before_s'))})"
            )
        )
        refused = proposed.get("refused")
        self._reach_refused.set_content(paragraph(str(refused), "bad") if refused else "")
        depth = proposed.get("depth") or {}
        cuts = [*proposed.get("cuts", ()), "the end"]
        rows = [
            (name, str(cut), str(depth.get(name, "")))
            for name, cut in zip(proposed.get("machines", ()), cuts, strict=False)
        ]
        methods = ", ".join(proposed.get("methods", ()))
        at = proposed.get("from_version")
        goes_on = "" if at is None else paragraph(f"Goes on from version {at}, where it is: only goals are others.")
        self._chosen.set_content(
            goes_on
            + table("Proposed", ["machine", "ends after", "layers to optimise"], rows)
            + paragraph(f"methods: {methods}")
            + "".join(paragraph(one, "quiet") for one in proposed.get("why", ()))
        )


def _fieldset(title: str) -> ui.element:
    made = ui.element("fieldset")
    with made:
        ui.html(title, sanitize=False, tag="legend")
    return made


def _number(label: str, value: float | None, change: Callable[[Any], None]) -> ui.number:
    return ui.number(label, value=value, on_change=change).props('outlined dense step="any"')
