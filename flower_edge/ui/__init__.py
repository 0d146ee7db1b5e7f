"""Pages in a browser, with NiceGUI (`flower-edge[ui]`): the control page of a compression, the dashboard of runs.

Nothing here computes: a page shows what it is told, and hands on what its user wants. `dashboard/` has the dashboard;
`access`, `served`, `layout`, `markup`, `theme` and `words` are for every page; all else is the control page's.
"""

from .dashboard import DEFAULT_DASHBOARD_PORT, Dashboard, serve_dashboard
from .serving import DEFAULT_PORT, ControlPage, serve

__all__ = ["DEFAULT_DASHBOARD_PORT", "DEFAULT_PORT", "ControlPage", "Dashboard", "serve", "serve_dashboard"]
