"""Numbers for Prometheus: what is told is what its own parser reads, and no node can make it grow without an end."""

from __future__ import annotations

import math
import threading

import pytest
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.parser import text_string_to_metric_families

from flower_edge.errors import ConfigError
from flower_edge.telemetry import Metrics


def told(metrics: Metrics) -> dict[tuple[str, tuple[tuple[str, str], ...]], float]:
    """What Prometheus would read: name and labels -> value."""
    return {
        (sample.name, tuple(sorted(sample.labels.items()))): sample.value
        for family in text_string_to_metric_families(metrics.text())
        for sample in family.samples
    }


def test_counters_gauges_and_histograms_are_read_as_they_were_told() -> None:
    metrics = Metrics()
    metrics.counter("sent_bytes", "Bytes.", ("peer",)).add(40, peer="3")
    metrics.counter("sent_bytes", "Bytes.", ("peer",)).add(2, peer="3")
    metrics.gauge("peers", "Peers.").set(2)
    took = metrics.histogram("took_seconds", "Seconds.", bounds=(1.0, 2.0))
    for value in (0.5, 1.0, 1.5, 9.0, math.nan):
        took.observe(value)
    assert told(metrics) == {
        ("flower_edge_sent_bytes_total", (("peer", "3"),)): 42.0,
        ("flower_edge_peers", ()): 2.0,
        ("flower_edge_took_seconds_bucket", (("le", "1.0"),)): 2.0,
        ("flower_edge_took_seconds_bucket", (("le", "2.0"),)): 3.0,
        ("flower_edge_took_seconds_bucket", (("le", "+Inf"),)): 4.0,
        ("flower_edge_took_seconds_count", ()): 4.0,
        ("flower_edge_took_seconds_sum", ()): 12.0,
    }


@given(st.lists(st.text(min_size=1, max_size=100), max_size=20))
def test_whatever_a_node_calls_itself_the_text_can_be_read_and_nothing_is_lost(names: list[str]) -> None:
    metrics = Metrics()
    refused = metrics.counter("refusals", "Refused.", ("node",), most=5)
    for name in names:
        refused.add(node=name)
    found = {key: value for key, value in told(metrics).items() if key[0] == "flower_edge_refusals_total"}
    assert sum(found.values()) == len(names)
    assert len(found) <= 6  # five, and the others
    assert all(len(value) <= 80 for (_, labels) in found for _, value in labels)


def test_beyond_the_bound_counters_add_up_gauges_are_left_out_and_either_is_told() -> None:
    metrics = Metrics()
    sent = metrics.counter("sent_bytes", "Bytes.", ("peer",), most=2)
    delay = metrics.gauge("delay_seconds", "Delay.", ("peer",), most=2)
    for peer in range(5):
        sent.add(10, peer=peer)
        delay.set(peer, peer=peer)
    found = told(metrics)
    assert found["flower_edge_sent_bytes_total", (("peer", "other"),)] == 30.0
    assert ("flower_edge_delay_seconds", (("peer", "other"),)) not in found
    folded = {key[1][0][1]: value for key, value in found.items() if "folded" in key[0]}
    assert folded == {"flower_edge_sent_bytes": 3.0, "flower_edge_delay_seconds": 3.0}
    delay.remove(peer=0)
    delay.set(9, peer="new")
    assert ("flower_edge_delay_seconds", (("peer", "new"),)) in told(metrics)


def test_totals_counted_elsewhere_replace_all_there_were() -> None:
    metrics = Metrics()
    events = metrics.counter("events", "Events.", ("what",), most=2)
    events.add(7, what="gone")
    events.replace({("left",): 2.0, ("entered",): 3.0, ("found",): 1.0})
    assert events.values() == {("left",): 2.0, ("entered",): 3.0, ("other",): 1.0}


@pytest.mark.parametrize("name", ["Sent", "sent-bytes", "flower_edge_sent", "sent_total", "", "1st", "a__b", "a\n"])
def test_a_name_prometheus_would_not_take_is_refused_with_one_it_would(name: str) -> None:
    with pytest.raises(ConfigError, match="such as 'sent_bytes'"):
        Metrics().counter(name, "Sent.")


def test_one_name_is_one_instrument() -> None:
    metrics = Metrics()
    metrics.counter("sent", "Sent.", ("peer",))
    with pytest.raises(ConfigError, match="give one of them another name"):
        metrics.gauge("sent", "Sent.", ("peer",))
    with pytest.raises(ConfigError, match="give one of them another name"):
        metrics.counter("sent", "Sent.")
    with pytest.raises(ConfigError, match="label 'le'"):
        metrics.histogram("took", "Took.", ("le",))
    with pytest.raises(ConfigError, match="each above the last"):
        metrics.histogram("took", "Took.", bounds=(2.0, 1.0))


def test_a_counter_never_shrinks_and_labels_are_those_it_was_made_with() -> None:
    sent = Metrics().counter("sent", "Sent.", ("peer",))
    for wrong in (-1.0, math.nan, math.inf):
        with pytest.raises(ConfigError, match="never shrinks"):
            sent.add(wrong, peer=1)
    with pytest.raises(ConfigError, match=r"expected \['peer'\]"):
        sent.add(1.0)
    with pytest.raises(ConfigError, match=r"expected \['peer'\]"):
        sent.add(1.0, peer=1, node=2)


def test_what_is_looked_up_is_looked_up_at_each_text_and_its_failure_hides_nothing_else(
    caplog: pytest.LogCaptureFixture,
) -> None:
    metrics, looks = Metrics(), iter(range(1, 10))
    spool = metrics.gauge("spool_bytes", "Spooled.")
    metrics.before(lambda: 1 / 0)  # type: ignore[arg-type, return-value]
    metrics.before(lambda: spool.set(next(looks)))
    assert told(metrics)["flower_edge_spool_bytes", ()] == 1.0
    assert told(metrics)["flower_edge_spool_bytes", ()] == 2.0
    assert "ZeroDivisionError" in caplog.text


def test_many_threads_lose_no_count() -> None:
    metrics = Metrics()

    def count() -> None:
        for at in range(2000):
            metrics.counter("sent", "Sent.", ("peer",)).add(peer=at % 3)

    threads = [threading.Thread(target=count) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sum(metrics.counter("sent", "Sent.", ("peer",)).values().values()) == 8000


def test_it_stands_beside_others_in_a_registry_of_prometheus() -> None:
    metrics, registry = Metrics(), CollectorRegistry()
    metrics.gauge("peers", "Peers.").set(2)
    registry.register(metrics)  # type: ignore[arg-type]
    assert b"flower_edge_peers 2.0" in generate_latest(registry)
