"""What the dashboard adds to the style of all pages. Nothing here is run."""

from __future__ import annotations

from typing import Final

from .tier_map import STYLE as MAP_STYLE

__all__ = ["DASHBOARD_STYLE"]

DASHBOARD_STYLE: Final = (
    MAP_STYLE
    + """
.fe-board { display: flex; flex-direction: column; gap: 16px; padding: 16px 20px 40px; width: 100%; max-width: 1760px;
  margin: 0 auto; min-width: 0; }
.fe-uneven { display: grid; grid-template-columns: minmax(300px, 5fr) minmax(0, 8fr); gap: 16px; align-items: start; }
.fe-charts { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(300px, 100%), 1fr)); gap: 10px 18px;
  width: 100%; }
.fe-curve { height: 190px; width: 100%; }
.fe-tiles.fe-tiles-small { grid-template-columns: repeat(auto-fit, minmax(150px, 1fr)); margin: 0; }
.fe-tiles-small .fe-figure { font-size: 23px; }
.fe-tiles-small h3 { color: var(--fe-muted); font-weight: 600; }
.fe-two { align-items: start; }
.fe-hidden { position: absolute; width: 1px; height: 1px; overflow: hidden; clip-path: inset(50%); }
@media (min-width: 701px) { .fe-nowrap td:not(:last-child), .fe-nowrap th { white-space: nowrap; } }
@media (max-width: 980px) { .fe-uneven { grid-template-columns: minmax(0, 1fr); } }
@media (max-width: 700px) {
  .fe-board { padding: 12px 10px 32px; gap: 12px; }
  .fe-tiles.fe-tiles-small { grid-template-columns: repeat(2, minmax(0, 1fr)); }
  .fe-curve { height: 170px; }
}
"""
)
