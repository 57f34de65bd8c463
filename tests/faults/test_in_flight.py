"""The orchestrator is killed while API requests are in flight: what they cost stays on every budget."""

from __future__ import annotations

import json
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from tests.harness import Workplace
from tests.limits import HUNG_S
from token_budget.ledger.records import Limit
from token_budget.ledger.sqlite import SqliteLedger
from token_budget.models import Weights

CLAUDE = str(Path(__file__).with_name("posting_claude.py"))
INPUT, OUTPUT = 4_000, 200
BODY = {"model": "m", "max_tokens": 2_000, "messages": [{"role": "user", "content": "x " * 2_000}]}


class Api:
    """It bills the input as a request comes, and the output as it answers; it answers only while `open` is set."""

    def __init__(self) -> None:
        api = self
        self.billed, self.begun = 0, 0
        self.open = threading.Event()
        lock = threading.Lock()

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def log_message(self, format: str, *args: Any) -> None:
                pass

            def do_POST(self) -> None:
                self.rfile.read(int(self.headers["content-length"]))
                if "count_tokens" in self.path:
                    return self.answer({"input_tokens": INPUT})
                with lock:
                    api.billed, api.begun = api.billed + INPUT, api.begun + 1
                    number = api.begun
                api.open.wait(HUNG_S)
                with lock:
                    api.billed += OUTPUT
                usage = {"input_tokens": INPUT, "output_tokens": OUTPUT}
                return self.answer({"id": f"m{number}", "model": "m", "stop_reason": "end_turn", "usage": usage})

            def answer(self, data: dict[str, object]) -> None:
                body = json.dumps(data).encode()
                self.send_response(200)
                self.send_header("content-type", "application/json")
                self.send_header("content-length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

        class Server(ThreadingHTTPServer):
            def handle_error(self, request: object, client_address: object) -> None:
                """Its clients are killed."""

        self.server = Server(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_address[1]}"
        threading.Thread(target=self.server.serve_forever, daemon=True).start()


@pytest.fixture
def api() -> Iterator[Api]:
    api = Api()
    yield api
    api.open.set()
    api.server.shutdown()
    api.server.server_close()


def wait_for(true: Callable[[], bool], process: subprocess.Popen[bytes]) -> None:
    deadline = time.monotonic() + HUNG_S
    while not true():
        assert process.poll() is None and time.monotonic() < deadline
        time.sleep(0.01)


class Runs:
    """Starts of one run of some instances that send requests."""

    def __init__(self, root: Path, api: Api, instances: int, budget: dict[str, object], posts: int = 50) -> None:
        self.place, self.api, self.count = Workplace(root), api, instances
        variables = {"ANTHROPIC_API_KEY": "dummy", "POST_BODY": json.dumps(BODY), "POSTS": str(posts)}
        self.env = {**self.place.env, "ANTHROPIC_BASE_URL": api.url, **variables}
        setup = {
            "instances": [{"name": f"i{number}", "prompt": "go"} for number in range(instances)],
            "budget": {"enforcement_mode": "block", **budget},
        }
        self.config = self.place.config(setup)

    def argv(self, *args: str) -> list[str]:
        ledger = ("--ledger", str(self.place.root / "ledger.db"), "--report", "report.json")
        given = ("--config", self.config, "--meter", "api", *ledger)
        return self.place.argv(*given, *args, claude=CLAUDE)

    def killed_in_flight(self, *args: str) -> None:
        """Start it, and kill it when the API has one request of each instance."""
        upto = self.api.begun + self.count
        process = subprocess.Popen(self.argv(*args), env=self.env, cwd=self.place.root, stderr=subprocess.DEVNULL)
        try:
            wait_for(lambda: self.api.begun == upto, process)
        finally:
            process.kill()
            process.wait()

    def whole(self, *args: str) -> subprocess.CompletedProcess[str]:
        self.api.open.set()
        return subprocess.run(
            self.argv(*args),
            env=self.env,
            cwd=self.place.root,
            capture_output=True,
            text=True,
            timeout=HUNG_S,
            check=False,
        )


@pytest.mark.slow
def test_kills_and_resumes_never_pass_a_limit(tmp_path: Path, api: Api) -> None:
    """Each kill finds requests in flight, which the API bills. The resumes begin with them charged."""
    limit = 60_000
    runs = Runs(tmp_path, api, 2, {"overall_budget": limit})
    runs.killed_in_flight()
    runs.killed_in_flight("--resume", "last")
    runs.killed_in_flight("--resume", "last")
    done = runs.whole("--resume", "last")
    report = runs.place.report()
    totals = report["totals"]
    assert api.billed <= totals["total_tokens"] <= limit and totals["exact"] is False, (done.stderr, totals)
    assert api.billed > limit * 0.6  # six answers are charged with their bounds: the rest was used up
    assert "6 API requests were in flight when the run was killed" in done.stderr
    assert report["budgets"]["overall"]["used"] == totals["total_tokens"]


@pytest.mark.slow
@pytest.mark.parametrize(("how", "tokens"), [("input", 4_000), ("none", 0)])
def test_the_setting_decides_what_a_crash_charges(tmp_path: Path, api: Api, how: str, tokens: int) -> None:
    runs = Runs(tmp_path, api, 1, {"overall_budget": 100_000, "charge_unanswered": how}, posts=1)
    runs.killed_in_flight()
    assert runs.whole("--resume", "last").returncode == 0
    counted = runs.place.report()["totals"]["total_tokens"] - INPUT - OUTPUT
    assert tokens <= counted <= tokens * 1.4  # the input of a crash is a bound, too


@pytest.mark.slow
@pytest.mark.parametrize("budget", [{"daily_token_budget": 30_000}, {"overall_budget": 30_000}])
def test_limits_across_runs_have_what_a_killed_run_had_sent(
    tmp_path: Path, api: Api, budget: dict[str, object]
) -> None:
    """Also if the killed run has no such limit itself."""
    runs = Runs(tmp_path, api, 2, budget, posts=1)
    runs.killed_in_flight()
    ledger = SqliteLedger(tmp_path / "ledger.db", create=False)
    later_ms = round(time.time() * 1000) + 61_000  # the lease has ended
    (used,) = ledger.shared([Limit(0, 1)], Weights(), later_ms).used
    assert used >= api.billed and not ledger.shared((), Weights(), later_ms).held.tokens
    assert runs.whole("--resume", "last").returncode == 0
    totals = runs.place.report()["totals"]["total_tokens"]
    assert ledger.shared([Limit(0, 1)], Weights(), later_ms).used == [totals]  # its records have it now
    assert totals >= api.billed
