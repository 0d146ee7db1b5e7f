"""`flower-edge agent`, which can be struck: the plan's path, and then the command line's own arguments."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

from fault_points import Plan


def _points(plan: Plan) -> None:
    import flower_edge.runtime.agent.exchange as exchange
    import flower_edge.runtime.agent.link as link
    import flower_edge.runtime.agent.run as run
    from flower_edge.runtime.agent.letter_files import Part
    from flower_edge.runtime.agent.local_server import LocalServer
    from flower_edge.runtime.agent.posts import Posts

    # A letter comes in eleven pieces, also over a link that is known to be fast.
    exchange.CHUNK_BYTES = exchange.LEAST_CHUNK_BYTES
    _around(link, "deliver", plan, "before_offer")
    _around(Part, "write", plan, "mid_transfer")
    _around(Posts, "done", plan, "ledger_commit")
    # When it returns, the letter has been acknowledged.
    _around(run, "take_letter", plan, "after_ack", after=True)
    stock = LocalServer._answer

    def answer(channel: Any, told: Any, file: Any) -> None:
        if file is not None:
            plan.here("in_aggregation")
        stock(channel, told, file)

    LocalServer._answer = staticmethod(answer)  # type: ignore[method-assign]


def _around(owner: Any, name: str, plan: Plan, point: str, *, after: bool = False) -> None:
    stock = getattr(owner, name)

    def struck(*positional: Any, **named: Any) -> Any:
        if not after:
            plan.here(point)
        done = stock(*positional, **named)
        if after:
            plan.here(point)
        return done

    setattr(owner, name, struck)


if __name__ == "__main__":
    _points(Plan(Path(sys.argv.pop(1))))
    from flower_edge.cli.main import main

    main()
