"""The page in a real browser: a rehearsal in view, actions, a restart of the server, hostile output, accessibility."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from tests.harness import Workplace
from tests.limits import HUNG_S
from tests.ui.web.conftest import missing
from tests.ui.web.rehearsal import Rehearsal, rehearsal_config

if TYPE_CHECKING:
    from playwright.sync_api import Page, Route

pytestmark = pytest.mark.slow
HOSTILE = "<script>window.broken=1</script><img src=x onerror=window.broken=1>\x1b[31m\x1b]0;title\x07\u202eabc"


@pytest.fixture
def forty(place: Workplace, page: Page) -> Iterator[Rehearsal]:
    """Forty instances at work, on a page that is signed in."""
    running = Rehearsal(place, rehearsal_config(40, seconds=60), "--dashboard", "0", "--max-parallel", "12")
    page.goto(running.address)
    page.wait_for_selector("body.ready")
    yield running
    running.stop()


def until(page: Page, condition: str, limit_s: float = HUNG_S) -> None:
    """Wait until JavaScript is true. Playwright's own wait would need `eval`, which the page forbids."""
    deadline = time.monotonic() + limit_s
    while not page.evaluate(condition):
        assert time.monotonic() < deadline, condition
        page.wait_for_timeout(50)


def journal(place: Workplace) -> str:
    return (next((place.root / "out").iterdir()) / "journal.jsonl").read_text()


def confirm(page: Page, text: str | None = None) -> None:
    """Answer the question that the page asks."""
    if text is not None:
        page.fill("dialog[open] input", text)
    page.click("dialog[open] button[value=yes]")


def test_a_rehearsal_of_forty_is_seen_and_steered(forty: Rehearsal, page: Page, place: Workplace) -> None:
    assert "of 40" in page.inner_text("#head .figures")
    page.wait_for_selector(".state-running")
    assert page.inner_text("#head .link") == "live"
    assert page.locator("#instances .space .line").count() > 10

    page.fill("#filter", "analyse-03")
    until(page, "document.querySelectorAll('#instances .space .line').length === 1")
    page.click("button.name >> text=analyse-03")
    page.wait_for_selector("#pane .item")
    page.click("#detail >> text=Stop …")
    confirm(page, "goes in circles")
    page.wait_for_selector("#detail .state-stopped")
    assert "goes in circles" in page.inner_text("#detail .reason")
    page.keyboard.press("Escape")
    page.fill("#filter", "")

    page.click("[aria-label='Set limit … of the overall budget']")
    confirm(page, "9M")
    until(page, "document.querySelector('#budgets').innerText.includes('of 9.0M')")
    page.click("[aria-label='Set limit … of the overall budget']")
    confirm(page, "nonsense")
    page.wait_for_selector(".toast.error")

    page.click("text=Pause launches")
    page.wait_for_selector("text=Resume launches")
    page.click("text=12 at once …")
    confirm(page, "5")
    page.wait_for_selector("text=5 at once …")
    page.click("#view-decisions")
    decisions = page.inner_text("#decisions")
    assert "is now" in decisions and "goes in circles" in decisions and "(web" in decisions

    page.click("text=Stop run …")
    confirm(page, "enough")
    assert forty.process.wait(timeout=HUNG_S) == 1
    page.wait_for_selector("#head .run-ended")
    assert page.locator("#head >> text=Stop run").count() == 0
    written = journal(place)
    assert written.count('"via":"web"') >= 5 and "goes in circles" in written


def test_the_keyboard_is_enough(forty: Rehearsal, page: Page) -> None:
    page.focus("#instances .rows")
    page.keyboard.press("ArrowDown")
    page.keyboard.press("ArrowDown")
    name = page.inner_text(".line.selected .name")
    page.keyboard.press("Enter")
    page.wait_for_selector("#detail h2")
    assert page.inner_text("#detail h2") == name
    page.focus("#tab-conversation")
    page.keyboard.press("ArrowRight")
    assert page.get_attribute("#tab-result", "aria-selected") == "true"
    page.keyboard.press("Escape")
    assert page.is_hidden("#detail")
    page.focus("#view-instances")
    page.keyboard.press("ArrowRight")
    page.wait_for_selector("#graph .node")


