"""What a run's page costs the run, and what a page receives.

    python -m tests.benchmarks.dashboard

Rehearsals run with a page that nobody opens, that 1 browser has open, and that 10 have. The CPU time of the event loop
is divided between the run and its page (`page_share`), within one run: so a busy machine changes both alike. The
reference is the run's own time for 1,000 events. Each row is the median of three runs. Then: bytes to a page of 1,000
instances, memory over 100,000 events, and the first paint in a Chromium, if there is one.
"""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import aiohttp

from claude_orchestrator.ui.web import feed as feed_module
from tests.harness import ROOT, Workplace
from tests.ui.web.rehearsal import Rehearsal, rehearsal_config
from tests.ui.web.site import WrittenRun, row

INSTANCES, TURNS, SECONDS, ROUNDS = 30, 50, 20.0, 3
MANY = 1_000
EVENTS = 100_000


def config(number: int, turns: int, seconds: float) -> dict[str, Any]:
    made = rehearsal_config(number, rehearsal={"turns": turns, "tokens": 20_000, "seconds": seconds, "seed": 1})
    made["instances"] = [{**entry, "depends_on": []} for entry in made["instances"]]
    return made


async def follow(address: str, pages: int) -> list[tuple[int, int, float]]:
    """Open pages and read until the run ends; the bytes of the snapshot and after it, and the seconds after it."""
    jar = aiohttp.CookieJar(unsafe=True)
    async with aiohttp.ClientSession(cookie_jar=jar, timeout=aiohttp.ClientTimeout(total=None)) as session:
        await (await session.get(address)).read()
        base = address.partition("open?")[0]
        return await asyncio.gather(*(one_page(session, base) for _ in range(pages)))


async def one_page(session: aiohttp.ClientSession, base: str) -> tuple[int, int, float]:
    first, later, begun = 0, 0, 0.0
    async with session.get(f"{base}api/events", headers={"Sec-Fetch-Site": "same-origin"}) as answer:
        buffer = b""
        async for data in answer.content.iter_any():
            buffer += data
            while b"\n\n" in buffer:
                message, buffer = buffer.split(b"\n\n", 1)
                if message.startswith(b"event: bye"):
                    return first, later, time.monotonic() - begun
                if first == 0:
                    first, begun = len(message), time.monotonic()
                elif message.startswith(b"event: frame"):
                    later += len(message)
    return first, later, time.monotonic() - begun


def run_once(pages: int, number: int = INSTANCES, turns: int = TURNS, seconds: float = SECONDS) -> dict[str, float]:
    """A rehearsal with a page that so many browsers have open."""
    with tempfile.TemporaryDirectory() as folder:
        place = Workplace(Path(folder))
        arguments = ["--config", place.config(config(number, turns, seconds)), "--rehearse", "--dashboard", "0"]
        argv = place.argv(*arguments, "--max-parallel", str(number), claude=None)
        argv[argv.index("claude_orchestrator")] = "tests.benchmarks.page_share"
        env = {**place.env, "RESULT": str(place.root / "shares"), "PYTHONPATH": str(ROOT)}
        with (place.root / "messages").open("w") as file:
            process = subprocess.Popen(argv, env=env, cwd=place.root, stdout=file, stderr=file)
        while "dashboard: " not in (said := (place.root / "messages").read_text()):
            assert process.poll() is None, said
            time.sleep(0.01)
        address = said.partition("dashboard: ")[2].split("\n")[0]
        found = asyncio.run(follow(address, pages)) if pages else []
        process.wait(timeout=300)
        shares = json.loads((place.root / "shares").read_text())
    thousands = shares["events"] / 1_000
    result = {
        "run_ms_per_1000_events": 1_000 * shares["run"] / thousands,
        "page_ms_per_1000_events": 1_000 * shares["page"] / thousands,
        "page_percent_of_run": 100 * shares["page"] / shares["run"],
        "events": shares["events"],
    }
    if found:
        first, later, passed = found[0]
        result |= {"snapshot_kb": first / 1000, "kb_per_s": later / 1000 / passed}
    return result


def median_of(pages: int) -> dict[str, float]:
    """The run whose share is in the middle."""
    runs = sorted((run_once(pages) for _ in range(ROUNDS)), key=lambda one: one["page_percent_of_run"])
    return runs[ROUNDS // 2]


async def memory() -> dict[str, float]:
    """The growth of memory between 10,000 and 100,000 events that one page reads, in this process."""
    run = WrittenRun([row(f"i{number}") for number in range(100)])
    feed = feed_module.Feed(run)
    page = feed.page("")
    await anext(page)
    rss: list[float] = []

    async def read() -> None:
        async for _ in page:
            pass

    reading = asyncio.ensure_future(read())
    for number in range(EVENTS):
        run.add("usage_recorded", f"i{number % 100}", usage={"total_tokens": number})
        if len(run.events) >= 1_000:
            await asyncio.sleep(0.06)
            run.drop()
        if number in (10_000, EVENTS - 1):
            rss.append(resident_mb())
    reading.cancel()
    await feed.close()
    return {"after_10000_mb": rss[0], "after_100000_mb": rss[1]}


def resident_mb() -> float:
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 1e6


def first_paint() -> dict[str, float]:
    """Milliseconds until the browser paints, for a run of 40 instances: the median of five loads."""
    from playwright.sync_api import sync_playwright

    from tests.ui.web.conftest import FLAGS

    with tempfile.TemporaryDirectory() as folder, sync_playwright() as playwright:
        running = Rehearsal(Workplace(Path(folder)), rehearsal_config(40, seconds=60), "--dashboard", "0")
        browser = playwright.chromium.launch(executable_path=shutil.which("chromium"), args=FLAGS, timeout=120_000)
        page = browser.new_page()
        page.goto(running.address)
        found = []
        for _ in range(5):
            page.reload()
            page.wait_for_selector("body.ready")
            entries = "performance.getEntriesByType('paint').map((one) => one.startTime)"
            found.append(max(page.evaluate(entries)))
        browser.close()
        running.stop()
    return {"first_contentful_paint_ms": sorted(found)[2]}


def main() -> None:
    """Print each figure as a line of JSON."""
    for pages in (0, 1, 10):
        show(f"{pages} pages open", limit="page ≤ 5 % of run", **median_of(pages))
    show(f"{MANY:,} instances", limit="≤ 50 KB/s", **run_once(1, MANY, 6, 15.0))
    show("memory over 100,000 events", limit="flat", **asyncio.run(memory()))
    if shutil.which("chromium"):
        show("browser, 40 instances", limit="≤ 500 ms", **first_paint())


def show(what: str, limit: str, **figures: float) -> None:
    print(json.dumps({"what": what, "limit": limit, **{name: round(value, 2) for name, value in figures.items()}}))
    sys.stdout.flush()


if __name__ == "__main__":
    main()
