"""A real browser, if there is one: Debian's Chromium, driven by Playwright."""

from __future__ import annotations

import asyncio
import os
import shutil
import sys
from collections.abc import Iterator
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

QUIET = "--no-sandbox --disable-gpu --disable-quic --no-first-run --disable-background-networking"
FLAGS = [*QUIET.split(), "--disable-component-update", "--disable-sync", "--disable-dev-shm-usage"]


def missing(what: str) -> None:
    """Skip, unless the gate demands that these tests run."""
    if os.environ.get("REQUIRE_BROWSER"):
        pytest.fail(f"REQUIRE_BROWSER is set and there is no {what}")
    pytest.skip(f"no {what}")


@pytest.fixture(scope="module")
def chromium() -> Iterator[Browser]:
    """The browser. It ends with its module: while Playwright's loop is there, no other test can have one."""
    program = os.environ.get("CHROMIUM") or shutil.which("chromium") or shutil.which("chromium-browser")
    if program is None:
        missing("chromium: install Debian's package, or name its program in CHROMIUM")
    try:
        from playwright.sync_api import sync_playwright
    except ImportError:
        missing("playwright: pip install playwright")
    if sys.version_info < (3, 12):  # a run in this process may have left one that is bound to its loop
        asyncio.get_event_loop_policy().set_child_watcher(asyncio.ThreadedChildWatcher())
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=program, args=FLAGS, timeout=120_000)
        yield browser
        browser.close()


@pytest.fixture
def page(chromium: Browser) -> Iterator[Page]:
    """A page in a browser of its own. An error of a script, or a request to another host, fails the test."""
    context = chromium.new_context(viewport={"width": 1440, "height": 900})
    opened, faults = context.new_page(), list[str]()
    opened.set_default_timeout(60_000)
    opened.on("pageerror", lambda error: faults.append(str(error)))
    opened.on("console", lambda said: faults.append(said.text) if "Content Security Policy" in said.text else None)
    opened.on("request", lambda asked: faults.append(asked.url) if not is_ours(asked.url) else None)
    yield opened
    context.close()
    assert faults == []


def is_ours(url: str) -> bool:
    """Whether a request stays on this machine."""
    return url.startswith(("http://127.0.0.1:", "file://", "data:", "blob:", "about:"))
