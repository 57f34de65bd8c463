"""The history page in a real browser: figures, groups, sorting, the keyboard, accessibility, a server that goes."""

from __future__ import annotations

import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from tests.limits import HUNG_S
from tests.token_budget.test_usage_cli import PROGRAM, Home
from tests.ui.web.test_browser import HOSTILE, axe_faults, until
from token_budget.ledger.records import AttemptRecord, RunRecord, UsageRecord
from token_budget.ledger.run_budgets import write_budgets
from token_budget.ledger.sqlite import SqliteLedger
from token_budget.models import Budget, Scope, Usage, Weights

if TYPE_CHECKING:
    from playwright.sync_api import Page

pytestmark = pytest.mark.slow
HOUR_MS = 3_600_000


@pytest.fixture
def history(tmp_path: Path, page: Page) -> Iterator[subprocess.Popen[str]]:
    """The page of a ledger with three commands, of which one grows and one is hostile, and with limits."""
    home = Home(tmp_path / "home")
    ledger = SqliteLedger(home.ledger)
    now_ms = round(time.time() * 1000)
    budgets = write_budgets([Budget(100_000, scope=Scope.DAILY), Budget(90_000_000, scope=Scope.MONTHLY)], Weights())
    for number in range(36):
        at_ms, run = now_ms - (36 - number) * 5 * HOUR_MS, f"run-{number // 3}"
        key, command = (run, f"one-{number}", 1), ("/fix", "/test", HOSTILE)[number % 3]
        tokens = 50_000 + (5_000 * number if command == "/fix" else 0)
        attempt = AttemptRecord(
            *key, at_ms, base_command=command, ended_ms=at_ms + 1, outcome="completed", verified=command == "/test"
        )
        record = UsageRecord(str(number), *key, at_ms, "opus", Usage(tokens), tokens * 3_000)
        ledger.write(runs=[RunRecord(run, "m", at_ms, budgets=budgets)], attempts=[attempt], records=[record])
    ledger.close()
    argv = [*PROGRAM, "serve", "--no-browser"]
    process = subprocess.Popen(argv, env=home.env, cwd=home.root, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    page.goto(process.stdout.readline().strip())
    page.wait_for_selector("body.ready")
    yield process
    process.terminate()
    process.wait(timeout=HUNG_S)


def test_use_limits_groups_and_forecasts_are_shown(history: subprocess.Popen[str], page: Page) -> None:
    assert "Cost per verified success" in page.inner_text("#head .figures")
    limits = page.inner_text("#limits")
    assert "at the pace of the latest 30 days" in limits and "of 90.0M" in limits
    assert page.locator("#chart canvas").count() == 1
    rows = page.locator("#table tbody tr")
    assert rows.count() == 3 and "/fix" in rows.nth(0).inner_text() and "+" in rows.nth(0).inner_text()
    assert "<script>" in page.inner_text("#table") and page.evaluate("window.broken") is None

    page.click("#table th button >> text=Command")
    assert page.get_attribute("#table th", "aria-sort") == "ascending"
    page.click("#table th button >> text=Command")
    assert "window.broken" in rows.nth(0).inner_text() and "/test" in rows.nth(1).inner_text()
    page.fill("#filter", "fix")
    assert page.locator("#table tbody tr").count() == 1

    page.focus("#view-command")
    page.keyboard.press("ArrowLeft")
    assert page.get_attribute("#view-forecast", "aria-selected") == "true"
    assert "12" in page.locator("#table tbody tr").nth(0).inner_text()
    page.click("#view-day")
    until(page, "document.querySelectorAll('#table tbody tr').length === 30")
    page.select_option("#span", "7")
    until(page, "document.querySelectorAll('#table tbody tr').length === 7")
    page.select_option("#unit", "usd")
    assert "$" in page.inner_text("#chart .names")


def test_a_server_that_goes_away_is_reported(history: subprocess.Popen[str], page: Page) -> None:
    history.kill()
    history.wait()
    page.click("text=Refresh")
    page.wait_for_selector("#fault:not([hidden])")
    assert "does not answer" in page.inner_text("#fault")


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [1440, 390])
def test_axe_finds_nothing_serious(history: subprocess.Popen[str], page: Page, scheme: Any, width: int) -> None:
    page.set_viewport_size({"width": width, "height": 900})
    page.emulate_media(color_scheme=scheme)
    found = axe_faults(page)
    for view in ("forecast", "instance", "day"):
        page.click(f"#view-{view}")
        found += axe_faults(page)
    assert found == []
    assert page.evaluate("document.documentElement.scrollWidth <= window.innerWidth")
