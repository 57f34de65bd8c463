"""Puts the repository's own pages into the documentation site: README.md as its first page, and what pages link to.

Links are written for a reader of the repository. The site has other addresses for the same files, so the links are
rewritten when the site is built. A link that leads nowhere makes `mkdocs build --strict` fail.
"""

from __future__ import annotations

import posixpath
import re
from pathlib import Path

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

ROOT = Path(__file__).parent
# a file of the repository outside docs/, and where it is in the site
ROOT_PAGES = {name: name for name in ("CHANGELOG.md", "CONTRIBUTING.md", "SECURITY.md")} | {"README.md": "index.md"}
LINK = re.compile(r"(?<=\]\()(?!https?:|mailto:|#)([^)#\s]+)(?=[)#])")


def site_path(repository_path: str) -> str:
    """Where a file of the repository is in the site."""
    return ROOT_PAGES.get(repository_path, repository_path.removeprefix("docs/"))


def repository_path(site_path: str) -> str:
    """The file of the repository that a page of the site comes from."""
    for name, page in ROOT_PAGES.items():
        if page == site_path:
            return name
    return f"docs/{site_path}"


def linked_paths(markdown: str, source: str) -> list[str]:
    """The files of the repository that a page links to."""
    return [posixpath.normpath(posixpath.join(posixpath.dirname(source), target)) for target in LINK.findall(markdown)]


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the pages at the top of the repository, and the files outside docs/ that pages link to."""
    for name, page in ROOT_PAGES.items():
        files.append(File.generated(config, page, abs_src_path=str(ROOT / name)))
    for file in files.documentation_pages():
        for path in linked_paths(file.content_string, repository_path(file.src_uri)):
            if site_path(path) not in files.src_uris and (ROOT / path).is_file():
                files.append(File.generated(config, site_path(path), abs_src_path=str(ROOT / path)))
    return files


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Rewrite a page's links from the repository's paths to the site's."""
    source, here = repository_path(page.file.src_uri), posixpath.dirname(page.file.src_uri)

    def rewrite(match: re.Match[str]) -> str:
        (path,) = linked_paths(f"]({match[0]})", source)
        return posixpath.relpath(site_path(path), here or ".")

    return LINK.sub(rewrite, markdown)
