"""`parse_one_at_a_time`: threads that read Python source at the same time do not make each other fail.

On CPython 3.11 before 3.11.8, as of Debian 12, `ast.parse` counts its depth in one place for all threads and raises
`SystemError: AST constructor recursion depth mismatch` now and then (cpython#106905). NumPy reads the head of every
array with it, and so does Flower's `Array.numpy`: a client in a thread would be lost for no reason, in one run and not
in the next.
"""

from __future__ import annotations

import ast
import functools
import os
import sys
import threading
from typing import Any

__all__ = ["parse_one_at_a_time"]

_AFFECTED = (3, 11) <= sys.version_info[:3] < (3, 11, 8)


@functools.cache
def parse_one_at_a_time() -> None:
    """From now on threads wait for each other in `ast.parse`, where this Python needs that; else nothing is changed."""
    if not _AFFECTED:
        return
    # A collection of garbage within may parse as well, in the same thread.
    parse, locks = ast.parse, [threading.RLock()]

    @functools.wraps(parse)
    def in_turn(*args: Any, **options: Any) -> Any:
        with locks[0]:
            return parse(*args, **options)

    ast.parse = in_turn
    # Whoever held it is not in the child.
    os.register_at_fork(after_in_child=lambda: locks.__setitem__(0, threading.RLock()))
