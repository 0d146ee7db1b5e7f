"""A controller of one's own obeys the laws of controllers, and the page shows the one that is tested."""

from __future__ import annotations

from pathlib import Path

import own_controller
from laws.controller_laws import ControllerLaws
from own_controller import TalkEvery


class TestTalkEvery(ControllerLaws):
    def make(self) -> TalkEvery:
        return TalkEvery(3)


def test_the_page_shows_the_controller_that_is_tested() -> None:
    source = Path(own_controller.__file__).read_text()
    page = Path(__file__).parents[2] / "docs/howto_controller.md"
    assert source[source.index("@dataclass") :] in page.read_text()
