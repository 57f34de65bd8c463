"""Messages to pages: nothing is lost, whatever a page has missed, and little is sent."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncGenerator, Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

from claude_orchestrator.ui.web import feed as feed_module
from claude_orchestrator.ui.web import frames
from claude_orchestrator.ui.web.feed import Feed
from claude_orchestrator.ui.web.frames import sse
from tests.limits import HUNG_S
from tests.ui.web.site import WrittenRun, row, serving
from token_budget.serving import server

Message = tuple[str, str, dict[str, Any]]


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(feed_module, "EVERY_S", 0.01)
    monkeypatch.setattr(feed_module, "SLOW_S", 0.01)
    monkeypatch.setattr(feed_module, "COLLECT_EVERY_S", 0.0)


def with_feed(use: Callable[[WrittenRun, Feed], Awaitable[None]]) -> None:
    async def main() -> None:
        run = WrittenRun([row("a")])
        feed = Feed(run)
        async with asyncio.timeout(HUNG_S):
            await use(run, feed)
            await feed.close()

    asyncio.run(main())


def messages(data: bytes) -> list[Message]:
    """Kind, id and data of each server-sent event."""
    found = []
    for block in data.decode().split("\n\n"):
        fields = dict(line.split(": ", 1) for line in block.splitlines() if not line.startswith(":"))
        if fields:
            found.append((fields["event"], fields.get("id", ""), json.loads(fields["data"])))
    return found


async def read(page: AsyncGenerator[bytes, None], until: int) -> list[Message]:
    """What a page gets until it knows an event."""
    found: list[Message] = []
    while not found or found[-1][2]["number"] < until:
        found += messages(await anext(page))
    return found


async def opened(feed: Feed) -> tuple[AsyncGenerator[bytes, None], list[Message]]:
    """A page that has its snapshot, once the feed reads the run."""
    page = feed.page("")
    found = messages(await anext(page))
    while feed._number < 0:  # noqa: ASYNC110 - the feed knows no such event
        await asyncio.sleep(0)
    return page, found


def test_a_page_gets_a_snapshot_and_then_what_changes() -> None:
    async def use(run: WrittenRun, feed: Feed) -> None:
        run.add("launched")
        page, (first,) = await opened(feed)
        assert first[:2] == ("snapshot", "1@test/1") and first[2]["timeline"]["at"]
        number = run.add("instance_ended", "b")
        events = [event for kind, _, data in await read(page, number) if kind == "frame" for event in data["events"]]
        assert [event["kind"] for event in events if event["n"] > 1] == ["instance_ended"]
        await page.aclose()

    with_feed(use)


def test_many_events_come_in_several_messages_in_their_order(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(frames, "MOST_EVENTS", 3)

    async def use(run: WrittenRun, feed: Feed) -> None:
        page, _ = await opened(feed)
        for number in range(8):
            run.add("usage_recorded", f"i{number}")
        last = run.add("usage_recorded", "i0")  # replaces the first one
        found = await read(page, last)
        sent = [[event["n"] for event in data["events"]] for kind, _, data in found if kind == "frame"]
        assert [one for each in sent for one in each] == [2, 3, 4, 5, 6, 7, 8, 9] and max(map(len, sent)) == 3
        assert [data["number"] for kind, _, data in found if kind == "frame"] == [each[-1] for each in sent]
        await page.aclose()

    with_feed(use)


def test_of_many_counts_of_an_instance_the_last_is_sent() -> None:
    async def use(run: WrittenRun, feed: Feed) -> None:
        page, _ = await opened(feed)
        for _ in range(1_000):
            number = run.add("usage_recorded", usage={"total_tokens": run.last}, budgets=["large"])
        found = [data for kind, _, data in await read(page, number) if kind == "frame"]
        assert sum(len(data["events"]) for data in found) < 20
        assert found[-1]["events"][-1]["usage"] == {"total_tokens": 999} and "budgets" not in found[-1]["events"][-1]
        await page.aclose()

    with_feed(use)


def test_a_page_that_comes_back_gets_what_it_has_missed() -> None:
    async def use(run: WrittenRun, feed: Feed) -> None:
        stays, leaves = (await opened(feed))[0], (await opened(feed))[0]
        seen = (await read(leaves, run.add("launched")))[-1][1]
        await leaves.aclose()
        for name in ("b", "c", "d"):
            await read(stays, run.add("launched", name))
        again = await read(feed.page(seen), run.last)
        names = [event["instance"] for kind, _, data in again for event in data["events"]]
        assert {kind for kind, _, _ in again} == {"frame"} and names == ["b", "c", "d"]
        await stays.aclose()

    with_feed(use)


@pytest.mark.parametrize("last_id", ["", "x", "1@other", "-1@test/1", "99999@test/1", "1@test/1@", "²@test/1"])
def test_a_page_with_an_id_of_another_time_gets_a_snapshot(last_id: str) -> None:
    async def use(run: WrittenRun, feed: Feed) -> None:
        run.add("launched")
        page = feed.page(last_id)
        kinds = [messages(await anext(page))[0][0]]
        await page.aclose()
        assert kinds == ["snapshot"]

    with_feed(use)


def test_events_that_were_dropped_make_a_snapshot() -> None:
    async def use(run: WrittenRun, feed: Feed) -> None:
        page, _ = await opened(feed)
        await read(page, run.add("launched"))
        for _ in range(5):
            run.add("launched")
        run.drop()
        number = run.add("instance_ended")
        found = await read(page, number - 1)
        assert "snapshot" in [kind for kind, _, _ in found]
        await page.aclose()

    with_feed(use)


def test_pages_get_the_end_of_the_run() -> None:
    async def use(run: WrittenRun, feed: Feed) -> None:
        page, _ = await opened(feed)
        number = run.add("run_ended")
        await feed.close()
        found = [message async for data in page for message in messages(data)]
        assert [kind for kind, _, _ in found][-2:] == ["snapshot", "bye"] and found[-2][2]["number"] == number

    with_feed(use)


def test_nothing_reads_the_run_while_nobody_looks() -> None:
    async def use(run: WrittenRun, feed: Feed) -> None:
        page, _ = await opened(feed)
        assert feed._reading is not None
        await page.aclose()
        assert feed._reading is None

    with_feed(use)


def test_kept_messages_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(feed_module, "MAX_FRAME_BYTES", 10_000)

    async def use(run: WrittenRun, feed: Feed) -> None:
        page, _ = await opened(feed)
        for _ in range(50):
            await read(page, run.add("answered", text="x" * 1_000))
        assert sum(len(data) for _, data in feed._frames) <= 10_000
        await page.aclose()

    with_feed(use)


def test_no_text_forges_a_field() -> None:
    assert sse("frame", json.dumps({"text": "\n\nevent: snapshot\ndata: {}"}), "1@a").count(b"\n") == 4
    for bad in ("1\n2", "1\r", "1\0"):
        with pytest.raises(AssertionError):
            sse("frame", "{}", bad)


def test_a_page_that_takes_nothing_is_dropped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server, "STUCK_S", 0.2)
    monkeypatch.setattr(feed_module, "BYTES_PER_S", 1e9)
    monkeypatch.setattr(feed_module, "LEAST_PAUSE", 0)

    async def main() -> None:
        run = WrittenRun([row("a")])
        async with asyncio.timeout(HUNG_S), serving(run, tmp_path) as (browser, feed):
            reader, writer = await asyncio.open_connection(
                "127.0.0.1", int(browser.base.rpartition(":")[2]), limit=1_024
            )
            cookie = browser.headers["Cookie"]
            writer.write(f"GET /api/events HTTP/1.1\r\nHost: 127.0.0.1\r\nCookie: {cookie}\r\n\r\n".encode())
            await reader.readline()
            assert feed._pages == 1
            async with asyncio.timeout(HUNG_S):
                while feed._pages:
                    run.add("answered", text="x" * 1_000_000)
                    await asyncio.sleep(0.02)
            assert (await browser.get("/api/snapshot"))[0] == 200
            writer.close()

    asyncio.run(main())
