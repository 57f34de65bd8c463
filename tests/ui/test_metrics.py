"""The metrics of a run, as a scraper reads them."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Mapping
from pathlib import Path

import pytest
from prometheus_client.parser import text_string_to_metric_families

from claude_orchestrator.engine.latencies import BOUNDS_S, MOST_SERIES, Latencies, LatencyLabels
from claude_orchestrator.engine.run_events import Decided, RequestTimed
from claude_orchestrator.engine.snapshot import Snapshots
from claude_orchestrator.engine.state import State
from claude_orchestrator.ui.web.prometheus import exposition
from claude_orchestrator.ui.web.routes import CONTENT_TYPE
from tests.harness import ROOT
from tests.ui.test_report import a_run
from tests.ui.web.site import PASSWORD, Browser, WrittenRun, serving
from token_budget.models import Action, Scope, Unit
from token_budget.text import NANO


def read(text: str) -> dict[str, float]:
    """The samples of a text by name and labels, as a scraper reads them."""
    found: dict[str, float] = {}
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            labels = ",".join(f'{name}="{value}"' for name, value in sorted(sample.labels.items()))
            key = sample.name.removeprefix("claude_orchestrator_") + (f"{{{labels}}}" if labels else "")
            assert key not in found
            found[key] = sample.value
    return found


def test_the_metrics_of_a_run() -> None:
    view = a_run("one", "two", "three")
    view.manager.set_budget(Scope.DAILY, 2 * NANO, unit=Unit.USD)
    view.instances[1].skip(State.BLOCKED, "no room")
    view.changes.observe(Decided("two", Action.BLOCK, "no room"))
    found = read(exposition(Snapshots(view).take(165.0), view.changes))
    expected = {
        'info{rehearsal="false",run="run-1"}': 1,
        "run_seconds": 65,
        'instances{state="completed"}': 1,
        'instances{state="blocked"}': 1,
        'instances{state="pending"}': 1,
        'instances{state="running"}': 0,
        'tokens_total{type="input"}': 3_000,
        'tokens_total{type="output"}': 12,
        "tokens_exact": 1,
        "attempts_total": 1,
        'decisions_total{action="block"}': 1,
        'instance_seconds_total{state="completed"}': 65,
        'instances_ended_total{state="completed"}': 1,
        'budget_used{key="",scope="overall",unit="tokens"}': 3_012,
        'budget_limit{key="/test",scope="command",unit="tokens"}': 4_000,
        'budget_limit{key="",scope="daily",unit="USD"}': 2,
    }
    assert {key: found[key] for key in expected} == expected
    assert found["cost_usd_total"] == pytest.approx(3.0, abs=0.1)
    assert "left_seconds" not in found and "tokens_per_minute" not in found


def test_names_of_budgets_can_contain_anything() -> None:
    view = a_run("one")
    view.manager.set_budget(Scope.INSTANCE, 9, 'a"b\\c\nd{}é')
    found = read(exposition(Snapshots(view).take(165.0), view.changes))
    assert 'budget_limit{key="a"b\\c\nd{}é",scope="instance",unit="tokens"}' in found


def test_each_metric_is_documented() -> None:
    page = (ROOT / "docs" / "metrics.md").read_text()
    view = a_run("one", "two")
    snapshots = Snapshots(view)
    snapshots.take(100.0)
    view.changes.observe(Decided("two", Action.WAIT, "no room"))
    view.changes.observe(RequestTimed("one", "opus", 200, 0.5, 1.0))
    text = exposition(snapshots.take(165.0)._replace(tokens_per_min=2.5, left_s=1.0), view.changes)
    names = set(re.findall(r"# TYPE claude_orchestrator_(\S+)", text))
    assert len(names) == 19 and {name for name in names if f"`{name}`" not in page} == set()


def test_latencies_are_histograms() -> None:
    view = a_run("one")
    for first_byte_s, seconds in ((0.5, 1.28), (0.5, 3.0), (None, 1_000.0)):
        view.changes.observe(RequestTimed("one", 'op"us', 200, first_byte_s, seconds))
    view.changes.observe(RequestTimed("one", "opus", None, None, 0.25))
    found = read(exposition(Snapshots(view).take(165.0), view.changes))
    labels = 'model="op"us",status="200"'
    buckets = {bound: found[f'api_request_seconds_bucket{{le="{bound}",{labels}}}'] for bound in (*BOUNDS_S, "+Inf")}
    assert buckets[0.64] == 0 and buckets[1.28] == 1 and buckets[5.12] == 2 and buckets["+Inf"] == 3
    assert found[f"api_request_seconds_sum{{{labels}}}"] == 1_004.28
    assert found[f"api_request_seconds_count{{{labels}}}"] == 3
    assert found[f"api_first_byte_seconds_count{{{labels}}}"] == 2
    assert found['api_request_seconds_count{model="opus",status="none"}'] == 1
    assert 'api_first_byte_seconds_count{model="opus",status="none"}' not in found


def test_the_series_of_latencies_are_bounded() -> None:
    latencies = Latencies()
    for number in range(3 * MOST_SERIES):
        latencies.note(RequestTimed("one", f"model-{number}", 200, 0.1, 0.2))
    assert len(latencies.whole) == MOST_SERIES + 1 == len(latencies.first_byte)
    assert sum(latencies.whole[LatencyLabels("other", "200")].counts) == 2 * MOST_SERIES


async def scrape(browser: Browser, path: str, **headers: str) -> tuple[int, bytes, Mapping[str, str]]:
    """Status, body and headers for a program without a cookie."""
    browser.headers.clear()
    return await browser.get(path, **headers)


def test_a_scraper_needs_the_password(tmp_path: Path) -> None:
    async def main() -> None:
        async with serving(WrittenRun(), tmp_path, password=PASSWORD, metrics=lambda: "x 1\n") as (browser, _):
            for given, status in ((None, 401), ("Bearer wrong", 401), (f"Basic {PASSWORD}", 401)):
                headers = {} if given is None else {"Authorization": given}
                assert (await scrape(browser, "/metrics", **headers))[0] == status
            good = {"Authorization": f"Bearer {PASSWORD}"}
            status, body, headers_back = await scrape(browser, "/metrics", **good)
            assert (status, body, headers_back["Content-Type"]) == (200, b"x 1\n", CONTENT_TYPE)
            assert (await scrape(browser, "/api/snapshot", **good))[0] == 401  # it opens nothing else

    asyncio.run(main())


def test_without_a_password_no_scraper_is_let_in(tmp_path: Path) -> None:
    async def main() -> None:
        async with serving(WrittenRun(), tmp_path, metrics=lambda: "x 1\n") as (browser, _):
            for given in ("Bearer ", "Bearer", "bearer x"):
                assert (await scrape(browser, "/metrics", Authorization=given))[0] == 401

    asyncio.run(main())
