"""Books settlements into a reward book until it is killed, a line for each that was acknowledged. Runs on the device.

The arguments are the book's path and the first round; with `look` in its place it prints what is in the book, in JSON.
"""

from __future__ import annotations

import json
import platform
import sys

from flower_edge.store.reward_book import RewardBook
from flower_edge.store.reward_rows import Settlement


def book_from(place: str, first: int) -> None:
    """Round after round, without an end."""
    with RewardBook(place) as book:
        while True:
            book.settle(Settlement("arm", first, 0, "server", 3, 0, {"0": 1, "1": 2}))
            print("booked", first, flush=True)
            first += 1


def look(place: str) -> None:
    """What there is."""
    with RewardBook(place, readonly=True) as book:
        rounds = [one.round for one in book.settlements()]
        found = book.verify()
        told = {"rounds": rounds, "balances": dict(book.balances()), "ok": found.ok, "hash": found.head.hash}
    print(json.dumps({"machine": platform.machine(), **told}))


if sys.argv[2] == "look":
    look(sys.argv[1])
else:
    book_from(sys.argv[1], int(sys.argv[2]))
