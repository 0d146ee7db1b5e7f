"""What every test of a page in a real browser needs: where the browser is, and what it is asked about a page."""

from __future__ import annotations

import shutil
from typing import Final

CHROMIUM: Final = shutil.which("chromium") or shutil.which("chromium-browser")
WAIT_MS: Final = 60_000

#: Fonts are loaded, and colours that fade in are what they will be.
SETTLED: Final = """async () => {
  await document.fonts.ready;
  await Promise.allSettled(document.getAnimations().filter(one =>
    one.effect.getComputedTiming().endTime < Infinity).map(one => one.finished));
}"""

#: Fields and buttons that have no name for who cannot see them.
UNNAMED: Final = """() => [...document.querySelectorAll(
    'button, input, select, [role=switch], [role=checkbox]')].filter(one =>
    one.offsetParent !== null && !one.getAttribute('aria-label') && !one.innerText.trim() &&
    !(one.labels && one.labels.length) && !one.closest('label') && !one.closest('[role=switch],[role=checkbox]'))
    .map(one => one.outerHTML.slice(0, 200))"""

#: Texts of less contrast than 4.5 to what is behind them; what cannot be used now may be paler.
PALE: Final = """() => {
  const parts = text => text.match(/[\\d.]+/g).map(Number);
  const light = ([r, g, b]) => { const f = [r, g, b].map(v => { v /= 255;
    return v <= 0.03928 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4; });
    return 0.2126 * f[0] + 0.7152 * f[1] + 0.0722 * f[2]; };
  const behind = one => { for (; one; one = one.parentElement) {
    const colour = parts(getComputedStyle(one).backgroundColor);
    if (colour.length < 4 || colour[3] > 0.99) return colour; } return [255, 255, 255]; };
  return [...document.querySelectorAll('body *')].filter(one => one.offsetParent !== null &&
    !one.closest('[disabled], .disabled, [aria-disabled=true], svg') &&
    [...one.childNodes].some(node => node.nodeType === 3 && node.textContent.trim())).map(one => {
      const a = light(parts(getComputedStyle(one).color)), b = light(behind(one));
      return [(Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05), one.textContent.trim().slice(0, 40)]; })
    .filter(([contrast]) => contrast < 4.5);
}"""