def test_an_answer_that_comes_after_its_instance_was_closed_is_dropped(forty: Rehearsal, page: Page) -> None:
    late: list[Route] = []
    page.route("**/api/conversation*", lambda route: late.append(route))  # noqa: PLW0108 it counts parameters
    page.wait_for_selector(".state-running")
    page.locator("#instances button.name").first.click()
    while not late:
        page.wait_for_timeout(20)
    page.keyboard.press("Escape")
    for route in late:
        route.abort()
    page.wait_for_timeout(200)  # an error of a script would fail the test
    assert page.is_hidden("#detail")


def test_the_page_recovers_when_its_server_is_killed_and_restarted(page: Page, place: Workplace) -> None:
    config = place.config(rehearsal_config(8, seconds=90))
    run = subprocess.Popen(
        place.argv("--config", config, "--rehearse", "--quiet", claude=None), env=place.env, cwd=place.root
    )
    server = None
    try:
        while not list((place.root / "out").glob("*/control.sock")):
            assert run.poll() is None
            time.sleep(0.05)
        server, address = open_page(place, "0")
        page.goto(address)
        page.wait_for_selector(".state-running")
        port = address.partition("127.0.0.1:")[2].partition("/")[0]
        server.kill()
        server.wait()
        page.wait_for_selector(".link-lost")
        before = page.evaluate("document.querySelector('#head .figures').innerText")
        server, _ = open_page(place, port)
        page.wait_for_selector(".link-live")
        until(page, f"document.querySelector('#head .figures').innerText !== {json.dumps(before)}")
    finally:
        run.terminate()
        run.wait(timeout=HUNG_S)
        if server is not None:
            server.terminate()
            server.wait(timeout=HUNG_S)


