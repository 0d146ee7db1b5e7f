"""Pages in a browser, with NiceGUI (`flower-edge[ui]`): the control page of a compression, the dashboard of runs.

Nothing here computes: a page shows what it is told, and hands on what its user wants. `compression/` has the control
page, `dashboard/` the dashboard; what lies here is for every page.
"""

from .compression import DEFAULT_PORT, ControlPage, serve
from .dashboard import DEFAULT_DASHBOARD_PORT, Dashboard, serve_dashboard

__all__ = ["DEFAULT_DASHBOARD_PORT", "DEFAULT_PORT", "ControlPage", "Dashboard", "serve", "serve_dashboard"]
