"""The page's server: who gets in, what it refuses, and what it serves of a run's files."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

from claude_orchestrator.ui.web.routes import ROUTES
from tests.limits import HUNG_S
from tests.ui.web.site import PASSWORD, Browser, WrittenRun, row, serving
from token_budget.serving.checks import HEADERS

READS = sorted(path for (method, path), route in ROUTES.items() if route.access == "read" and method == "GET")


def visit(
    tmp_path: Path, use: Callable[[Browser, WrittenRun], Awaitable[None]], rows: Any = (), **options: Any
) -> WrittenRun:
    """Use a server with a browser."""

    async def main() -> WrittenRun:
        run = WrittenRun(rows)
        async with asyncio.timeout(HUNG_S), serving(run, tmp_path, **options) as (browser, _):
            await use(browser, run)
        return run

    return asyncio.run(main())


def test_the_page_is_public_and_the_run_is_not(tmp_path: Path) -> None:
    async def use(browser: Browser, run: WrittenRun) -> None:
        status, html, headers = await browser.get("/", Cookie="")
        assert status == 200 and b"main.js" in html and b"test" not in html
        assert {name: headers[name] for name in HEADERS if name != "Cache-Control"} == {
            name: value for name, value in HEADERS.items() if name != "Cache-Control"
        }
        for path in READS:
            assert (await browser.get(path, Cookie=""))[0] == 401, path
            assert (await browser.get(path, Cookie="orchestrator-test=x.y"))[0] == 401, path
            assert (await browser.get(path, Host="evil.example"))[0] == 421, path
            assert (await browser.get(path, **{"Sec-Fetch-Site": "same-site"}))[0] == 403, path
        assert (await browser.get("/", Host="evil.example"))[0] == 421

    visit(tmp_path, use)


def test_a_ticket_is_exchanged_for_a_cookie_once(tmp_path: Path) -> None:
    async def use(browser: Browser, run: WrittenRun) -> None:
        ticket = browser.keys.ticket()
        status, _, headers = await browser.get(f"/open?ticket={ticket}", Cookie="")
        assert status == 303 and headers["Location"] == "/"
        cookie = headers["Set-Cookie"]
        assert "HttpOnly" in cookie and "SameSite=Strict" in cookie and "Path=/" in cookie
        assert (await browser.get("/api/snapshot", Cookie=cookie.partition(";")[0]))[0] == 200
        again = await browser.get(f"/open?ticket={ticket}", Cookie="")
        assert again[2]["Location"] == "/?refused" and "Set-Cookie" not in again[2]

    visit(tmp_path, use)


def test_only_the_password_signs_in(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("token_budget.serving.site.WRONG_PASSWORD_S", 0.0)

    async def use(browser: Browser, run: WrittenRun) -> None:
        assert json.loads((await browser.get("/api/about"))[1])["password"] is True
        for wrong in ("wrong", "", None, [PASSWORD]):
            assert (await browser.post("/api/sign-in", json.dumps({"password": wrong}).encode(), Cookie=""))[0] == 403
        assert (await browser.post("/api/sign-in", b"no json", Cookie=""))[0] == 400
        assert (await browser.post("/api/sign-in", json.dumps({"password": PASSWORD}).encode(), Cookie=""))[0] == 200

    visit(tmp_path, use, password=PASSWORD)


def test_actions_reach_the_run_and_refusals_the_page(tmp_path: Path) -> None:
    async def use(browser: Browser, run: WrittenRun) -> None:
        stop = json.dumps({"method": "stop", "params": {"names": ["a"]}}).encode()
        assert (await browser.post("/api/act", stop))[0] == 200
        refused = json.dumps({"method": "set_limit", "params": {"refuse": True}}).encode()
        assert await browser.post("/api/act", refused) == (409, b'{"error": "no such budget"}')
        for bad in (b"", b"[]", b"{}", b'{"method": "status"}', b'{"method": "stop", "params": 1}', b"\xff"):
            assert (await browser.post("/api/act", bad))[0] == 400
        foreign = [{"Sec-Fetch-Site": "cross-site"}, {"Sec-Fetch-Site": "same-site"}, {"Sec-Fetch-Site": "none"}]
        for headers in foreign:
            assert (await browser.post("/api/act", stop, **headers))[0] == 403
        assert (await browser.post("/api/act", stop, **{"Content-Type": "text/plain"}))[0] == 415
        assert (await browser.post("/api/act", stop, Cookie=""))[0] == 401

    assert visit(tmp_path, use).acts == [("stop", {"names": ["a"]})]


def test_a_read_only_page_changes_nothing(tmp_path: Path) -> None:
    async def use(browser: Browser, run: WrittenRun) -> None:
        status, body = await browser.post("/api/act", b'{"method": "stop_run"}')
        assert status == 403 and b"read-only" in body
        assert (await browser.get("/api/snapshot"))[0] == 200

    assert visit(tmp_path, use, read_only=True).acts == []


@pytest.mark.parametrize(
    "path",
    [
        *("/../keys.py", "/%2e%2e/keys.py", "/..%2fkeys.py", "//etc/passwd", "/static/app.css", "/app.css/", "/vendor"),
        *("/vendor/../index.html", "/app.css%00", "/.", "/api", "/api/", "/API/SNAPSHOT", "/journal.jsonl"),
    ],
)
def test_no_path_leads_to_another_file(tmp_path: Path, path: str) -> None:
    (tmp_path / "journal.jsonl").write_text("secret")

    async def use(browser: Browser, run: WrittenRun) -> None:
        reader, writer = await asyncio.open_connection("127.0.0.1", int(browser.base.rpartition(":")[2]))
        cookie = browser.headers["Cookie"]
        writer.write(
            f"GET {path} HTTP/1.1\r\nHost: 127.0.0.1\r\nCookie: {cookie}\r\nConnection: close\r\n\r\n".encode()
        )
        answer = await reader.read()
        assert answer.split(b" ")[1] in (b"404", b"400") and b"secret" not in answer
        writer.close()

    visit(tmp_path, use)


@pytest.mark.parametrize("name", ["../x", "/etc/passwd", "x/../../x", "", "nobody", "\x00"])
def test_files_are_found_by_the_names_of_instances_only(tmp_path: Path, name: str) -> None:
    async def use(browser: Browser, run: WrittenRun) -> None:
        for path in ("/api/log", "/api/conversation", "/api/answer", "/api/patch"):
            async with browser.session.get(
                browser.base + path, params={"instance": name}, headers=browser.headers
            ) as answer:
                assert answer.status == 404

    visit(tmp_path, use, [row("a", log="../../etc/passwd")])


def test_a_log_that_is_a_link_is_not_followed(tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.write_text("secret")
    folder = tmp_path / "run"
    folder.mkdir(mode=0o700)
    (folder / "001-a.jsonl").symlink_to(outside)

    async def use(browser: Browser, run: WrittenRun) -> None:
        status, body, _ = await browser.get("/api/log?instance=a")
        assert status == 404 and b"secret" not in body

    visit(folder, use, [row("a", log="001-a.jsonl")])


def test_a_conversation_is_read_on_from_where_it_was(tmp_path: Path) -> None:
    log = tmp_path / "001-a.2.jsonl"
    first = json.dumps({"type": "assistant", "message": {"content": [{"type": "text", "text": "<b>one</b>"}]}})
    log.write_text(f'{first}\n{{"type": "assis')
    (tmp_path / "001-a.jsonl").write_text("")

    async def use(browser: Browser, run: WrittenRun) -> None:
        found = json.loads((await browser.get("/api/conversation?instance=a"))[1])
        assert [item["text"] for item in found["items"]] == ["<b>one</b>"] and found["attempts"] == 2
        log.write_text(f"{first}\n{first}\n")
        again = json.loads((await browser.get(f"/api/conversation?instance=a&from={found['next']}"))[1])
        assert len(again["items"]) == 1 and again["next"] == again["size"]
        empty = json.loads((await browser.get("/api/conversation?instance=a&attempt=1"))[1])
        assert empty["items"] == []
        for query in ("attempt=0", "attempt=3"):
            assert (await browser.get(f"/api/conversation?instance=a&{query}"))[0] == 404
        for query in ("from=x", "attempt=1e3", "from=9999999999999999"):
            assert (await browser.get(f"/api/conversation?instance=a&{query}"))[0] == 400

    visit(tmp_path, use, [row("a", log="001-a.2.jsonl", attempts=2)])


def test_huge_lines_and_raw_bytes_come_as_bounded_text(tmp_path: Path) -> None:
    text = "<script>alert(1)</script>\x1b[31m" + "x" * 5_000_000
    line = json.dumps({"type": "assistant", "message": {"content": [{"type": "text", "text": text}]}})
    (tmp_path / "001-a.jsonl").write_text(line + "\n")

    async def use(browser: Browser, run: WrittenRun) -> None:
        found = json.loads((await browser.get("/api/conversation?instance=a"))[1])
        assert found["next"] == found["size"] and len(found["items"][0]["text"]) == 20_000
        status, body, headers = await browser.get("/api/log?instance=a&from=-100")
        assert status == 200 and body == line.encode()[-99:] + b"\n"
        assert headers["Content-Type"].startswith("text/plain") and headers["X-Content-Type-Options"] == "nosniff"
        assert len((await browser.get("/api/log?instance=a"))[1]) == 64 * 1024

    visit(tmp_path, use, [row("a", log="001-a.jsonl")])


def test_oversized_requests_are_refused(tmp_path: Path) -> None:
    async def use(browser: Browser, run: WrittenRun) -> None:
        status, _ = await browser.post("/api/act", b"x" * 100_000)
        assert status == 413
        assert (await browser.get("/api/snapshot", **{"X-Long": "x" * 10_000}))[0] == 400
        assert (await browser.get("/?" + "x" * 10_000))[0] == 400
        assert (await browser.get("/api/snapshot"))[0] == 200

    visit(tmp_path, use)


def test_other_methods_are_no_routes(tmp_path: Path) -> None:
    async def use(browser: Browser, run: WrittenRun) -> None:
        for method in ("PUT", "DELETE", "OPTIONS", "POST", "TRACE"):
            async with browser.session.request(method, browser.base + "/api/snapshot", headers=browser.headers) as got:
                assert got.status == 404

    visit(tmp_path, use)


def test_500_connections_leave_the_page_working(tmp_path: Path) -> None:
    async def use(browser: Browser, run: WrittenRun) -> None:
        port = int(browser.base.rpartition(":")[2])
        idle = [await asyncio.open_connection("127.0.0.1", port) for _ in range(500)]
        assert (await browser.get("/api/snapshot"))[0] == 200
        for _, writer in idle:
            writer.close()

    visit(tmp_path, use)
