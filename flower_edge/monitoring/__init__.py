"""A run as others see it: what its folder tells while it runs and afterwards.

For the command line, the dashboard and Prometheus. Nothing here runs a round, and nothing here writes but a request to
stop.
"""

from .agent_exporter import AgentExporter
from .exporter import RunExporter, serve_metrics
from .follower import RunFollower
from .links import Link, links_row
from .run_state import RunState

__all__ = ["AgentExporter", "Link", "RunExporter", "RunFollower", "RunState", "links_row", "serve_metrics"]
