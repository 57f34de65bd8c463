"""Alerts: thresholds, what is due, once; and the delivery, with real processes and a real HTTP server."""

from __future__ import annotations

import json
import os
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.limits import HUNG_S
from token_budget.alerts import Alert, AlertBook, AlertTargets, parse_command, parse_ntfy, parse_webhook
from token_budget.models import Budget, Scope, Unit
from token_budget.usage.alert_sinks import DeliveryLimits, notification, sinks_of
from token_budget.usage.delivery import DeliveryThread

RUN = "20261124-1"
PAYLOAD: dict[str, object] = {"schema_version": 1, "id": "ab" * 16, "text": "80 % of the café budget is used"}


def budget(used: int, limit: int = 10_000, *, scope: Scope = Scope.COMMAND, money: bool = False) -> Budget:
    key = "/test" if scope is Scope.COMMAND else ""
    return Budget(limit, scope=scope, key=key, unit=Unit.USD if money else Unit.TOKENS, used=used)


def this_run(_: Budget) -> str:
    return f"run {RUN}"


# -- what the user gives --


@pytest.mark.parametrize("url", ["http://h", "https://u:p@hooks.example:8443/a/b?c=d", "http://[::1]:80/x"])
def test_webhooks(url: str) -> None:
    assert parse_webhook(f" {url}\n") == url


@pytest.mark.parametrize(
    "url",
    [
        *"sekrit ftp://sekrit/x file:///sekrit http:///sekrit http://h:sekrit/ http://h:99999/sekrit".split(),
        *"http://h:0/sekrit http://[sekrit/ https://h/sekrité http://?sekrit //sekrit".split(),
        *("", "http://h/ sekrit", "http://h/\nsekrit", "https://h/sekrit\x07"),
    ],
)
def test_bad_webhooks_are_not_shown(url: str) -> None:
    with pytest.raises(ValueError, match=r"\A--alert-webhook: expected [^\n]*\Z") as caught:
        parse_webhook(url)
    assert "sekrit" not in str(caught.value)


def test_commands() -> None:
    assert parse_command("notify --title 'a b' $HOME") == ("notify", "--title", "a b", "$HOME")
    for bad in ("", "  ", "notify 'a", "''", "a\0b"):
        with pytest.raises(ValueError, match=r"\A--alert-command: expected [^\n]*\Z"):
            parse_command(bad)


# -- what is due --


def test_an_alert_says_it_in_words_and_json() -> None:
    (alert,) = AlertBook((80,)).due([budget(8_012)], this_run, RUN)
    assert alert.text == "80 % of the /test command budget is used (8,012/10,000 tokens)"
    payload = json.loads(json.dumps(alert.payload("2026-11-24T18:00:00+00:00")))
    assert payload == {
        "schema_version": 1,
        "id": alert.id,
        "kind": "threshold",
        "at": "2026-11-24T18:00:00+00:00",
        "run": RUN,
        "budget": "/test command",
        "window": f"run {RUN}",
        "threshold": 80,
        "unit": "tokens",
        "used": 8_012,
        "limit": 10_000,
        "text": alert.text,
    }
    (cost,) = AlertBook((50,)).due([budget(1_230_000_000, 2 * 10**9, scope=Scope.OVERALL, money=True)], this_run, RUN)
    assert cost.text == "61 % of the overall cost budget is used ($1.23/$2.00)"
    assert [cost.payload("now")[key] for key in ("unit", "used", "limit")] == ["USD", 1.23, 2.0]


