"""A stage that was told to end is gone in bounded time, whatever hangs: its own closing, or who should read of it.

One that others could reach in plain text does not begin.
"""

from __future__ import annotations

import fcntl
import os
import signal
import subprocess
import sys
import time
from contextlib import suppress

import pytest
from typer.testing import CliRunner

from flower_edge.cli.main import app
from flower_edge.errors import ConfigError

#: The times are a thirtieth, so that nobody waits for twenty seconds here.
PROGRAM = """
import threading
from flower_edge.cli import stage

class Hangs:
    def close(self):
        threading.Event().wait()

stage._END_S = 0.35
stage._end(Hangs())
"""


@pytest.mark.skipif(not hasattr(signal, "setitimer"), reason="there is no alarm on this system")
@pytest.mark.parametrize(("full", "code"), [(False, 0), (True, -signal.SIGALRM)])
def test_a_stage_whose_closing_hangs_ends_though_nobody_reads_where_its_threads_are(full: bool, code: int) -> None:
    reads, writes = os.pipe()
    try:
        if full:
            flags = fcntl.fcntl(writes, fcntl.F_GETFL)
            fcntl.fcntl(writes, fcntl.F_SETFL, flags | os.O_NONBLOCK)
            with suppress(BlockingIOError):
                while os.write(writes, bytes(1 << 12)):
                    pass
            fcntl.fcntl(writes, fcntl.F_SETFL, flags)
        process = subprocess.Popen([sys.executable, "-c", PROGRAM], stdout=subprocess.DEVNULL, stderr=writes)
        began_s = time.monotonic()
        assert process.wait(60) == code
        assert time.monotonic() - began_s < 50  # of these it imports for most
        if not full:
            assert b"Thread" in os.read(reads, 1 << 16)
    finally:
        os.close(reads)
        os.close(writes)


def test_a_stage_that_others_could_reach_without_tls_says_what_to_type() -> None:
    result = CliRunner().invoke(app, ["stage", "--machine", "gateway", "--listen", "0.0.0.0:9201"])
    assert isinstance(result.exception, ConfigError)
    assert "give --certificate and --key, with --authority and --secret" in str(result.exception)
