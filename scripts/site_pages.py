"""Pages of the documentation's site that lie outside docs/: README, CONTRIBUTING and CHANGELOG.

A hook of mkdocs. Links are written for the repository; here they are turned, both ways, into those of the site. Other
files of the repository that a page links to are put on the site in the folder `repository`.
"""

from __future__ import annotations

import posixpath
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mkdocs.config.defaults import MkDocsConfig
    from mkdocs.structure.files import Files

ROOT = Path(__file__).parents[1]
PAGES = {"README.md": "index.md", "CONTRIBUTING.md": "contributing.md", "CHANGELOG.md": "changelog.md"}
"""Files of the repository's top folder, and what they are called on the site."""
LINK = re.compile(r"\]\((?!\w+:|#)([^)#\s]+)")
COPIES = "repository/"


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Adds the pages of the top folder, and the files outside docs/ that any page links to."""
    from mkdocs.structure.files import File

    for name, page in PAGES.items():
        files.append(File.generated(config, page, content=(ROOT / name).read_text(encoding="utf-8")))
    for file in list(files.documentation_pages()):
        page = file.src_uri
        for link in LINK.findall(file.content_string):
            there = posixpath.normpath(posixpath.join(posixpath.dirname(page), site_link(link, page)))
            if there.startswith(COPIES) and there not in files.src_uris:
                source = ROOT / there.removeprefix(COPIES)
                files.append(File.generated(config, there, abs_src_path=str(source)))
    return files


def on_page_markdown(markdown: str, page: Any, **_: Any) -> str:
    """Turns links of the repository into links of the site."""
    return LINK.sub(lambda match: f"]({site_link(match[1], page.file.src_uri)}", markdown)


def site_link(path: str, page: str) -> str:
    """Where a link leads on the site.

    Args:
        path: the link as the page's file in the repository has it, relative to that file.
        page: the page, relative to the site.

    Returns:
        The link relative to the page; `path` itself where the repository lacks the file, of which mkdocs then warns.
    """
    source = {page: name for name, page in PAGES.items()}.get(page, f"docs/{page}")
    target = posixpath.normpath(posixpath.join(posixpath.dirname(source), path))
    if target in PAGES:
        target = PAGES[target]
    elif target.startswith("docs/"):
        target = target.removeprefix("docs/")
    elif (ROOT / target).is_file() and not target.startswith("../"):
        target = COPIES + target
    else:
        return path
    return posixpath.relpath(target, posixpath.dirname(page) or ".")
