"""The site of the documents: links of the repository become the site's, and every page is somewhere in its menu.

That it builds without a warning is the matter of `make docs`, which `make lint` runs.
"""

from __future__ import annotations

import importlib.util
import re
from types import ModuleType, SimpleNamespace
from xml.etree import ElementTree as ET

import pytest
from document_program import DOCUMENTS
from public_names import PUBLIC
from source_tree import ROOT


@pytest.fixture(scope="module")
def hook() -> ModuleType:
    spec = importlib.util.spec_from_file_location("site_hook", ROOT / "docs/site/hook.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize(
    ("page", "link", "made"),
    [
        ("index.md", "[a](../README.md)", "[a](overview.md)"),
        ("index.md", "[a](hierarchy.md#late-edges)", "[a](hierarchy.md#late-edges)"),
        ("overview.md", "[a `b`](docs/hierarchy.md)", "[a `b`](hierarchy.md)"),
        ("overview.md", "[a](scenarios/gossip/README.md#x)", "[a](scenarios/gossip.md#x)"),
        ("scenarios/gossip.md", "[a](../../docs/gossip.md)", "[a](../gossip.md)"),
        ("scenarios/gossip.md", "[a](../quickstart/README.md)", "[a](quickstart.md)"),
        ("scenarios/gossip.md", "![a\nb](picture.png)", "![a\nb](../images/scenarios/gossip/picture.png)"),
        ("gossip.md", "see [a](../clients/gossip_mixture.py) there", "see a there"),
        ("gossip.md", "[a](https://flower.ai) [b](#here)", "[a](https://flower.ai) [b](#here)"),
        ("overview.md", "```text\n[a](docs/hierarchy.md)\n```\n", "```text\n[a](docs/hierarchy.md)\n```\n"),
    ],
)
def test_links_of_the_repository_become_links_of_the_site(hook: ModuleType, page: str, link: str, made: str) -> None:
    assert hook.relinked(link, page) == made


def test_every_page_is_in_the_menu_once(hook: ModuleType) -> None:
    menu = (ROOT / "mkdocs.yml").read_text().partition("\nnav:\n")[2]
    listed = sorted(re.findall(r"([\w/]+\.md)$", menu, flags=re.M))
    here = [path.relative_to(ROOT / "docs").as_posix() for path in DOCUMENTS if path.parent == ROOT / "docs"]
    moved = [path for path in hook.MOVED.values() if not path.startswith("scenarios/")]
    assert listed == sorted([*here, *moved])


def test_scenarios_and_rooms_are_put_into_the_menu(hook: ModuleType) -> None:
    made = hook.on_config(SimpleNamespace(nav=[{"Start": ["index.md"]}, {"Facts": ["sources.md"]}])).nav
    assert [next(iter(part)) for part in made] == ["Start", "Scenarios", "Reference", "Facts"]
    pages = [path for part in made[1:3] for entries in part.values() for entry in entries for path in entry.values()]
    scenarios = [f"scenarios/{path.parent.name}.md" for path in sorted(ROOT.glob("scenarios/*/README.md"))]
    assert pages == [*scenarios, *(f"reference/{room.removeprefix('flower_edge.')}.md" for room in sorted(PUBLIC))]


def test_the_picture_of_the_tiers_has_a_ground_of_its_own_on_which_its_words_can_be_read() -> None:
    source = (ROOT / "docs/tiers.svg").read_text()
    assert '<rect width="880" height="500" rx="10" style="fill: var(--page)"/>' in source
    assert 'viewBox="0 0 880 500"' in source
    schemes = [dict(re.findall(r"--(\w+): (#\w{6})", line)) for line in re.findall(r":root {(.*?)}", source)]

    def light(colour: str) -> float:
        parts = [int(colour[at : at + 2], 16) / 255 for at in (1, 3, 5)]
        linear = [part / 12.92 if part <= 0.03928 else ((part + 0.055) / 1.055) ** 2.4 for part in parts]
        return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]

    assert len(schemes) == 2
    for shades in schemes:
        for words in ("ink", "soft", "head", "go"):
            for ground in ("page", "area", "node"):
                low, high = sorted((light(shades[words]), light(shades[ground])))
                assert (high + 0.05) / (low + 0.05) > 4.5, (words, ground)


def test_the_picture_of_the_tiers_can_be_read_in_light_in_dark_and_aloud() -> None:
    source = (ROOT / "docs/tiers.svg").read_text()
    picture = ET.fromstring(source)
    named = {element.get("id"): element.text or "" for element in picture.iter() if element.get("id")}
    title, described = (named[name] for name in picture.get("aria-labelledby", "").split())
    assert "three edges" in title
    assert len(described.split()) > 20
    assert "prefers-color-scheme: dark" in source
    assert re.findall(r"https?://(?!www\.w3\.org/2000/svg)", source) == []
