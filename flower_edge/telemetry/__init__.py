"""What a process tells of itself while it runs: numbers for Prometheus, and log lines as JSON.

Low on purpose: every room may use it. Nothing here knows rounds, nodes or Flower, and nothing is told to anybody who
does not ask.
"""

from .instruments import Counter, Gauge, Histogram
from .json_lines import JsonLines, log_about, log_context, log_to_json
from .metrics import Metrics
from .serving import DEFAULT_METRICS_PORT, MetricsServer, metrics_app

__all__ = [
    "DEFAULT_METRICS_PORT",
    "Counter",
    "Gauge",
    "Histogram",
    "JsonLines",
    "Metrics",
    "MetricsServer",
    "log_about",
    "log_context",
    "log_to_json",
    "metrics_app",
]
