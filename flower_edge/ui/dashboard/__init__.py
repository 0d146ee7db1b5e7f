"""The dashboard: runs, and one of them followed live. Reads run folders; all it may do to a run is ask it to stop."""

from .serving import DEFAULT_DASHBOARD_PORT, Dashboard, serve_dashboard

__all__ = ["DEFAULT_DASHBOARD_PORT", "Dashboard", "serve_dashboard"]
