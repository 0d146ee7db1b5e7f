"""What the site has besides the pages in docs/: pages that live elsewhere in the repository, and the reference.

README, CHANGELOG, CONTRIBUTING and the scenarios' READMEs stay where a reader of the repository looks for them. Links
between all of them are written for the repository; here each is turned into the link the site needs. A link to a file
that is no page of the site keeps its text only: the site is read where the sources are not. mkdocs calls the functions
by their names; nothing here is part of the package.
"""

from __future__ import annotations

import ast
import posixpath
import re
from pathlib import Path

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

ROOT = Path(__file__).parents[2]
#: Pages from elsewhere: path in the repository, path in the site.
MOVED = {
    "README.md": "overview.md",
    "CHANGELOG.md": "changelog.md",
    "CONTRIBUTING.md": "contributing.md",
    **{
        f"scenarios/{path.parent.name}/README.md": f"scenarios/{path.parent.name}.md"
        for path in sorted(ROOT.glob("scenarios/*/README.md"))
    },
}
_FENCE = re.compile(r"(^```.*?^```[^\n]*$)", re.S | re.M)
_LINK = re.compile(r"(!?)\[((?:[^\[\]]|\[[^\]]*\])*)\]\(([^)\s#]*)(#[^)\s]*)?\)")


def rooms() -> list[str]:
    """Packages whose names are public, as the list of public names has them."""
    tree = ast.parse((ROOT / "tests/quality/public_names.py").read_text())
    public = next(
        node.value
        for node in tree.body
        if isinstance(node, ast.Assign) and getattr(node.targets[0], "id", "") == "PUBLIC"
    )
    assert isinstance(public, ast.Dict)
    return sorted(ast.literal_eval(key) for key in public.keys if key is not None)


def site_path(path: str) -> str | None:
    """Where the site has a file of the repository; None where it has not."""
    if path in MOVED:
        return MOVED[path]
    if path.startswith("docs/") and (ROOT / path).is_file():
        return path.removeprefix("docs/")
    if path.endswith((".png", ".svg")) and (ROOT / path).is_file():
        return f"images/{path}"
    return None


def repository_path(path: str) -> str:
    """The file of the repository that a page of the site was made of."""
    return next((origin for origin, moved in MOVED.items() if moved == path), f"docs/{path}")


def relinked(text: str, path: str) -> str:
    """The text of a page with its links as the site needs them. `path` is that of the page in the site."""
    origin = repository_path(path)

    def relink(match: re.Match[str]) -> str:
        picture, words, target, anchor = match.groups(default="")
        if not target or "://" in target or target.startswith("mailto:"):
            return match[0]
        found = site_path(posixpath.normpath(posixpath.join(posixpath.dirname(origin), target)))
        if found is None:
            return words
        return f"{picture}[{words}]({posixpath.relpath(found, posixpath.dirname(path) or '.')}{anchor})"

    parts = _FENCE.split(text)
    return "".join(part if part.startswith("```") else _LINK.sub(relink, part) for part in parts)


def reference_page(room: str) -> str:
    """Where the site has a room's reference."""
    return f"reference/{room.removeprefix('flower_edge.')}.md"


def on_config(config: MkDocsConfig) -> MkDocsConfig:
    """Put the scenarios and the reference into the menu, before its last part: nobody has to list them."""
    scenarios = [path for path in MOVED.values() if path.startswith("scenarios/")]
    made = [
        {"Scenarios": [{Path(path).stem.replace("_", " "): path} for path in scenarios]},
        {"Reference": [{room.removeprefix("flower_edge."): reference_page(room)} for room in rooms()]},
    ]
    config.nav = [*config.nav[:-1], *made, config.nav[-1]]
    return config


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the pages from elsewhere, their pictures, and a page of reference for each room."""
    for origin, moved in MOVED.items():
        text = (ROOT / origin).read_text()
        files.append(File.generated(config, moved, content=text))
        for _, _, target, _ in _LINK.findall(_FENCE.sub("", text)):
            picture = posixpath.normpath(posixpath.join(posixpath.dirname(origin), target))
            if (found := site_path(picture)) and found.startswith("images/") and found not in files.src_uris:
                files.append(File.generated(config, found, abs_src_path=str(ROOT / picture)))
    for room in rooms():
        heading = f"# `{room}`\n\n::: {room}\n"
        files.append(File.generated(config, reference_page(room), content=heading))
    return files


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Links of the repository become links of the site."""
    return relinked(markdown, page.file.src_uri)
