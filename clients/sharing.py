"""What a terminal does where training data are shared: it decides, gives, takes, drops, and trains on what it wants.

Its own policy is asked on the device before anything leaves it. What it is given lies in its `NodeState`, in a file
where it is large, never pickled. `training_data` puts own and common samples together; nothing here trains.

Source: [4] ¶61: each terminal determines whether it trains on the same (global) or its own (local) data.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from logging import getLogger
from typing import Any, Final

import numpy as np
from flwr.app import ConfigRecord, Context, Message, RecordDict
from flwr.clientapp import ClientApp
from flwr.clientapp.typing import ClientAppCallable

from flower_edge.errors import ConfigError, DataError, EdgeError, WireError
from flower_edge.rules import Rule
from flower_edge.runtime.generators import derive_seed
from flower_edge.runtime.node_state import NodeState
from flower_edge.runtime.queries import REQUEST, time_asked_s
from flower_edge.runtime.sharing_messages import (
    ANSWER,
    MOST_SETS,
    SHARE,
    SHARED_RECORD,
    Told,
    Wanted,
    parts_in,
    read_rows,
    rows_record,
    texts_in,
)
from flower_edge.sharing import DataCard, SetSpec, SharePolicy, TrainingSet, check_part, draw

__all__ = ["allow_sharing", "held_sets", "share_data", "sharing_mod", "training_data", "withdraw_data"]

log = getLogger(__name__)

#: Names of what a node remembers: sets of others, and how often it used which.
SETS: Final = "shared-sets"
USES: Final = "shared-uses"
WITHDRAWN: Final = "shared-withdrawn"
_WORDS: Final = ("both", "own", "common")


def share_data(
    app: ClientApp,
    own: Callable[[Context], TrainingSet],
    policy: SharePolicy | Rule | str | None = None,
    *,
    most_bytes: float = 64e6,
    seed: int = 0,
    clock: Callable[[], float] = time.time,
) -> ClientApp:
    """Register the answers to `query.share` on `app`, and return `app`. Beside it: `ClientApp(mods=[sharing_mod])`.

    Args:
        app: the terminal's app.
        own: its set. It is also what sets of others have to look like: same shape, dtypes and classes.
        policy: may its set go to the cell: a rule over the `DataCard` of the samples that are asked for and
            `receiver_cell`. None shares a public set and nothing else. Which terminals of the cell it is then handed
            to is the edge's to decide.
        most_bytes: the most it holds of others.
        seed: of which samples are drawn, with the node's key. The edge has no say in it: whoever asks for more gets the
            same samples and others, and who asks often gets no more than the largest part that `policy` lets go.
        clock: seconds, for the age of its set where the question does not come with a virtual time.

    Raises:
        ConfigError: a rule that is none, or no room at all.
    """
    decides = policy if isinstance(policy, SharePolicy) else SharePolicy(policy)
    if not most_bytes >= 0:
        raise ConfigError(f"share_data(most_bytes={most_bytes}): expected 0 or more")
    if type(seed) is not int or seed < 0:
        raise ConfigError(f"share_data(seed={seed!r}): expected a whole number from 0")

    @app.query(SHARE)
    def share(message: Message, context: Context) -> Message:
        request = message.content.config_records.get(REQUEST) or ConfigRecord()
        asked = request.get("ask")
        if asked == "take":
            told = _take(message.content, context, SetSpec.like(own(context)), most_bytes)
            return Message(RecordDict({ANSWER: ConfigRecord(told)}), reply_to=message)
        if asked == "drop":
            told = {"dropped": _drop(context, texts_in(dict(request), "keys"))}
            return Message(RecordDict({ANSWER: ConfigRecord(told)}), reply_to=message)
        now_s = time_asked_s(message)
        wanted, at_s = Wanted.read(dict(request)), clock() if now_s is None else now_s
        return Message(_give(wanted, own(context), decides, context, at_s, seed), reply_to=message)

    return app


def sharing_mod(message: Message, context: Context, call_next: ClientAppCallable) -> Message:
    """A Flower mod that tells with each training reply what is held, how often it was used, and what is withdrawn.

    The layer `Shared` reads it and takes it out, so that no strategy sees it.
    """
    reply = call_next(message, context)
    if message.metadata.message_type.partition(".")[0] != "train" or reply.has_error():
        return reply
    uses = _uses(context)
    told = Told(
        {key: uses["sets"].get(key, 0) for key in held_sets(context)},
        own_uses=uses["own"],
        withdrawn=_is_withdrawn(context),
    )
    reply.content = RecordDict({**reply.content, SHARED_RECORD: told.record()})
    return reply


def training_data(context: Context, own: TrainingSet, use: Rule | str = "both") -> TrainingSet:
    """What this terminal trains on now: its own samples, the common ones, or both, its own first. Counts one use.

    Args:
        context: of the train function.
        own: the terminal's own set.
        use: "both", "own", "common", or a rule over each set's `DataCard`, the own one's too: `uses < 20`,
            `origin == 'collected' or age_s <= 3600`. A set's `uses` are those of this terminal.

    Where nothing is held, "both" is the own set itself, and "common" too: nothing common has come yet.

    Raises:
        ConfigError: neither one of the three words nor a rule.
        DataError: the rule leaves nothing.
    """
    held, counts = held_sets(context), _uses(context)
    if use in _WORDS:
        chosen = {} if use == "own" else held
        with_own = use != "common" or not chosen
    else:
        rule = Rule.of(use)
        cards = {key: replace(one.card, uses=counts["sets"].get(key, 0)) for key, one in held.items()}
        with_own = rule.holds(replace(own.card, uses=counts["own"]).to_mapping())
        chosen = {key: held[key] for key, card in cards.items() if rule.holds(card.to_mapping())}
        if not with_own and not chosen:
            raise DataError(f"training_data(use={str(rule)!r}) leaves none of {1 + len(held)} sets; try use='both'")
    counts["own"] += int(with_own)
    for key in chosen:
        counts["sets"][key] = counts["sets"].get(key, 0) + 1
    NodeState(context, USES).save(counts)
    if not chosen:
        return own
    parts = [*([own] if with_own else []), *chosen.values()]
    return TrainingSet.of(
        np.concatenate([part.x for part in parts]),
        np.concatenate([part.y for part in parts]),
        name=own.card.name,
        classes=own.card.classes,
        columns=own.columns,
        origin="collected" if with_own else "shared",
    )


def held_sets(context: Context) -> dict[str, TrainingSet]:
    """The sets of others that this terminal holds whole, by key."""
    whole: dict[str, TrainingSet] = {}
    for key, entry in _sets(context).items():
        card = DataCard.read(entry["card"])
        if card is not None and len(entry["x"]) == entry["samples"]:
            whole[key] = TrainingSet(entry["x"], entry["y"], replace(card, samples=len(entry["x"])))
    return whole


def withdraw_data(context: Context) -> None:
    """From now on this terminal shares nothing in this run, whatever its policy says; the edge drops what it has.

    `sharing_mod` tells the edge with the next training reply, and the edge tells the others before the training after
    that. Who has trained on it has learned from it; that cannot be taken back. `allow_sharing` undoes it for the
    future. A run of another name knows nothing of it: what is never to be shared, give `share_data` no policy for.
    """
    # A file, so that it outlives a restart of the device.
    NodeState(context, WITHDRAWN, durable=True).save(True)


def allow_sharing(context: Context) -> None:
    """The policy decides again, from the edge's next question on."""
    NodeState(context, WITHDRAWN, durable=True).save(False)