def test_the_id_is_of_budget_unit_limit_window_and_threshold_alone() -> None:
    one = Alert("overall", Unit.TOKENS, 80, 80, 100, "run 1", "1", "text")
    assert one.id == Alert("overall", Unit.TOKENS, 80, 99, 100, "run 1", "2", "other").id
    others = [
        Alert("daily", Unit.TOKENS, 80, 80, 100, "run 1", "1", "text"),
        Alert("overall", Unit.USD, 80, 80, 100, "run 1", "1", "text"),
        Alert("overall", Unit.TOKENS, None, 80, 100, "run 1", "1", "text"),
        Alert("overall", Unit.TOKENS, 80, 80, 100, "run 2", "1", "text"),
        Alert("overall", Unit.TOKENS, 80, 80, 110, "run 1", "1", "text"),  # a raised limit is another one
    ]
    assert len({alert.id for alert in (one, *others)}) == 6
    assert len(one.id) == 32 and int(one.id, 16) >= 0


def test_a_threshold_is_told_once_also_across_restarts_and_again_after_a_reset() -> None:
    stored: list[str] = []
    book, daily = AlertBook((80, 95), (), stored.append), budget(7_999, scope=Scope.DAILY)
    window = "day 2026-11-24"

    def due(of: AlertBook) -> list[int | None]:
        return [alert.threshold for alert in of.due([daily], lambda _: window, RUN)]

    assert due(book) == []
    daily.used = 8_000
    assert (due(book), due(book)) == ([80], [])
    restarted = AlertBook((80, 95), stored)
    assert due(restarted) == []
    daily.used = 9_500
    assert (due(restarted), due(book), len(stored)) == ([95], [95], 2)
    window = "day 2026-11-25"
    assert due(book) == [95]  # both are passed at once: the highest is told, both are marked
    daily.used = 8_500
    assert (due(book), len(stored), len(set(stored))) == ([], 4, 4)


@given(
    st.sets(st.integers(1, 300), max_size=5), st.lists(st.integers(0, 40), max_size=12), st.integers(1, 97), st.data()
)
def test_every_threshold_reached_is_marked_once_and_none_other(
    thresholds: set[int], steps: list[int], limit: int, data: st.DataObject
) -> None:
    stored: list[str] = []
    book, info, told = AlertBook(thresholds, (), stored.append), budget(0, limit), []
    for step in steps:
        info.used += step
        if data.draw(st.booleans()):
            book = AlertBook(thresholds, stored, stored.append)
        told += [alert.threshold for alert in book.due([info, info], this_run, RUN)]
    reached = {t for t in thresholds if info.used * 100 >= t * limit} if steps else set()
    assert {json.loads(key)[4] for key in stored} == reached and len(stored) == len(reached)
    assert told == sorted(set(filter(None, told))) and (max(reached, default=None) == (told[-1] if told else None))


def test_budgets_are_told_apart_and_odd_ones_do_no_harm() -> None:
    tokens, money = budget(90, 100), budget(90, 100, money=True)
    assert len(AlertBook((80,)).due([tokens, money, budget(5, 0)], this_run, RUN)) == 2
    assert AlertBook(()).due([tokens], this_run, RUN) == []
    odd = Budget(10, key="/\x1b]0;x\x07\ud800")
    odd.used = 10
    (alert,) = AlertBook((80,)).due([odd], this_run, RUN)
    assert alert.text.isprintable() and len(alert.id) == 32


def test_a_forecast_overrun_is_told_once_and_not_after_the_fact() -> None:
    stored: list[str] = []
    book, info = AlertBook((80,), (), stored.append), budget(4_000)
    assert book.overrun(info, 10_000, "run 1", RUN) is None
    alert = book.overrun(info, 12_000, "run 1", RUN)
    assert alert is not None and alert.threshold is None and alert.payload("now")["kind"] == "forecast_overrun"
    said = "the /test command budget will probably be passed (12,000/10,000 tokens; 40 % is used now)"
    assert alert.text == said and stored == [alert.key]
    assert book.overrun(info, 13_000, "run 1", RUN) is None
    assert AlertBook((), stored).overrun(info, 12_000, "run 1", RUN) is None
    assert book.overrun(info, 12_000, "run 2", RUN) is not None
    assert book.overrun(budget(10_001), 12_000, "run 3", RUN) is None


