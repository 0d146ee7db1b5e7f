"""How `flower-edge compress --state` goes on: as it was kept, but for what is typed this time. Nothing here keeps."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    import typer

    from ..runtime.compression.session_torch import CompressionSession

__all__ = ["go_on", "goes_on_with", "typed_of"]

#: Of each of these lines one is enough, so that one that is typed replaces all of its line that were kept.
_INSTEAD: Final = (("floor", "drop"), ("bandwidth", "latency", "reduction"))


def typed_of(context: typer.Context, config: Mapping[str, Any]) -> dict[str, Any]:
    """Of settings those that were typed, and not by default as they are."""
    sources = {name: context.get_parameter_source(name) for name in config}
    return {name: config[name] for name, source in sources.items() if source and source.name == "COMMANDLINE"}


def goes_on_with(kept: Mapping[str, Any], typed: Mapping[str, Any]) -> dict[str, Any]:
    """Settings of a compression that was kept, with what was typed instead of what it had.

    >>> goes_on_with({"drop": 0.01, "bandwidth": "20x", "seed": 3}, {"floor": 0.9, "latency": "9 ms"})
    {'drop': None, 'bandwidth': None, 'seed': 3, 'floor': 0.9, 'latency': '9 ms'}
    """
    replaced = {name for line in _INSTEAD if not typed.keys().isdisjoint(line) for name in line}
    return {name: None if name in replaced else value for name, value in kept.items()} | dict(typed)


def go_on(session: CompressionSession, typed: Mapping[str, Any], *, follow: bool) -> None:
    """Take up what the session's folder holds, and submit it with what was typed if that is something else.

    Raises:
        EdgeError: it cannot be taken up, or what was typed cannot be.
    """
    from ..runtime.compression.settings import CompressionSettings

    session.resume_kept()
    # Beside the submission it is told there what was chosen.
    names = {field.name for field in fields(CompressionSettings)}
    kept = {name: value for name, value in session.told()["settings"].items() if name in names}
    asked = goes_on_with(kept, typed)
    if any(asked[name] != kept.get(name) for name in asked if name != "follow"):
        session.submit(CompressionSettings.from_config({**asked, "follow": follow or bool(asked["follow"])}))
    elif follow:
        session.automatic(True)
