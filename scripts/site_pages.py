"""Pages of the documentation's site that lie outside docs/: README, CONTRIBUTING and CHANGELOG.

A hook of mkdocs. Links are written for the repository; here they are turned, both ways, into those of the site.
"""

from __future__ import annotations

import posixpath
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mkdocs.config.defaults import MkDocsConfig
    from mkdocs.structure.files import Files

PAGES = {"README.md": "index.md", "CONTRIBUTING.md": "contributing.md", "CHANGELOG.md": "changelog.md"}
"""Files of the repository's top folder, and what they are called on the site."""
LINK = re.compile(r"\]\((?!\w+:|#)([^)#\s]+)")


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Adds the pages of the top folder."""
    from mkdocs.structure.files import File

    root = Path(config.docs_dir).parent
    for name, page in PAGES.items():
        files.append(File.generated(config, page, content=(root / name).read_text(encoding="utf-8")))
    return files


def on_page_markdown(markdown: str, page: Any, **_: Any) -> str:
    """Turns links of the repository into links of the site."""
    sources = {page: name for name, page in PAGES.items()}
    source = sources.get(page.file.src_uri, f"docs/{page.file.src_uri}")
    return LINK.sub(lambda match: f"]({site_link(match[1], source, page.file.src_uri)}", markdown)


def site_link(path: str, source: str, page: str) -> str:
    """Where a link leads on the site.

    Args:
        path: the link in a file of the repository, relative to it.
        source: that file, relative to the repository.
        page: its page, relative to the site.

    Returns:
        The link relative to the page; `path` itself where the site lacks the file, of which mkdocs then warns.
    """
    target = posixpath.normpath(posixpath.join(posixpath.dirname(source), path))
    if target in PAGES:
        target = PAGES[target]
    elif target.startswith("docs/"):
        target = target.removeprefix("docs/")
    else:
        return path
    return posixpath.relpath(target, posixpath.dirname(page) or ".")
