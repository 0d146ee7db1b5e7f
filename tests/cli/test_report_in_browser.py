"""The report page in a real browser: it asks for nothing, fits, can be read light and dark, and prints whole."""

from __future__ import annotations

import base64
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from browser_cases import CHROMIUM, PALE, WAIT_MS

from flower_edge.cli.report import write_report
from flower_edge.events import Event
from flower_edge.monitoring import Link, links_row
from flower_edge.store import Row, RunFolder

playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(CHROMIUM is None, reason="there is no chromium on this machine"),
]

LONG = "an-unbroken-name-that-is-longer-than-a-telephone-is-wide-" * 2
ROUNDS = 30
KINDS = ("entered", "handed-over", "left", "stopped", LONG)


@pytest.fixture(scope="module")
def page_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The page of a run that has everything a run may have, and none of it short."""
    with RunFolder.create("demo", config={LONG: LONG, "lr": 0.1}, seed=1, root=tmp_path_factory.mktemp("runs")) as run:
        for at in range(1, ROUNDS + 1):
            rows = [
                Row("central", at, {"accuracy": at / 40, "loss": 1 / at}, wall_s=2.0 * at, virtual_s=60.0 * at),
                Row("nodes", at, {"nodes_sampled": 12, "nodes_replied": 11, "nodes_failed": 1, "cells_skipped": 1,
                                  "divergence": 1 / at, "divergence_max": 2 / at, "edge_rounds": 4 if at < 9 else 2}),
                Row("traffic", at, {"up_bits": 8e6 * at, "down_bits": 8e7}),
            ]  # fmt: skip
            for cell, counted in (("edge-0", 30.0), (LONG, 0.0)):
                rows += [
                    Row("train", at, {"num-examples": counted, "accuracy": 0.5}, cell),
                    links_row(at, [Link("0", LONG, 1e6 * at, 0.5 / at, 0.25), Link("1", "0", None, None, 0.5)], cell),
                ]
            told = [
                *(Event(kind, f"{LONG} {kind}", "7", "edge-0", 1, time_s=50.0 * at) for kind in KINDS),
                Event("cell-skipped", f"cell {LONG} skipped: its terminals moved on", cell=LONG),
                Event("refused", f"refused (norm): {LONG}", LONG, "edge-0", 1, values={"code": "norm"}),
                Event("rewarded", "paid", "3", "edge-0", 1, values={"micro": 1_500_000}),
            ]
            rows += [Row("event", at, one.row(), one.cell, one.node, one.edge_round) for one in told]
            run.record_rows(rows)
        png = base64.b64decode(
            "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mP8z8BQDwAEhQGAhKmMIQAAAABJRU5ErkJggg=="
        )
        (run.artifacts / "alone.png").write_bytes(png)
        (run.artifacts / "map.svg").write_text('<svg xmlns="http://www.w3.org/2000/svg" width="1600" height="200"/>')
        (run.artifacts / "map.csv").write_text("who,where\n" + f"{LONG},there\n" * 3)
        run.finish({"accuracy": 0.75, LONG: 1.0})
    return write_report(RunFolder.open(run.path))[0]


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with playwright.sync_playwright() as started:
        opened = started.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"], timeout=3 * WAIT_MS)
        yield opened
        opened.close()


#: Figures that have no table beside them, or below them, in their own part of the page.
ALONE = """() => [...document.querySelectorAll('figure')].filter(one =>
    !one.closest('.pictures') && !one.parentElement.querySelector('table')).map(one => one.innerText)"""

#: Texts of pictures whose colour has less contrast than 4.5 to the card, or that are smaller than 9 pixels.
FAINT = """() => {
  const parts = text => text.match(/[\\d.]+/g).map(Number);
  const light = ([r, g, b]) => { const f = [r, g, b].map(v => { v /= 255;
    return v <= 0.03928 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4; });
    return 0.2126 * f[0] + 0.7152 * f[1] + 0.0722 * f[2]; };
  return [...document.querySelectorAll('figure svg text')].map(one => {
    const a = light(parts(getComputedStyle(one).fill));
    const b = light(parts(getComputedStyle(one.closest('figure')).backgroundColor));
    const scale = one.getScreenCTM(), size = Math.hypot(scale.a, scale.b) * parseFloat(getComputedStyle(one).fontSize);
    return [(Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05), size, one.textContent]; })
    .filter(([contrast, size]) => contrast < 4.5 || size < 9);
}"""

#: Lines and dots of pictures with less contrast than 3 to the card, but for the faint ones of the grid.
DIM = """() => {
  const parts = text => text.match(/[\\d.]+/g).map(Number);
  const light = ([r, g, b]) => { const f = [r, g, b].map(v => { v /= 255;
    return v <= 0.03928 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4; });
    return 0.2126 * f[0] + 0.7152 * f[1] + 0.0722 * f[2]; };
  const probe = document.body.appendChild(document.createElement('i'));
  const card = light(parts(getComputedStyle(document.querySelector('figure')).backgroundColor));
  const found = ['--first', '--second'].map(name => { probe.style.color = `var(${name})`;
    const a = light(parts(getComputedStyle(probe).color));
    return [name, (Math.max(a, card) + 0.05) / (Math.min(a, card) + 0.05)]; });
  probe.remove();
  return found.filter(([, contrast]) => contrast < 3);
}"""

#: Regions that scroll and cannot be reached with the keyboard or have no name; tables without a caption.
UNREACHED = """() => [...document.querySelectorAll('.scroll')].filter(one =>
    one.scrollWidth > one.clientWidth && !(one.tabIndex === 0 && one.getAttribute('aria-label'))).length +
    [...document.querySelectorAll('table')].filter(one => !one.caption || !one.caption.innerText.trim()).length"""

#: What a printed page cuts off: tables wider than the sheet, or kept behind a scroll bar.
CUT = """() => [...document.querySelectorAll('.scroll, table, figure')].filter(one =>
    one.getBoundingClientRect().right > document.documentElement.clientWidth + 1 ||
    (one.matches('.scroll') && one.scrollHeight > one.clientHeight + 1)).map(one => one.innerText.slice(0, 80))"""


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [1280, 390])
def test_it_asks_for_nothing_fits_and_can_be_read(page_file: Path, browser: Any, width: int, scheme: str) -> None:
    context = browser.new_context(viewport={"width": width, "height": 844}, color_scheme=scheme)
    page = context.new_page()
    page.set_default_timeout(WAIT_MS)
    said: list[str] = []
    asked: set[str] = set()
    page.on("console", lambda message: said.append(message.text))
    page.on("pageerror", lambda error: said.append(str(error)))
    page.on("request", lambda request: asked.add(request.url))
    page.goto(page_file.as_uri())
    for folded in page.locator("summary").all():
        folded.focus()
        page.keyboard.press("Enter")
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    assert page.locator("figure").count() == 10
    assert page.locator("h1").count() == 1
    for question in (PALE, ALONE, FAINT, DIM):
        assert page.evaluate(question) == []
    assert page.evaluate(UNREACHED) == 0
    context.close()
    assert said == []
    assert {one for one in asked if not one.startswith("data:")} == {page_file.as_uri()}


def test_on_paper_nothing_is_cut_off_and_nothing_stays_folded(page_file: Path, browser: Any) -> None:
    # A sheet of A4 without its margins, at the 96 pixels an inch that browsers print with.
    context = browser.new_context(viewport={"width": 718, "height": 1047}, color_scheme="dark")
    page = context.new_page()
    page.goto(page_file.as_uri())
    page.emulate_media(media="print")
    assert page.evaluate(CUT) == []
    assert page.locator("details tbody tr").first.is_visible()
    assert page.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(255, 255, 255)"
    assert page.evaluate(PALE) == []
    context.close()


def test_every_chart_is_a_png_too(page_file: Path, browser: Any) -> None:
    page = browser.new_page()
    page.goto(page_file.as_uri())
    drawn = page.evaluate(
        "[...document.querySelectorAll('section:has(figure svg)')].map(one => one.getAttribute('aria-labelledby'))"
    )
    page.close()
    assert len(drawn) == 8
    for name in drawn:
        assert (page_file.parent / f"{name}.png").read_bytes().startswith(b"\x89PNG")