# -- delivery --


@pytest.fixture(autouse=True)
def _no_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("no_proxy", "*")


Seen = tuple[str, dict[str, str], bytes]


@contextmanager
def receiver(*statuses: int) -> Iterator[tuple[str, list[Seen]]]:
    """A server that answers with these statuses, then 200; gives its host with port, and what it got."""
    seen: list[Seen] = []

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            seen.append((self.path, dict(self.headers.items()), body))
            self.send_response(statuses[len(seen) - 1] if len(seen) <= len(statuses) else 200)
            self.send_header("Location", "/elsewhere")
            self.send_header("Content-Length", "0")
            self.end_headers()

        do_GET = do_POST

        def log_message(self, format: str, *args: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True)
        thread.start()
        try:
            yield f"127.0.0.1:{server.server_port}", seen
        finally:
            server.shutdown()
            thread.join()


def python(script: str, *args: str) -> tuple[str, ...]:
    return (sys.executable, "-S", "-c", script, *args)


def wait_for(condition: Callable[[], bool], timeout_s: float = HUNG_S) -> None:
    until = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < until, "waited in vain"
        time.sleep(0.01)


def a_thread(
    command: tuple[str, ...] | None,
    webhook: str | None,
    complain: Callable[[str], None],
    limits: DeliveryLimits | None = None,
    **more: str,
) -> DeliveryThread:
    return DeliveryThread(sinks_of(AlertTargets(command, webhook, **more), limits or DeliveryLimits()), complain)


