"""The site of the documentation: what its builder does not check itself. `make docs` builds it, all links checked."""

import re
from pathlib import Path

import pytest
import yaml

from scripts.site_pages import COPIES, PAGES, site_link

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"


def test_every_page_is_in_the_navigation() -> None:
    navigation = yaml.safe_load((ROOT / "mkdocs.yml").read_text(encoding="utf-8"))["nav"]
    listed = [page for part in navigation for page in (next(iter(part.values())) if isinstance(part, dict) else [part])]
    titled = [page for entry in listed if isinstance(entry, dict) for page in entry.values()]
    assert all((ROOT / page.removeprefix(COPIES)).is_file() for page in titled)  # files that a page links to
    pages = {path.relative_to(DOCS).as_posix() for path in DOCS.rglob("*.md")} | set(PAGES.values())
    assert sorted(entry for entry in listed if isinstance(entry, str)) == sorted(pages)


@pytest.mark.parametrize(
    ("path", "page", "expected"),
    [
        ("docs/data.md", "index.md", "data.md"),
        ("CHANGELOG.md", "index.md", "changelog.md"),
        ("docs/api/index.md", "index.md", "api/index.md"),
        ("Dockerfile", "index.md", "repository/Dockerfile"),
        ("../README.md", "data.md", "index.md"),
        ("../pyproject.toml", "data.md", "repository/pyproject.toml"),
        ("training.md", "data.md", "training.md"),
        ("../predict.md", "api/inference.md", "../predict.md"),
        ("../../README.md", "api/index.md", "../index.md"),
        ("../nothing.toml", "data.md", "../nothing.toml"),  # mkdocs says so
    ],
)
def test_links_of_the_repository_become_links_of_the_site(path: str, page: str, expected: str) -> None:
    assert site_link(path, page) == expected


def test_lists_are_written_so_that_both_renderers_see_them() -> None:
    """Python-Markdown wants four spaces before a list in a list, and an empty line between a paragraph and a list."""
    wrong = []
    for page in [*DOCS.rglob("*.md"), *(ROOT / name for name in PAGES)]:
        before = ""
        for number, line in enumerate(page.read_text(encoding="utf-8").splitlines(), 1):
            item = re.match(r"( *)[-*] ", line)
            after_text = bool(before) and not re.match(r" |#|[-*] ", before)
            block = re.match(r" {5,7}\S", line) and not before  # code in a list: eight
            if block or (item and (0 < len(item[1]) < 4 or (item[1] == "" and after_text))):
                wrong.append(f"{page.name}:{number}: {line}")
            before = line
    assert not wrong