def open_page(place: Workplace, port: str) -> tuple[subprocess.Popen[str], str]:
    """`claude-runs open` for the last run; returns the process and the address."""
    code = "from claude_orchestrator.cli.runs.main import main; main()"
    argv = [sys.executable, "-c", code, "--output-dir", str(place.root / "out"), "open", "last", "--no-browser"]
    process = subprocess.Popen(
        [*argv, "--port", port], env=place.env, cwd=place.root, stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    address = process.stdout.readline().strip()
    assert address.startswith("http://127.0.0.1:")
    return process, address


def hostile_run(place: Workplace) -> Path:
    """A finished run whose instance wrote what should never reach a browser as code."""
    done = place.run(
        "--config", place.config({"instances": [{"name": "bad", "command": "/x"}]}), "--rehearse", claude=None
    )
    assert done.returncode == 0
    folder = next((place.root / "out").iterdir())
    blocks = [
        {"type": "text", "text": HOSTILE},
        {"type": "text", "text": HOSTILE + "y" * 5_000_000},
        {"type": "tool_use", "id": "t", "name": HOSTILE, "input": {"command": HOSTILE}},
    ]
    lines = [{"type": "assistant", "message": {"content": [block]}} for block in blocks]
    result = [{"type": "tool_result", "tool_use_id": "t", "content": HOSTILE, "is_error": True}]
    with (folder / "001-bad.jsonl").open("a") as log:
        for line in (*lines, {"type": "user", "message": {"content": result}}):
            log.write(json.dumps(line) + "\n")
        log.write(HOSTILE + "\n")
    (folder / "results" / "bad.md").write_text(HOSTILE)
    return folder


def test_tools_are_approved_and_denied_on_the_page(page: Page, place: Workplace) -> None:
    config = rehearsal_config(3, rehearsal={"turns": 6, "tokens": 600, "seconds": 2, "seed": 3})
    running = Rehearsal(place, config, "--dashboard", "0", "--approvals", "ask")
    try:
        page.goto(running.address)
        page.wait_for_selector("#approvals li >> nth=2")
        assert "3 waiting for your approval" in page.inner_text("#approvals")
        assert "Bash: npm test" in page.inner_text("#approvals li") and "denied in" in page.inner_text("#approvals li")
        assert axe_faults(page) == []
        name = page.inner_text("#approvals li >> nth=0 >> button.name")
        page.click("#approvals li >> nth=0 >> text=Approve")
        page.wait_for_selector(".toast >> text=Approved: Bash: npm test")
        until(page, "document.querySelectorAll('#approvals li').length === 2")
        page.click("#approvals li >> nth=0 >> text=Deny …")
        confirm(page, "use the test database")
        until(page, "document.querySelectorAll('#approvals li').length === 1")
        page.click("#approvals li >> nth=0 >> text=Always")
        page.wait_for_selector("#approvals", state="hidden")
        page.click("#view-decisions")
        until(page, "document.querySelector('#decisions').innerText.includes('(web')")
        running.process.wait(timeout=HUNG_S)
    finally:
        running.stop()
    found = [json.loads(line) for line in journal(place).splitlines()]
    answers = [(one["outcome"], one["via"]) for one in found if one["kind"] == "answer"]
    assert answers == [("allowed", "web"), ("denied", "web"), ("allowed", "web")]
    assert next(one["instance"] for one in found if one["kind"] == "answer") == name
    assert [one["rule"]["pattern"] for one in found if one["kind"] == "rule"] == ["npm test"]


def test_a_run_that_is_over_has_its_budgets_and_its_graph(page: Page, place: Workplace) -> None:
    config = rehearsal_config(8, rehearsal={"turns": 3, "tokens": 3_000, "seconds": 0.3, "seed": 1})
    done = place.run("--config", place.config(config), "--rehearse", "--quiet", claude=None)
    assert done.returncode == 0
    server, address = open_page(place, "0")
    try:
        page.goto(address)
        page.wait_for_selector("body.ready")
        budgets = page.inner_text("#budgets")
        assert "of 5.0M" in budgets and "/fix" in budgets and "of 3.0M" in budgets
        assert page.locator("#budgets button:visible").count() == 0
        options = page.locator("#series option").all_inner_texts()
        assert "overall budget" in options and "used by" in page.inner_text("#chart")
        page.click("#view-graph")
        page.wait_for_selector("#graph .node")
        assert page.locator("#graph .node").count() == 8 and page.locator("#graph .arrow").count() >= 6
        assert axe_faults(page) == []
    finally:
        server.terminate()
        server.wait(timeout=HUNG_S)


def test_only_completed_instances_count_as_done(page: Page, place: Workplace) -> None:
    """As in the terminal: `2/6 done`, when a budget has ended the others."""
    setup = {"turns": 3, "tokens": 3_000, "seconds": 0.3, "seed": 1}
    config = {
        "instances": [{"name": "fix", "prompt": "Fix {{item}}.", "for_each": list("abcdef")}],
        "budget": {"overall_budget": 8_000, "enforcement_mode": "block"},
        "rehearsal": setup,
    }
    done = place.run(
        "--config", place.config(config), "--rehearse", "--report", "report.json", "--max-parallel", "1", claude=None
    )
    assert done.returncode == 1
    states = Counter(one["status"] for one in place.report()["instances"])
    others = states["stopped"] + states["blocked"]
    assert states["completed"] > 0 and others > 0
    server, address = open_page(place, "0")
    try:
        page.goto(address)
        page.wait_for_selector("body.ready")
        figures = page.inner_text("#head .figures")
        assert f"{states['completed']} of 6" in figures and page.title().startswith(f"{states['completed']}/6 done")
        assert f"{states['completed']}/6 done" in page.inner_text("#instances .line.group")
        left = page.locator("#instances .line:not(.group) .c-time").first.bounding_box()
        head = page.locator("#instances [role=columnheader]").nth(2).bounding_box()
        assert left is not None and head is not None and abs(left["x"] - head["x"]) < 2
    finally:
        server.terminate()
        server.wait(timeout=HUNG_S)


def test_hostile_output_is_text(page: Page, place: Workplace) -> None:
    hostile_run(place)
    server, address = open_page(place, "0")
    try:
        page.goto(address)
        page.click("button.name >> text=bad")
        page.wait_for_selector("#pane .tool")
        assert "<script>window.broken=1</script>" in page.inner_text("#pane")
        assert len(page.inner_text("#pane")) < 100_000
        for tab in ("result", "figures", "log"):
            page.click(f"#tab-{tab}")
            page.wait_for_timeout(300)
        assert "<img src=x" in page.inner_text("#pane")
        assert page.evaluate("window.broken") is None
        assert page.locator("#pane img, #pane script").count() == 0
        assert "\x1b" not in page.inner_text("#pane") and "\u202e" not in page.inner_text("#pane")
    finally:
        server.terminate()
        server.wait(timeout=HUNG_S)


def test_the_page_of_a_finished_run_opens_from_the_disk(page: Page, place: Workplace) -> None:
    config = rehearsal_config(100, rehearsal={"turns": 3, "tokens": 3_000, "seconds": 0.2, "seed": 1})
    config["instances"][0]["name"] = "</script><script>window.broken=1</script>"
    config["instances"] = [{**entry, "depends_on": []} for entry in config["instances"]]
    path = place.root / "page.html"
    arguments = ("--config", place.config(config), "--rehearse", "--html", str(path), "--max-parallel", "25", "--quiet")
    assert place.run(*arguments, claude=None).returncode == 0
    assert path.stat().st_size < 1_000_000
    page.goto(path.as_uri())
    page.wait_for_selector("body.ready")
    assert "100 of 100" in page.inner_text("#head .figures")
    page.click("button.name >> text=analyse-03")
    page.wait_for_selector("#pane .result")
    page.click("#tab-result")
    page.wait_for_selector("#pane .answer")
    assert page.evaluate("window.broken") is None
    assert page.locator("#head >> text=Stop run").count() == 0


def axe_faults(page: Page) -> list[dict[str, Any]]:
    """The serious and critical faults that axe-core finds."""
    path = os.environ.get("AXE_JS")
    if not path or not Path(path).is_file():
        missing("axe-core: npm install axe-core, then name its axe.min.js in AXE_JS")
    assert path is not None
    page.evaluate(Path(path).read_text())
    found = page.evaluate("axe.run().then((found) => found.violations)")
    return [
        {"id": one["id"], "nodes": [node["html"][:160] for node in one["nodes"][:3]]}
        for one in found
        if one["impact"] in ("serious", "critical")
    ]


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_axe_finds_nothing_serious(forty: Rehearsal, page: Page, scheme: Any) -> None:
    page.emulate_media(color_scheme=scheme)
    page.wait_for_selector(".state-running")
    found = axe_faults(page)
    for view in ("graph", "decisions", "instances"):
        page.click(f"#view-{view}")
        found += axe_faults(page)
    page.click("button.name >> text=analyse-01")
    page.wait_for_selector("#pane .item")
    found += axe_faults(page)
    page.click("#tab-figures")
    found += axe_faults(page)
    page.click("#detail >> text=Stop …")
    found += axe_faults(page)
    assert found == []


def test_a_thousand_rows_scroll_with_few_elements(page: Page, place: Workplace) -> None:
    config = rehearsal_config(1_000, seconds=60)
    running = Rehearsal(place, config, "--dashboard", "0", "--max-parallel", "20")
    try:
        page.goto(running.address)
        page.wait_for_selector(".state-running")
        assert "1,000 instances" in page.inner_text("#instances .tools")
        page.evaluate("document.querySelector('#instances .rows').scrollTop = 20000")
        until(page, "parseInt(document.querySelector('#instances .space .line').style.top) > 10000")
        assert page.locator("#instances .space .line").count() < 60
    finally:
        running.stop()