def is_alive(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return False
    return state not in "ZX"


def test_both_sinks_get_each_alert_once(tmp_path: Path) -> None:
    target, lines = tmp_path / "got $HOME;", list[str]()
    command = python("import sys; open(sys.argv[1], 'ab').write(sys.stdin.buffer.read()); print('noise')", str(target))
    with receiver() as (host, seen):
        with a_thread(command, f"http://us%20er:p%40ss@{host}/hook?token=1#part", lines.append) as delivery:
            delivery.put(PAYLOAD)
            delivery.put(PAYLOAD | {"id": "cd" * 16})
        assert len(seen) == 2
    assert [json.loads(line)["id"] for line in target.read_text().splitlines()] == ["ab" * 16, "cd" * 16]
    path, headers, body = seen[0]
    assert path == "/hook?token=1" and json.loads(body) == PAYLOAD and lines == []
    assert (headers["Content-Type"], headers["Idempotency-Key"]) == ("application/json", "ab" * 16)
    assert headers["User-Agent"] == "claude-orchestrator" and headers["Authorization"] == "Basic dXMgZXI6cEBzcw=="


@pytest.mark.parametrize(
    ("statuses", "tries", "said"),
    [
        ((503, 429), 3, None),
        ((408,), 2, None),
        ((204,), 1, None),
        ((503, 500, 502), 3, "answered 502"),
        ((404,), 1, "answered 404"),
        ((302,), 1, "answered 302"),
        ((307,), 1, "answered 307"),
    ],
)
def test_what_is_tried_again(statuses: tuple[int, ...], tries: int, said: str | None) -> None:
    lines: list[str] = []
    with receiver(*statuses) as (host, seen):
        with a_thread(
            None, f"http://sekrit@{host}/sekrit?sekrit", lines.append, DeliveryLimits(backoff_s=(0.01, 0.01))
        ) as delivery:
            delivery.put(PAYLOAD)
        assert len(seen) == tries and {path for path, _, _ in seen} == {"/sekrit?sekrit"}
        assert {headers["Idempotency-Key"] for _, headers, _ in seen} == {"ab" * 16}
    expected = [f"--alert-webhook: 127.0.0.1: {said}: an alert was not delivered (reported once)"] if said else []
    assert lines == expected


def test_a_refused_connection_is_said_once_and_a_failing_sink_does_not_stop_the_other() -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        url, lines = f"http://127.0.0.1:{unused.getsockname()[1]}/sekrit", list[str]()
        limits = DeliveryLimits(backoff_s=(0.0,))
        with a_thread(("no-such-program-x", "sekrit"), url, lines.append, limits) as delivery:
            for _ in range(3):
                delivery.put(PAYLOAD)
    assert lines == [
        "--alert-command: 'no-such-program-x': No such file or directory: an alert was not delivered (reported once)",
        "--alert-webhook: 127.0.0.1: Connection refused: an alert was not delivered (reported once)",
    ]


@pytest.mark.parametrize(
    ("url", "said"),
    [
        ("http://sekrit.invalid..x/sekrit", "UnicodeError"),
        ("http://127.0.0.1:1/sek rit", "InvalidURL"),
        ("sekrit:", "no host"),
    ],
)
def test_no_error_shows_the_url(url: str, said: str) -> None:
    lines: list[str] = []
    with a_thread(None, url, lines.append, DeliveryLimits(backoff_s=())) as delivery:
        delivery.put(PAYLOAD)
    assert len(lines) == 1 and said in lines[0] and "/sek" not in lines[0] and "\n" not in lines[0]


def test_a_silent_server_is_bounded() -> None:
    lines: list[str] = []
    with socket.create_server(("127.0.0.1", 0)) as server:  # takes connections, never answers
        url = f"http://127.0.0.1:{server.getsockname()[1]}/"
        with a_thread(None, url, lines.append, DeliveryLimits(webhook_s=0.05, backoff_s=(0.0, 0.0))) as delivery:
            delivery.put(PAYLOAD)
    assert lines == ["--alert-webhook: 127.0.0.1: timed out: an alert was not delivered (reported once)"]


def test_a_command_that_fails_or_reads_nothing(tmp_path: Path) -> None:
    lines: list[str] = []
    big = PAYLOAD | {"text": "x" * 1_000_000}
    with a_thread(python("raise SystemExit(3)"), None, lines.append) as delivery:
        delivery.put(big)
        delivery.put(big)
    assert [line.partition(": ended with ")[2] for line in lines] == ["3: an alert was not delivered (reported once)"]
    target = tmp_path / "size"
    slow = "import sys, time; time.sleep(0.2); open(sys.argv[1], 'w').write(str(len(sys.stdin.read())))"
    with a_thread(python(slow, str(target)), None, lines.append) as delivery:
        delivery.put(big)
    assert int(target.read_text()) == len(json.dumps(big)) + 1 and len(lines) == 1


HANGS = """
import os, subprocess, sys, time
child = subprocess.Popen(["sleep", "60"])
open(sys.argv[1] + ".new", "w").write(f"{os.getpid()} {child.pid}")
os.rename(sys.argv[1] + ".new", sys.argv[1])
time.sleep(60)
"""


@pytest.mark.parametrize("by", ["limit", "close"])
def test_a_command_that_hangs_is_killed_with_its_children(tmp_path: Path, by: str) -> None:
    target, lines = tmp_path / "pids", list[str]()
    delivery = a_thread(
        python(HANGS, str(target)), None, lines.append, DeliveryLimits(command_s=2.0 if by == "limit" else 60.0)
    )
    started = time.monotonic()
    delivery.put(PAYLOAD)
    assert time.monotonic() - started < 30
    wait_for(target.exists)
    if by == "limit":
        delivery.close()
        assert len(lines) == 1 and ": killed after 2 s: an alert was not delivered" in lines[0]
    else:
        delivery.put(PAYLOAD)
        started = time.monotonic()
        delivery.close(0.1)
        assert time.monotonic() - started < 30
        assert lines == ["alerts: not all were delivered within 0.1 s of the end"]
    pids = [int(pid) for pid in target.read_text().split()]
    wait_for(lambda: not any(map(is_alive, pids)))
    with pytest.raises(ChildProcessError):
        os.waitpid(pids[0], os.WNOHANG)  # no zombie is left


def test_put_never_waits_and_drops_when_full() -> None:
    lines: list[str] = []
    delivery = a_thread(python("import time; time.sleep(60)"), None, lines.append)
    started = time.monotonic()
    for _ in range(5_000):
        delivery.put(PAYLOAD)
    assert time.monotonic() - started < 30
    assert lines == ["alerts: more than 1,000 are waiting for their sinks: some are lost"]
    delivery.close(0.0)
    delivery.put(PAYLOAD)
    delivery.close()


def test_without_sinks_or_with_a_broken_complainer() -> None:
    def broken(line: str) -> None:
        raise RuntimeError(line)

    before = threading.active_count()
    with a_thread(None, None, broken) as delivery:
        delivery.put(PAYLOAD)
        assert threading.active_count() == before
    with a_thread(("no-such-program-x",), None, broken) as delivery:
        delivery.put({"id": object()})
        delivery.put(PAYLOAD)


def test_an_ntfy_topic_gets_a_notification() -> None:
    lines: list[str] = []
    with receiver() as (host, seen), a_thread(None, None, lines.append, ntfy=f"http://:tk_1@{host}/topic") as delivery:
        delivery.put(PAYLOAD | {"text": "80 % of the täglich budget is used", "threshold": 80, "run": "r-1"})
        delivery.put(PAYLOAD | {"text": "--x", "threshold": None})
        delivery.close()
    (path, headers, body), (_, urgent, _) = seen
    assert path == "/topic" and body.decode() == "80 % of the täglich budget is used" and lines == []
    assert (headers["Title"], headers["Priority"]) == ("claude-orchestrator: r-1", "default")
    assert headers["Authorization"] == "Basic OnRrXzE=" and urgent["Priority"] == "high"


def test_a_topic_that_refuses_is_reported_without_its_name() -> None:
    lines: list[str] = []
    with receiver(403) as (host, _), a_thread(None, None, lines.append, ntfy=f"http://{host}/sekrit") as delivery:
        delivery.put(PAYLOAD)
    assert lines == ["--alert-ntfy: 127.0.0.1: answered 403: an alert was not delivered (reported once)"]


def test_a_notification_of_the_desktop(tmp_path: Path) -> None:
    """The program is a stand-in, because no test has a desktop."""
    program = tmp_path / "notify-send"
    program.write_text(f'#!/bin/sh\nprintf "%s\\n" "$@" > "{tmp_path}/got"\n')
    program.chmod(0o755)
    lines: list[str] = []
    with a_thread(None, None, lines.append, desktop=str(program)) as delivery:
        delivery.put(PAYLOAD | {"text": "--hint <b>95 %</b> $(id)", "threshold": 95})
    words = ["--app-name=claude-orchestrator", "--urgency=critical", "--", "claude-orchestrator"]
    assert (tmp_path / "got").read_text().splitlines() == [*words, "--hint &lt;b&gt;95 %&lt;/b&gt; $(id)"] and not lines


def test_a_notification_of_macos_is_an_argument_of_a_fixed_script() -> None:
    words = notification("/usr/bin/osascript", '" & do shell script "id', urgent=True)
    assert words[-2:] == ('" & do shell script "id', "claude-orchestrator")
    assert next(word for word in words[1:-2] if word != "-e") == "on run argv"


@pytest.mark.parametrize("url", ["ftp://x/y", "https://ntfy.sh", "https://ntfy.sh/", "x"])
def test_an_address_that_is_no_topic(url: str) -> None:
    with pytest.raises(ValueError, match=r"^--alert-ntfy: expected ") as caught:
        parse_ntfy(url)
    assert "\n" not in str(caught.value)
    assert parse_ntfy(" https://ntfy.sh/topic ") == "https://ntfy.sh/topic"
