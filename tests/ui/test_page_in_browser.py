"""The page in a real browser: a compression is submitted, watched, paused, rolled back and stopped by its buttons.

No request goes anywhere else, the console says nothing, and nothing scrolls sideways, wide and narrow, light and dark.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from browser_cases import CHROMIUM, PALE, SETTLED, UNNAMED, WAIT_MS
from page_cases import CUTS, MACHINES

pytest.importorskip("nicegui", reason="flower-edge[ui] is not installed")
playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")

HERE = Path(__file__).parent

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(CHROMIUM is None, reason="there is no chromium on this machine"),
]


@pytest.fixture(scope="module")
def host() -> Iterator[subprocess.Popen[str]]:
    """A session served by a process of its own, see `page_host`."""
    process = subprocess.Popen(
        [sys.executable, str(HERE / "page_host.py")],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
    )  # fmt: skip
    try:
        yield process
    finally:
        out, wrong = process.communicate(timeout=120)  # the end of its input ends it
    assert (process.returncode, out, wrong) == (0, "ended\n", "")


@pytest.fixture(scope="module")
def url(host: subprocess.Popen[str]) -> str:
    """Where it is."""
    assert host.stdout is not None
    return host.stdout.readline().strip()


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with playwright.sync_playwright() as started:
        opened = started.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"], timeout=3 * WAIT_MS)
        yield opened
        opened.close()


def choose(page: Any, label: str, option: str) -> None:
    page.get_by_label(label, exact=True).click()
    page.get_by_role("option", name=option, exact=True).click()


def test_a_compression_is_submitted_watched_paused_rolled_back_and_stopped(
    host: subprocess.Popen[str], url: str, browser: Any
) -> None:
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
    page.goto(url)
    status, control = page.get_by_role("status"), page.get_by_role("group", name="Control")
    expect(status).to_contain_text("Nothing was submitted yet.")
    expect(control.get_by_role("button", name="Pause")).to_be_disabled()

    page.get_by_role("switch", name="automatic: where").click()
    for place, cut in enumerate(CUTS):
        choose(page, f"{MACHINES[place]} ends after", cut)
    page.get_by_label("value", exact=True).fill("60")
    page.get_by_label("bandwidth, less by").fill("99999")
    page.get_by_role("button", name="Submit").click()
    expect(page.get_by_role("alert").filter(has_text="ask for less")).to_be_visible()

    page.get_by_label("bandwidth, less by").fill("6.9")
    page.get_by_role("button", name="Submit").click()
    control.get_by_role("button", name="Pause").click()
    expect(status).to_contain_text("Paused: ")
    assert host.stdin is not None
    host.stdin.write("\n")  # the first iteration, which was held, comes to its end
    host.stdin.flush()
    expect(page.get_by_role("img", name="bytes, camera -> gateway")).to_be_visible()
    control.get_by_role("button", name="Resume").click()
    expect(page.get_by_role("button", name="Roll back to version 1")).to_be_visible()
    page.get_by_role("button", name="Roll back to version 0").click()
    expect(page.get_by_role("rowheader", name="0, current")).to_be_visible()
    expect(status).to_contain_text("Paused: ")
    control.get_by_role("button", name="Stop").click()
    expect(status).to_contain_text("Stopped: ")

    folded = page.locator("summary", has_text="The charts of camera -> gateway as a table")
    folded.focus()
    page.keyboard.press("Enter")  # what is folded opens without a mouse
    expect(page.get_by_role("table", name="camera -> gateway over the iterations")).to_be_visible()
    expect(page.get_by_role("table", name="camera -> gateway over the iterations")).to_contain_text("uncompressed")
    page.close()
    assert said == []
    host = url.split("/")[2]
    assert {one.split("/")[2] for one in asked if not one.startswith("data:")} == {host}
    assert any(one.startswith("ws://") for one in asked)


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [1280, 390])
def test_it_fits_and_can_be_read(url: str, browser: Any, width: int, scheme: str) -> None:
    # Without motion: what fades from light to dark has the colours of neither.
    context = browser.new_context(
        viewport={"width": width, "height": 844}, color_scheme=scheme, reduced_motion="reduce"
    )
    page = context.new_page()
    page.set_default_timeout(WAIT_MS)
    said: list[str] = []
    page.on("console", lambda message: said.append(message.text))
    page.goto(url)
    page.locator(".fe-main").wait_for()
    playwright.expect(page.get_by_role("status")).not_to_be_empty(timeout=WAIT_MS)  # it has been told what there is
    page.evaluate(SETTLED)
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    dark = page.evaluate("document.body.classList.contains('body--dark')")
    assert dark == (scheme == "dark")
    assert page.locator("h1").count() == 1
    assert page.evaluate(UNNAMED) == []
    assert page.evaluate(PALE) == []
    context.close()
    assert said == []