# -- answers ---------------------------------------------------------------------------------------------------------


def _give(
    wanted: Wanted, own: TrainingSet, policy: SharePolicy, context: Context, now_s: float, seed: int
) -> RecordDict:
    """The card of what is asked for and whether it may go; with rows, where it may and they are asked for."""
    uses = _uses(context)
    memory = NodeState(context, USES)
    most = None if wanted.most < 0 else wanted.most
    # By a seed of the owner's: an edge that could choose it would have every sample after some questions.
    drawn = draw(len(own), wanted.share, most, derive_seed(seed, memory.node_key))
    if not len(drawn):
        return RecordDict({ANSWER: ConfigRecord({"takes": True, "agreed": False, "why": ""})})
    part = own.rows(drawn)
    made_s = part.card.made_at_s
    age_s = None if made_s is None else max(0.0, now_s - made_s)
    card = replace(part.card, uses=max(part.card.uses, uses["own"]), age_s=age_s)
    agreed, why = policy.decide(card, {"receiver": "edge", "receiver_cell": wanted.cell})
    if _is_withdrawn(context):
        agreed, why = False, "withdrawn by its owner"
    told = {**card.to_mapping(), "takes": True, "agreed": agreed, "why": why[:1000]}
    content = RecordDict({ANSWER: ConfigRecord(dict(told))})
    if agreed and wanted.stop:
        content["rows"] = rows_record(part.x[wanted.start : wanted.stop], part.y[wanted.start : wanted.stop])
    return content


