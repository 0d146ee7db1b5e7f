"""What `benchmarks.deployment` counts and computes; its deployments are those of test_two_tiers."""

from __future__ import annotations

import socket
import threading
import time

import pytest

from benchmarks import deployment, deployment_tiers
from benchmarks.harness.counted_port import counted_port


def test_a_counted_port_passes_every_byte_on_and_counts_it_by_time() -> None:
    with socket.create_server(("127.0.0.1", 0)) as target:

        def echo() -> None:
            stream, _ = target.accept()
            with stream:
                while data := stream.recv(1 << 16):
                    stream.sendall(data)

        thread = threading.Thread(target=echo)
        thread.start()
        with counted_port(target.getsockname()[1]) as port:
            begin_s = time.monotonic()
            with socket.create_connection(("127.0.0.1", port.port)) as stream:
                for size in (1, 100_000):
                    sent = bytes(range(256)) * (size // 256 + 1)
                    stream.sendall(sent)
                    got = b""
                    while len(got) < len(sent):
                        got += stream.recv(1 << 16)
                    assert got == sent
            thread.join()
            end_s = time.monotonic()
            assert port.bytes_between(begin_s, end_s) == 2 * (256 + 256 * (100_000 // 256 + 1))
            assert port.bytes_between(begin_s - 9, begin_s - 8) == port.bytes_between(end_s, end_s + 1) == 0


def test_a_port_behind_which_nobody_is_closes_at_once() -> None:
    with socket.create_server(("127.0.0.1", 0)) as held:
        number = held.getsockname()[1]
    with counted_port(number) as port, socket.create_connection(("127.0.0.1", port.port)) as stream:
        stream.settimeout(20)
        assert stream.recv(1) == b""


def test_overhead_is_a_cloud_round_over_as_many_flat_rounds_and_one_slow_round_does_not_count() -> None:
    side = deployment_tiers.Side(
        10, flat_s=(0.5, 0.5, 9.0), cloud_s=(5.5, 5.5, 90.0), flat_bytes=0, cloud_bytes=0, cloud_many_bytes=0
    )
    assert side.overhead == pytest.approx(1.1)


def test_one_command_has_the_figures_of_all_three_parts() -> None:
    keys = [figure.key for figure in deployment.FIGURES]
    named = {"tier_overhead_ratio", "tier_overhead_ratio_stock", "centre_bytes_ratio"}
    assert named | {"node_latency_speedup", "thin_worker_rss_mb"} <= set(keys)
    assert len(keys) == len(set(keys))
    targets = {figure.key: figure.target for figure in deployment.FIGURES if figure.target}
    assert targets["tier_overhead_ratio"] == "at most 1.2"
    assert targets["centre_bytes_ratio"] == "at most 0.383333"
    assert targets["node_latency_speedup"] == "at least 10"
    assert targets["thin_worker_rss_mb"] == "at most 120"
