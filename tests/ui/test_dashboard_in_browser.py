"""The dashboard in a real browser: a run is found, followed live, read with the keyboard, and asked to stop.

No request goes anywhere else, the console says nothing, and nothing scrolls sideways, wide and narrow, light and dark.
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from browser_cases import CHROMIUM, PALE, UNNAMED, WAIT_MS
from dashboard_cases import a_run, add_round

pytest.importorskip("nicegui", reason="flower-edge[ui] is not installed")
playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")

HERE = Path(__file__).parent
TOKEN = "a-token-nobody-guesses"
DEMO = "20260101-000000-demo"

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(CHROMIUM is None, reason="there is no chromium on this machine"),
]


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("runs")


@pytest.fixture(scope="module")
def url(runs: Path) -> Iterator[str]:
    """A folder of runs, served by a process of its own."""
    process = subprocess.Popen(
        [sys.executable, str(HERE / "dashboard_cases.py"), str(runs), TOKEN],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    try:
        assert process.stdout is not None
        yield process.stdout.readline().strip()
    finally:
        out, wrong = process.communicate(timeout=60)  # the end of its input ends it
    assert (process.returncode, out, wrong) == (0, "ended\n", "")


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with playwright.sync_playwright() as started:
        opened = started.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield opened
        opened.close()


def test_a_run_is_found_followed_read_by_keyboard_and_asked_to_stop(runs: Path, url: str, browser: Any) -> None:
    run = a_run(runs / DEMO, rounds=2)
    expect = playwright.expect
    expect.set_options(timeout=WAIT_MS)
    page = browser.new_page(viewport={"width": 1280, "height": 900})
    page.set_default_timeout(WAIT_MS)
    said: list[str] = []
    asked: set[str] = set()
    page.on("console", lambda message: said.append(message.text))
    page.on("pageerror", lambda error: said.append(str(error)))
    page.on("request", lambda request: asked.add(request.url))
    page.on("websocket", lambda opened: asked.add(opened.url))
    page.goto(f"{url}?token={TOKEN}")
    expect(page.get_by_role("heading", name="flower-edge: runs")).to_be_visible()
    assert TOKEN not in page.url
    page.get_by_role("link", name="demo").focus()
    page.keyboard.press("Enter")
    status = page.get_by_role("status")
    expect(status).to_contain_text("Running: round 2 of 9, accuracy 75.0 %.")
    expect(page.get_by_role("img", name="Map: centre, 2 edges")).to_be_visible()
    expect(page.get_by_role("img", name="accuracy: accuracy from 0.5 in round 1 to 0.75 in 2")).to_be_visible()

    add_round(run, 3)
    expect(status).to_contain_text("round 3 of 9, accuracy 87.5 %")
    expect(page.get_by_role("img", name="accuracy: accuracy from 0.5 in round 1 to 0.875 in 3")).to_be_visible()
    folded = page.locator("summary", has_text="Rounds as a table")
    folded.focus()
    page.keyboard.press("Enter")  # what is folded opens without a mouse
    expect(page.get_by_role("rowheader", name="3", exact=True).first).to_be_visible()
    expect(page.get_by_role("table", name="2 links")).to_contain_text("2 Mbit/s")
    expect(page.get_by_role("table", name="Refused replies")).to_contain_text("<script>alert(1)</script>")

    page.get_by_role("button", name="Stop after this round").click()
    expect(status).to_contain_text("Asked to stop after this round: by the dashboard")
    assert run.stop_asked() == "by the dashboard"
    run.finish({})
    run.close()
    expect(status).to_contain_text("Finished: round 3")
    expect(page.get_by_role("button", name="Stop after this round")).to_be_disabled()
    page.close()
    assert said == []
    assert {one.split("/")[2] for one in asked if not one.startswith("data:")} == {url.split("/")[2]}
    assert any(one.startswith("ws://") for one in asked)


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [1280, 390])
def test_both_pages_fit_and_can_be_read(runs: Path, url: str, browser: Any, width: int, scheme: str) -> None:
    name = f"20260202-000000-{width}-{scheme}"
    a_run(runs / name).close()
    # Without motion: what fades from light to dark has the colours of neither.
    context = browser.new_context(
        viewport={"width": width, "height": 844}, color_scheme=scheme, reduced_motion="reduce"
    )
    page = context.new_page()
    page.set_default_timeout(WAIT_MS)
    said: list[str] = []
    page.on("console", lambda message: said.append(message.text))
    for path, drawn in ((f"?token={TOKEN}", ".fe-table"), (f"run/{name}", ".fe-curve svg")):
        page.goto(url + path)
        page.locator(drawn).first.wait_for()
        page.wait_for_function("document.body.className.includes('body--')")
        assert page.evaluate("document.documentElement.scrollWidth") <= width
        assert page.evaluate("document.body.classList.contains('body--dark')") == (scheme == "dark")
        assert page.locator("h1").count() == 1
        assert page.evaluate(UNNAMED) == []
        assert page.evaluate(PALE) == []
    context.close()
    assert said == []
