"""The files of a page, as packages contain them, and the routes that serve them."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, Mapping
from functools import cache
from importlib.resources import files

from token_budget.named_tuples import NamedTuple
from token_budget.serving.checks import Access
from token_budget.serving.site import HttpAnswer, Request, Route, Routes, Site

PACKAGE = "token_budget.serving"
TYPES = {
    "html": "text/html; charset=utf-8",
    "css": "text/css; charset=utf-8",
    "js": "text/javascript; charset=utf-8",
    "svg": "image/svg+xml",
    "txt": "text/plain; charset=utf-8",
}
CHART = "vendor/uplot.js"
STYLES = ("vendor/uplot.css", "base.css")
MODULES = ("format.js", "dom.js", "entry.js")  # in the order in which each finds what it imports above it
NAMES = ("icon.svg", *STYLES, CHART, "vendor/uplot-LICENSE.txt", *MODULES)


class Asset(NamedTuple):
    """One file: its bytes, and their type."""

    data: bytes
    content_type: str


@cache
def load(package: str, names: tuple[str, ...]) -> Mapping[str, Asset]:
    """Files in the folder `static` of a package by their names."""
    root = files(package) / "static"
    return {name: Asset((root / name).read_bytes(), TYPES[name.rpartition(".")[2]]) for name in names}


def shared() -> Mapping[str, Asset]:
    """What all pages have in common."""
    return load(PACKAGE, NAMES)


def asset_routes(assets: Iterable[tuple[str, Asset]]) -> Routes:
    """Public routes of files by their paths on the server. Nothing else is ever served from a disk by its name."""
    return {("GET", path): Route(Access.PUBLIC, _serving(asset)) for path, asset in assets}


def _serving(asset: Asset) -> Callable[[Site, Request], Awaitable[HttpAnswer]]:
    made = HttpAnswer(asset.data, asset.content_type, headers={"Cache-Control": "no-cache"})

    async def serve(site: Site, request: Request) -> HttpAnswer:
        return made

    return serve