def _take(content: RecordDict, context: Context, spec: SetSpec, most_bytes: float) -> dict[str, Any]:
    """Keep parts of sets; which sets were taken up to there, and which were refused and why."""
    sets = _sets(context)
    taken: list[str] = []
    refused: dict[str, str] = {}
    for part, card, record in parts_in(content):
        if part.key in refused:
            continue
        try:
            before = sets.get(part.key, {"x": (), "y": ()})
            check_part(part, len(before["x"]))
            others = sum(int(entry["samples"]) for key, entry in sets.items() if key != part.key)
            if (others + part.samples) * spec.row_bytes > most_bytes:
                raise WireError(f"set {part.key!r} of {part.samples} samples does not fit into {most_bytes:g} bytes")
            if part.key not in sets and len(sets) >= MOST_SETS:
                raise WireError(f"set {part.key!r} would be one more than the {MOST_SETS} sets that are held")
            if card is None:
                raise WireError(f"set {part.key!r} came without a card")
            x, y = read_rows(record, spec, part.stop - part.start, sender="the edge")
        except EdgeError as error:
            refused[part.key] = str(error)
            sets.pop(part.key, None)
            continue
        if part.start:
            x, y = np.concatenate([before["x"], x]), np.concatenate([before["y"], y])
        sets[part.key] = {"x": x, "y": y, "card": card.to_mapping(), "samples": part.samples}
        taken.append(part.key)
    NodeState(context, SETS).save(sets)
    for key, why in refused.items():
        log.warning("node %s does not take %r: %s", context.node_id, key, why)
    kept = [key for key in dict.fromkeys(taken) if key not in refused]
    return {"taken": kept, "refused": list(refused), "why": [why[:200] for why in refused.values()]}


def _drop(context: Context, keys: list[str]) -> list[str]:
    """Forget sets; those that are not here any more afterwards."""
    sets = _sets(context)
    kept = {key: entry for key, entry in sets.items() if key not in keys}
    if len(kept) < len(sets):
        NodeState(context, SETS).save(kept)
    return keys


def _sets(context: Context) -> dict[str, dict[str, Any]]:
    return dict(_remembered(context, SETS))


def _uses(context: Context) -> dict[str, Any]:
    found = _remembered(context, USES)
    return {"own": found.get("own", 0), "sets": dict(found.get("sets", {}))}


def _is_withdrawn(context: Context) -> bool:
    try:
        return NodeState(context, WITHDRAWN, durable=True).load() is True
    except EdgeError as error:
        # Nobody knows any more what the owner said: the careful answer.
        log.warning("node %s shares nothing: whether its owner withdrew is lost: %s", context.node_id, error)
        return True


def _remembered(context: Context, name: str) -> Mapping[str, Any]:
    """What is there; nothing where it was lost with the device's memory, and then the edge hands it over again."""
    memory = NodeState(context, name)
    try:
        found = memory.load()
    except EdgeError as error:
        log.warning("what node %s remembers of shared data is lost: %s", context.node_id, error)
        memory.delete()
        return {}
    return found if isinstance(found, dict) else {}
