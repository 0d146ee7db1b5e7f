"""Parts that every page has: panels with headings, alerts, what scrolls by itself, the choice of colours.

NiceGUI elements, made where they are called. Nothing here knows what is shown.
"""

from __future__ import annotations

from html import escape

from nicegui import ui

from .theme import STYLE

__all__ = ["alert", "begin_page", "colours", "folded", "heading", "panel", "tall"]


def begin_page(skip_to: str, what: str, more_style: str = "") -> None:
    """Style, language and the link that jumps over the head of the page.

    Args:
        skip_to: id of what one wants to read.
        what: its name.
        more_style: of this page alone.
    """
    ui.add_css(STYLE + more_style)
    # Whoever listens is told the language; NiceGUI names none unless the whole application has one.
    ui.add_head_html('<script>document.documentElement.lang = "en"</script>')
    ui.html(f'<a class="fe-skip" href="#{escape(skip_to)}">Skip to {escape(what)}</a>', sanitize=False)


def heading(text: str, tag: str) -> None:
    """A heading; its text is escaped."""
    ui.html(escape(text), sanitize=False, tag=tag)


def panel(title: str, anchor: str) -> ui.element:
    """A part of the page with a heading and an id to jump to."""
    made = (
        ui.element("section").classes("fe-panel").props(f'id="{anchor}" aria-labelledby="{anchor}-title" tabindex="-1"')
    )
    with made:
        ui.html(title, sanitize=False, tag="h2").props(f'id="{anchor}-title"')
    return made


def tall(name: str) -> ui.element:
    """What grows scrolls by itself, with the keyboard, too."""
    return ui.element("div").classes("fe-tall").props(f'tabindex="0" role="region" aria-label="{name}"')


def alert() -> ui.html:
    """Where what went wrong is said, also to who listens."""
    return ui.html("", sanitize=False).classes("fe-error").props('role="alert"')


def folded(title: str) -> ui.element:
    """What is shown when it is asked for."""
    made = ui.element("details")
    with made:
        ui.html(escape(title), sanitize=False, tag="summary")
    return made


def colours() -> None:
    """Light, dark, or as the system has it."""
    dark = ui.dark_mode(None)
    ui.select({"auto": "as the system", "light": "light", "dark": "dark"}, label="colours", value="auto").props(
        "dense borderless"
    ).style("min-width: 118px").on_value_change(
        lambda event: dark.set_value({"light": False, "dark": True}.get(event.value))
    )
