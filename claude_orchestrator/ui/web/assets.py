"""The files of the page, as the package contains them."""

from __future__ import annotations

from functools import cache
from importlib.resources import files

from token_budget.named_tuples import NamedTuple

PACKAGE = "claude_orchestrator.ui.web"
TYPES = {
    "html": "text/html; charset=utf-8",
    "css": "text/css; charset=utf-8",
    "js": "text/javascript; charset=utf-8",
    "svg": "image/svg+xml",
    "txt": "text/plain; charset=utf-8",
}
MODULES = (  # in the order in which each finds what it imports above it
    "format.js",
    "dom.js",
    "store.js",
    "source.js",
    "header.js",
    "budgets.js",
    "chart.js",
    "table.js",
    "graph.js",
    "conversation.js",
    "diff.js",
    "detail.js",
    "approvals.js",
    "decisions.js",
    "main.js",
)
STYLES = ("vendor/uplot.css", "app.css")
CHART = "vendor/uplot.js"
NAMES = ("index.html", "icon.svg", *STYLES, CHART, "vendor/uplot-LICENSE.txt", *MODULES)


class Asset(NamedTuple):
    """One file: its bytes, and their type."""

    data: bytes
    content_type: str


@cache
def assets() -> dict[str, Asset]:
    """Every file of the page by its path on the server. Nothing else is ever served from a disk by its name."""
    root = files(PACKAGE) / "static"
    found = {f"/{name}": Asset((root / name).read_bytes(), TYPES[name.rpartition(".")[2]]) for name in NAMES}
    return {"/": found["/index.html"], **found}
