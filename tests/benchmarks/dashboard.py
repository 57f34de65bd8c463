"""What a run's page costs the run, and what a page receives.

    python -m tests.benchmarks.dashboard

Rehearsals of the same config run without a page, with a page that nobody opens, with 1 and with 10 that are open. The
reference is the run without a page. `noise` is a second run without one. CPU is that of the run's whole process, for
each 1,000 events. Then: bytes to a page of 1,000 instances, memory over 100,000 events, and the first paint in a
Chromium, if there is one.
"""

from __future__ import annotations

import asyncio
import json
import os
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import aiohttp

from claude_orchestrator.ui.web import feed as feed_module
from tests.harness import Workplace
from tests.ui.web.rehearsal import Rehearsal, rehearsal_config
from tests.ui.web.site import WrittenRun, row

INSTANCES, TURNS, SECONDS = 30, 20, 8.0
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


def run_once(
    pages: int | None, number: int = INSTANCES, turns: int = TURNS, seconds: float = SECONDS
) -> dict[str, float]:
    """A rehearsal; None: without a page. CPU counts from the moment at which the run begins, after all imports."""
    with tempfile.TemporaryDirectory() as folder:
        place = Workplace(Path(folder))
        arguments = ["--config", place.config(config(number, turns, seconds)), "--rehearse"]
        arguments += ["--max-parallel", str(number), *(["--dashboard", "0"] if pages is not None else [])]
        before = children_cpu_s()
        with (place.root / "messages").open("w") as file:
            argv = place.argv(*arguments, claude=None)
            process = subprocess.Popen(argv, env=place.env, cwd=place.root, stdout=file, stderr=file)
        wanted = "dashboard: " if pages is not None else "logs in"
        while wanted not in (said := (place.root / "messages").read_text()):
            assert process.poll() is None, said
            time.sleep(0.01)
        at_start = process_cpu_s(process.pid)
        address = said.partition("dashboard: ")[2].split("\n")[0]
        found = asyncio.run(follow(address, pages)) if pages else []
        process.wait(timeout=300)
        cpu_s = children_cpu_s() - before - at_start
        journal = next((place.root / "out").iterdir()) / "journal.jsonl"
        events = len(journal.read_bytes().splitlines())
    result = {"cpu_ms_per_1000_events": 1000 * cpu_s / events * 1000, "events": float(events)}
    if found:
        first, later, passed = found[0]
        result |= {"snapshot_kb": first / 1000, "kb_per_s": later / 1000 / passed}
    return result


def children_cpu_s() -> float:
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def process_cpu_s(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


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
    shown: dict[str, Any] = {"without": run_once(None), "noise": run_once(None)}
    for pages in (0, 1, 10):
        shown[f"{pages} pages"] = run_once(pages)
        print(json.dumps(shown[f"{pages} pages"]), file=sys.stderr)
    reference = shown["without"]["cpu_ms_per_1000_events"]
    for name in ("noise", "0 pages", "1 pages", "10 pages"):
        shown[name]["percent_more"] = 100 * (shown[name]["cpu_ms_per_1000_events"] / reference - 1)
    shown["1,000 instances"] = run_once(1, MANY, 6, 15.0)
    shown["memory"] = asyncio.run(memory())
    if shutil.which("chromium"):
        shown["browser"] = first_paint()
    print(json.dumps(shown, indent=1))


if __name__ == "__main__":
    main()
