"""How the page looks, light and dark: one style sheet, no font or picture from anywhere else.

Pairs of text and ground have a contrast of 4.5 or more in both. Nothing here is run.
"""

from __future__ import annotations

from typing import Final

__all__ = ["ICON", "STYLE"]

#: A petal and an edge, as the picture of the tab.
ICON: Final = (
    '<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 32 32"><rect width="32" height="32" rx="7" fill="#0b5cad"/>'
    '<path d="M6 9h20M6 16h13M6 23h7" stroke="#fff" stroke-width="3.4" stroke-linecap="round"/></svg>'
)

STYLE: Final = """
:root, body.body--light {
  --fe-ground: #f4f6f9; --fe-surface: #ffffff; --fe-ink: #16202e; --fe-muted: #52606f; --fe-line: #d5dbe3;
  --fe-accent: #0b5cad; --fe-on-accent: #ffffff; --fe-good: #176f34; --fe-bad: #b3261e; --fe-warn: #7c5200;
  --fe-before: #6b7785; --fe-now: #0b5cad; --fe-soft: #e8eef6;
}
body.body--dark {
  --fe-ground: #0e131a; --fe-surface: #171e27; --fe-ink: #e8edf3; --fe-muted: #a3afbd; --fe-line: #323c49;
  --fe-accent: #7cbcff; --fe-on-accent: #0b1622; --fe-good: #5fd57c; --fe-bad: #ff948b; --fe-warn: #e9bb48;
  --fe-before: #94a1b0; --fe-now: #7cbcff; --fe-soft: #202a36;
}
body, body.body--dark { background: var(--fe-ground); color: var(--fe-ink); font-size: 15px; line-height: 1.45;
  font-family: system-ui, -apple-system, "Segoe UI", Roboto, "Noto Sans", sans-serif; }
.nicegui-content { padding: 0; gap: 0; align-items: stretch; width: 100%; }
.fe-skip { position: absolute; left: -999px; top: 0; padding: 8px 12px; background: var(--fe-surface); z-index: 99; }
.fe-skip:focus { left: 8px; }
:focus-visible { outline: 3px solid var(--fe-accent); outline-offset: 2px; }
a { color: var(--fe-accent); }

.fe-top { position: sticky; top: 0; z-index: 10; background: var(--fe-surface); border-bottom: 1px solid var(--fe-line);
  padding: 10px 20px; display: flex; flex-wrap: wrap; gap: 8px 18px; align-items: center; width: 100%; }
.fe-top h1 { font-size: 18px; font-weight: 650; margin: 0; line-height: 1.3; letter-spacing: 0; }
.fe-buttons { display: flex; flex-wrap: wrap; gap: 8px; align-items: center; }
.fe-spring { flex: 1 1 auto; }
.fe-main { display: grid; grid-template-columns: minmax(330px, 390px) minmax(0, 1fr); gap: 16px;
  padding: 16px 20px 40px; width: 100%; max-width: 1760px; margin: 0 auto; align-items: start; }
.fe-side, .fe-rest { display: flex; flex-direction: column; gap: 16px; min-width: 0; }
.fe-panel { background: var(--fe-surface); border: 1px solid var(--fe-line); border-radius: 10px; padding: 14px 16px;
  min-width: 0; width: 100%; }
.fe-panel h2 { font-size: 16px; font-weight: 650; margin: 0 0 8px; line-height: 1.3; letter-spacing: 0; }
.fe-panel h3 { font-size: 14px; font-weight: 650; margin: 10px 0 4px; line-height: 1.3; letter-spacing: 0; }
.fe-two { display: grid; grid-template-columns: repeat(2, minmax(0, 1fr)); gap: 16px; }
.fe-panel p { margin: 4px 0; overflow-wrap: anywhere; }
.fe-quiet { color: var(--fe-muted); }
.fe-good { color: var(--fe-good); } .fe-bad { color: var(--fe-bad); } .fe-warn { color: var(--fe-warn); }
.fe-busy { color: var(--fe-accent); }
.fe-mark { display: inline-block; border: 1.5px solid currentColor; border-radius: 999px; padding: 0 9px;
  font-size: 13px; font-weight: 600; line-height: 1.55; white-space: nowrap; }
.fe-status p { margin: 0; }
.fe-error:empty { display: none; }
.fe-error { border-left: 4px solid var(--fe-bad); padding: 6px 10px; margin-top: 10px; background: var(--fe-soft);
  overflow-wrap: anywhere; }
/* In sight, however long the form is. */
.fe-submit { position: sticky; bottom: 0; background: var(--fe-surface); padding: 10px 0; z-index: 5; }
.fe-reach { color: var(--fe-muted); font-size: 13.5px; }
.fe-reach:empty { display: none; }

.fe-scroll { overflow-x: auto; width: 100%; }
.fe-table { border-collapse: collapse; width: 100%; font-variant-numeric: tabular-nums; font-size: 14px; }
.fe-table caption { text-align: left; color: var(--fe-muted); font-size: 13px; padding: 4px 0; }
.fe-table th, .fe-table td { text-align: left; padding: 5px 12px 5px 0; border-bottom: 1px solid var(--fe-line);
  vertical-align: top; font-weight: 400; }
.fe-table thead th { font-weight: 600; font-size: 13px; color: var(--fe-muted); }
.fe-table tbody th { font-weight: 600; }
.fe-table tr:last-child > * { border-bottom: 0; }
.fe-terms { display: grid; grid-template-columns: repeat(auto-fit, minmax(122px, 1fr)); gap: 6px 14px;
  margin: 8px 0 0; }
.fe-terms dt { color: var(--fe-muted); font-size: 13px; } .fe-terms dd { margin: 0; font-weight: 600;
  font-variant-numeric: tabular-nums; overflow-wrap: anywhere; }
.fe-card .fe-terms { grid-template-columns: repeat(auto-fit, minmax(96px, 1fr)); }
.fe-cards { display: grid; grid-template-columns: repeat(auto-fit, minmax(255px, 1fr)); gap: 12px; }
.fe-card { border: 1px solid var(--fe-line); border-radius: 8px; padding: 10px 12px; min-width: 0; }
.fe-card h3 { margin-top: 0; }
.fe-tiles { display: grid; grid-template-columns: repeat(auto-fit, minmax(210px, 1fr)); gap: 12px; margin-bottom: 8px; }
.fe-tile { border: 1px solid var(--fe-line); border-radius: 8px; padding: 10px 12px; }
.fe-tile h3 { margin: 0; display: flex; flex-wrap: wrap; gap: 2px 8px; justify-content: space-between; }
.fe-tile p { color: var(--fe-muted); margin: 0; font-size: 13.5px; }
.fe-tile .fe-figure { color: var(--fe-ink); font-size: 26px; font-weight: 650; line-height: 1.4;
  font-variant-numeric: tabular-nums; }
.fe-tall { max-height: 400px; overflow-y: auto; width: 100%; }
.fe-monitor { display: grid; grid-template-columns: repeat(auto-fit, minmax(280px, 1fr)); gap: 6px 24px;
  margin: 4px 0 8px; }
.fe-bar { display: grid; grid-template-columns: 72px minmax(40px, 1fr) 136px; gap: 8px; align-items: center;
  font-size: 13.5px; font-variant-numeric: tabular-nums; }
.fe-track { display: block; height: 12px; background: var(--fe-soft); border-radius: 3px; overflow: hidden; }
.fe-fill { display: block; height: 100%; min-width: 2px; }
.fe-fill.fe-before { background: var(--fe-before); } .fe-fill.fe-now { background: var(--fe-now); }
.fe-chart { height: 240px; width: 100%; }
details > summary { cursor: pointer; color: var(--fe-accent); padding: 4px 0; width: fit-content; }

.fe-panel fieldset { border: 0; border-top: 1px solid var(--fe-line); padding: 8px 0 10px; margin: 0;
  min-width: 0; width: 100%; }
.fe-panel fieldset:first-of-type { border-top: 0; padding-top: 0; }
.fe-panel legend { font-weight: 650; font-size: 14px; padding: 0; float: left; width: 100%; margin-bottom: 4px; }
.fe-panel legend + * { clear: both; }
.fe-line { display: grid; grid-template-columns: repeat(2, minmax(0, 1fr)); gap: 8px; align-items: center; width: 100%;
  margin: 5px 0; clear: both; }
.fe-row { display: flex; flex-wrap: wrap; gap: 2px 14px; align-items: center; width: 100%; }
.fe-line .q-field { width: 100%; }
.fe-panel .q-field__label { color: var(--fe-muted); }
.q-field__native, .q-field__input, .q-field__prefix, .q-field__suffix, .q-field__marginal { color: var(--fe-ink); }
.q-field--outlined .q-field__control:before { border-color: var(--fe-muted); }
.q-field--focused .q-field__label, .q-field--focused .q-field__control { color: var(--fe-accent) !important; }
.q-menu { background: var(--fe-surface); color: var(--fe-ink); border: 1px solid var(--fe-line); }
.q-item--active { color: var(--fe-accent); font-weight: 600; }
.q-checkbox__inner--truthy, .q-checkbox__inner--indet, .q-toggle__inner--truthy { color: var(--fe-accent) !important; }
.q-checkbox__inner--falsy, .q-toggle__inner--falsy { color: var(--fe-muted); }
.q-checkbox__svg { color: var(--fe-surface); }
.fe-button.q-btn { background: var(--fe-soft); color: var(--fe-ink); border: 1px solid var(--fe-muted);
  min-height: 34px; padding: 2px 13px; font-weight: 600; text-transform: none; border-radius: 7px; letter-spacing: 0; }
.fe-button.fe-first { background: var(--fe-accent); color: var(--fe-on-accent); border-color: var(--fe-accent); }
.fe-button.disabled, .fe-button[disabled] { opacity: .45 !important; }
.fe-button .q-focus-helper { display: none; }
.fe-button:hover { filter: brightness(.95); } body.body--dark .fe-button:hover { filter: brightness(1.15); }
.fe-small.q-btn { min-height: 28px; padding: 0 9px; font-size: 13px; }

@media (min-width: 981px) {
  .fe-side { position: sticky; top: 86px; max-height: calc(100vh - 100px); overflow-y: auto; border-radius: 10px; }
}
@media (max-width: 980px) { .fe-main { grid-template-columns: minmax(0, 1fr); } }
@media (max-width: 700px) {
  .fe-submit { position: static; }
  .fe-top { position: static; padding: 10px 12px; } .fe-main { padding: 12px 10px 32px; gap: 12px; }
  .fe-panel { padding: 12px; } .fe-two { grid-template-columns: minmax(0, 1fr); }
  .fe-table, .fe-table tbody, .fe-table tr, .fe-table th, .fe-table td, .fe-table caption { display: block;
    width: 100%; }
  .fe-table thead { position: absolute; width: 1px; height: 1px; overflow: hidden; clip-path: inset(50%); }
  .fe-table tr { border-bottom: 1px solid var(--fe-line); padding: 6px 0; }
  .fe-table tr:last-child { border-bottom: 0; }
  .fe-table th, .fe-table td { border: 0; padding: 1px 0; }
  .fe-table td { display: grid; grid-template-columns: minmax(104px, 40%) minmax(0, 1fr); gap: 8px;
    overflow-wrap: anywhere; }
  .fe-table td::before { content: attr(data-label); color: var(--fe-muted); }
  .fe-table th[data-label]::before { content: attr(data-label) " "; }
  .fe-table td:empty { display: none; }
  .fe-bar { grid-template-columns: 70px minmax(20px, 1fr) 128px; }
}
@media (prefers-reduced-motion: reduce) { * { transition: none !important; animation: none !important; } }
"""
