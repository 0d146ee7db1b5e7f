"""Clients in threads read arrays side by side, whatever the Python; what they would trip over is provoked here."""

from __future__ import annotations

import subprocess
import sys

import pytest

#: Threads change at every chance, and garbage is collected all the time: an affected Python fails some twenty times.
PROVOKED = """
import ast, gc, sys, threading, time
from flower_edge.runtime.client_pool import ClientPool

def head(depth):
    if depth:
        return head(depth - 1)
    for _ in range(1500):
        ast.literal_eval("{'descr': '<f4', 'fortran_order': False, 'shape': (2, 3), }")

said, ended = [], threading.Semaphore(0)

def told(found):
    said.append(found)
    ended.release()

sys.setswitchinterval(1e-6)
gc.set_threshold(10, 2, 2)
gc.callbacks.append(lambda *_: time.sleep(0))
pool = ClientPool("threads", 4)
for depth in (0, 3, 6, 9):
    pool.submit(lambda depth=depth: head(depth), told)
for _ in range(4):
    ended.acquire()
pool.close()
gc.callbacks.clear()
print([one for one in said if one is not None])
"""


def test_threads_of_a_pool_read_source_at_the_same_time() -> None:
    done = subprocess.run([sys.executable, "-c", PROVOKED], capture_output=True, text=True, timeout=120)
    assert (done.stdout, done.returncode) == ("[]\n", 0), done.stderr


@pytest.mark.skipif(sys.platform == "win32", reason="there is no fork")
def test_a_child_does_not_wait_for_a_thread_that_stayed_behind() -> None:
    forked = """
import ast, os, threading, warnings
warnings.simplefilter("ignore")  # Python 3.12 warns of a fork beside threads
from flower_edge.runtime import one_parser
one_parser._AFFECTED = True
held, may_go, real = threading.Event(), threading.Event(), ast.parse

def slow(*args, **options):
    held.set()
    may_go.wait(60)
    return real(*args, **options)

ast.parse = slow
one_parser.parse_one_at_a_time()
thread = threading.Thread(target=ast.parse, args=("1",))
thread.start()
held.wait(60)
if not (child := os.fork()):
    may_go.set()
    ast.parse("2")
    os._exit(7)
_, status = os.waitpid(child, 0)
may_go.set()
thread.join()
print(os.waitstatus_to_exitcode(status))
"""
    done = subprocess.run([sys.executable, "-c", forked], capture_output=True, text=True, timeout=120)
    assert done.stdout == "7\n", done.stderr
