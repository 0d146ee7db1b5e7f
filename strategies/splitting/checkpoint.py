"""What a checkpoint keeps of a `Federation`, as plain values and arrays. Nothing here trains or asks."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from flower_edge.errors import ResumeError
from flower_edge.splitting.order import ArchitectureSpec
from flower_edge.splitting.profile import ModelProfile
from flower_edge.splitting.standardise import Standard

from .copies import Copies
from .plans import plan_of, plan_to_plain
from .prepared import Prepared

if TYPE_CHECKING:
    from .federation import Federation

__all__ = ["federation_state", "load_federation"]


def federation_state(federation: Federation) -> dict[str, Any]:
    """Between two rounds; a plan is in it where it outlasts a round."""
    return {
        "name": federation.name,
        "architecture": federation.architecture.model_dump_json(),
        "profile": "" if federation.prepared is None else federation.prepared.profile.to_json(),
        "standard": None if federation.standard is None else federation.standard.config(),
        "session": federation.session.state_dict(),
        "records": federation.records.state_dict(),
        "numbers": [[node, number] for node, number in federation.numbers.items()],
        "copies": None if federation.copies is None else federation.copies.state_dict(),
        "since_merge": federation.since_merge,
        "fresh": federation.fresh,
        "merged": federation.merged,
        "merges": federation.merges,
        "cuts": {str(number): cut for number, cut in federation.cuts.items()},
        "plan": plan_to_plain(federation.plan_now)
        if federation.plan_now is not None and federation.settings.shared
        else None,
    }


def load_federation(federation: Federation, state: Mapping[str, Any]) -> None:
    """Inverse of `federation_state`, into one that was made with the same settings.

    Raises:
        ResumeError: of another model, or of samples standardised in another way.
    """
    saved = ArchitectureSpec.model_validate_json(state["architecture"])
    if saved.model_copy(update={"digest": ""}) != federation.architecture.model_copy(update={"digest": ""}):
        raise ResumeError(
            f"the checkpoint is of the model {saved.name!r} with options {saved.options}, this run's is "
            f"{federation.architecture.name!r} with {federation.architecture.options}; resume with the model it began "
            "with"
        )
    standard = None if state["standard"] is None else Standard.from_config(state["standard"])
    kinds = [None if one is None else (one.kind, one.scope) for one in (standard, federation.standard)]
    if kinds[0] != kinds[1]:
        raise ResumeError(
            f"the checkpoint has samples standardised by {kinds[0]}, this run by {kinds[1]}; resume with the "
            "standardise= it began with"
        )
    federation.architecture, federation.name, federation.standard = saved, str(state["name"]), standard
    if state["profile"]:
        federation.prepared = Prepared.of(saved, federation.models, ModelProfile.from_json(state["profile"]))
    federation.session.load_state_dict(state["session"])
    federation.records.load_state_dict(state["records"])
    federation.numbers = {int(node): int(number) for node, number in state["numbers"]}
    if state["copies"] is not None:
        federation.copies = Copies(federation.ready().spec, shared=federation.settings.shared)
        federation.copies.load_state_dict(state["copies"])
    federation.since_merge, federation.fresh, federation.merged = (
        int(state["since_merge"]),
        bool(state["fresh"]),
        bool(state["merged"]),
    )
    federation.merges = int(state["merges"])
    federation.cuts = {int(number): int(cut) for number, cut in state["cuts"].items()}
    federation.plan_now = None if state["plan"] is None else plan_of(state["plan"])
