"""`about_call`: what log lines of one call of a ClientApp are about. Nothing here logs."""

from __future__ import annotations

from flwr.app import Context, Message

__all__ = ["about_call"]


def about_call(message: Message, context: Context) -> dict[str, int | str]:
    """Round and node, for `telemetry.log_context`.

    The node is its partition where it has one, which is the same in every run, and else Flower's number of it. A round
    is told where the message names one: Flower's strategies put it into the group of their messages.
    """
    group = message.metadata.group_id
    node = context.node_config.get("partition-id", context.node_id)
    round = {"round": int(group)} if group.isascii() and group.isdecimal() and len(group) < 10 else {}
    return {**round, "node": node if isinstance(node, int | str) else str(node)}
