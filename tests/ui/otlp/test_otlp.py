"""What a collector of OpenTelemetry gets of a run, and that one which is away or hangs harms nothing."""

from __future__ import annotations

import re
import socket
import time
from typing import Any

import pytest

from tests.harness import ROOT, Workplace

pytest.importorskip("opentelemetry.sdk")
from claude_orchestrator.ui.otlp import names
from claude_orchestrator.ui.otlp.pipeline import LAST_WORDS_S, parse_endpoint
from tests.ui.otlp.receiver import Receiver, attributes

CONFIG = {
    # the budget has no room for two estimates at once, so that some of them wait
    "instances": [
        {"name": f"one-{number}", "command": "/fix secret-words", "max_tokens_per_command": 6_000}
        for number in range(4)
    ],
    "rehearsal": {"turns": 3, "tokens": 3_000, "seconds": 0.3, "seed": 1},
    "budget": {"overall_budget": 9_000_000, "command_budgets": {"/fix": 7_000}},
}

BLOCK = ("--meter", "api", "--budget-enforcement-mode", "block", "--max-parallel", "1")


def rehearse(place: Workplace, url: str, *more: str, **env: str) -> Any:
    arguments = ("--config", place.config(CONFIG), "--rehearse", "--ledger", "off", "--report", "report.json")
    return place.run(*arguments, "--otlp", url, *more, claude=None, **env)


def test_a_collector_gets_what_the_report_says(place: Workplace) -> None:
    with Receiver() as collector:
        done = rehearse(place, collector.url + "/", *BLOCK, OTEL_EXPORTER_OTLP_HEADERS="authorization=key")
    assert done.returncode == 1 and "--otlp" not in done.stderr, done.stderr  # the command's budget ends some of them
    report = place.report()
    points = collector.points()
    usage = report["totals"]

    def value(name: str, **labels: str) -> float:
        point = points[f"claude_orchestrator.{name}"][tuple(sorted(labels.items()))]
        found: float = getattr(point, point.WhichOneof("value"))
        return found

    kinds = {"input": "input_tokens", "output": "output_tokens", "cache_read": "cache_read_input_tokens"}
    for kind, key in kinds.items():
        assert value("tokens", type=kind) == usage[key]
    assert value("budget_used", scope="overall", key="", unit="tokens") == usage["total_tokens"]
    assert value("budget_limit", scope="command", key="/fix", unit="tokens") == 7_000
    by_type = {dict(key)[names.TOKEN_TYPE]: point.sum for key, point in points[names.TOKEN_USAGE].items()}
    assert by_type["input"] + by_type["output"] == usage["total_tokens"]
    assert by_type["output"] == usage["output_tokens"]
    requests = sum(point.count for point in points[names.DURATION].values())
    assert requests == sum(point.count for point in points[names.FIRST_CHUNK].values()) > 1

    spans = list(collector.spans())
    (run,) = (span for span in spans if span.name == "invoke_workflow claude-orchestrator")
    agents = [span for span in spans if span.name.startswith("invoke_agent")]
    chats = [span for span in spans if span.name.startswith("chat ")]
    assert len(agents) == sum(instance["attempts"] for instance in report["instances"])
    assert {span.parent_span_id for span in agents} == {run.span_id} and len(chats) == requests
    assert {span.parent_span_id for span in chats} <= {span.span_id for span in agents}
    billed = [attributes(span.attributes) for span in agents]
    assert sum(one[names.INPUT_TOKENS] + one[names.OUTPUT_TOKENS] for one in billed) == usage["total_tokens"]
    assert {one[names.PROVIDER] for one in billed} == {"anthropic"}
    decided = [attributes(event.attributes) for event in run.events if event.name in ("decision", "stopping")]
    assert decided and {one[names.BUDGET] for one in decided} == {"/fix command"}
    assert attributes(run.attributes)[names.EXIT_CODE] == 1
    about = collector.resources()[0]
    assert about["service.name"] == "claude-orchestrator" and about[names.RUN] == report["run_id"]
    assert all(headers["authorization"] == "key" for headers in collector.headers)
    assert b"secret-words" not in b"".join(one.SerializeToString() for one in (*collector.traces, *collector.metrics))


def test_a_collector_that_is_away_costs_one_message(place: Workplace) -> None:
    with socket.create_server(("127.0.0.1", 0)) as free:
        url = f"http://127.0.0.1:{free.getsockname()[1]}"
    done = rehearse(place, url)
    assert done.returncode == 0 and done.stderr.count("--otlp: ") == 1
    assert "reported once" in done.stderr and "Traceback" not in done.stderr


@pytest.mark.slow
def test_a_collector_that_hangs_or_refuses_delays_the_end_a_little_at_most(place: Workplace) -> None:
    begun = time.monotonic()
    assert place.run("--config", place.config(CONFIG), "--rehearse", "--ledger", "off", claude=None).returncode == 0
    without_s = time.monotonic() - begun
    for collector in (Receiver(), Receiver(status=503), Receiver(status=400)):
        with collector:
            if collector.status == 200:
                collector.go.clear()
            begun = time.monotonic()
            done = rehearse(place, collector.url)
            assert done.returncode == 0 and "Traceback" not in done.stderr
            assert time.monotonic() - begun < without_s + LAST_WORDS_S + 3.0
            assert done.stderr.count("--otlp: ") <= 1


@pytest.mark.parametrize(
    "url",
    [
        "",
        "localhost:4318",
        "ftp://host",
        "http://",
        "http://host:0",
        "http://host:99999",
        "http://a b",
        "http://h/?x=1",
    ],
)
def test_an_address_that_is_none_ends_with_one_line(url: str) -> None:
    with pytest.raises(ValueError, match=r"^--otlp: expected [^\n]+$"):
        parse_endpoint(url)


def test_a_password_in_the_address_is_refused_and_not_shown(place: Workplace) -> None:
    done = rehearse(place, "http://me:hunter2@127.0.0.1:1")
    assert done.returncode == 2 and done.stderr.count("\n") == 1
    assert "OTEL_EXPORTER_OTLP_HEADERS" in done.stderr and "hunter2" not in done.stderr
    assert not (place.root / "out").exists()


def test_the_extra_is_named(place: Workplace) -> None:
    (place.root / "sitecustomize.py").write_text(
        "import importlib.util as it\nold = it.find_spec\n"
        "it.find_spec = lambda name, *more: None if name.startswith('opentelemetry') else old(name, *more)\n"
    )
    done = rehearse(place, "http://127.0.0.1:1", PYTHONPATH=f"{place.root}:{ROOT}")
    assert done.returncode == 2 and "claude-orchestrator[otel]" in done.stderr and done.stderr.count("\n") == 1


def test_each_name_is_documented() -> None:
    page = (ROOT / "docs" / "metrics.md").read_text()
    found = {
        value
        for name, value in vars(names).items()
        if name.isupper() and isinstance(value, str) and re.fullmatch(r"[a-z_]+(\.[a-z_]+)+", value)
    }
    assert len(found) > 25 and {name for name in found if f"`{name}`" not in page} == set()
