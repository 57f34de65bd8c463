"""The files of a run's page, as the packages contain them."""

from __future__ import annotations

from functools import cache

from token_budget.serving import assets as shared_assets
from token_budget.serving.assets import Asset, load, shared

PACKAGE = "claude_orchestrator.ui.web"
CHART = shared_assets.CHART
STYLES = (*shared_assets.STYLES, "app.css")
OWN_MODULES = (  # in the order in which each finds what it imports above it
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
MODULES = (*shared_assets.MODULES, *OWN_MODULES)


@cache
def assets() -> dict[str, Asset]:
    """Every file of the page by its path on the server."""
    own = load(PACKAGE, ("index.html", "app.css", *OWN_MODULES))
    found = {f"/{name}": asset for name, asset in {**shared(), **own}.items()}
    return {"/": found["/index.html"], **found}
