"""Any stream: whatever an instance prints, it is counted right or said to be inexact, in bounded memory."""

from __future__ import annotations

import json
import os
import resource
import subprocess
import sys
import textwrap
from pathlib import Path
from typing import Any

import pytest

from claude_orchestrator.claude.events import BadLine, MessageStart
from claude_orchestrator.claude.line_events import parse_line
from claude_orchestrator.claude.stream import LineFramer
from claude_orchestrator.claude.tally import UsageTally
from tests.harness import Workplace
from token_budget.ledger.sqlite import SqliteLedger

MIB = 1024 * 1024


def stream(place: Workplace, body: str, *args: str, **options: Any) -> dict[str, Any]:
    """Run an instance that is this Python code, with `emit`, `start`, `end`, `result` and `write`; its report."""
    fake = (Path(__file__).parent.parent / "fake_claude.py").read_text()
    head = fake[: fake.index("def main()")]
    write = "def write(data): sys.stdout.flush(); sys.stdout.buffer.write(data); sys.stdout.flush()\n"
    code = textwrap.dedent(body)
    turn = 'sys.stdin.readline()\nemit({"type": "system", "subtype": "init", "model": "m"})\n'
    version = 'if "--version" in sys.argv: sys.exit(print("2.1.330 (Claude Code)"))\n'
    claude = place.root / "claude"
    claude.write_text(f"#!{sys.executable}\n{head.partition(chr(10))[2]}\n{version}{write}{turn}{code}")
    claude.chmod(0o755)
    done = place.run("hello", "--report", "report.json", "--instance-name", "one", *args, claude=str(claude), **options)
    assert done.returncode in (0, 1), done.stderr
    assert "Traceback" not in done.stderr
    (instance,) = place.report()["instances"]
    assert isinstance(instance, dict)
    return instance


COUNTED = {  # what comes between a response and the result, which repeats its count
    "a line of 20 MB": 'emit({"type": "user", "message": {"content": "x" * 20_000_000}})',
    "a line of 20 MB with usage": """
        message = {"id": "msg_2", "usage": {"input_tokens": 7}, "content": [{"type": "text", "text": "x" * 20_000_000}]}
        emit({"type": "assistant", "message": message})
        """,
    "no UTF-8": r'write(b"\xff\xfe\xfa{}\n" + b"\x80" * 1000 + b"\n")',
    "NULs": r'write(b"\0" * 5000 + b"\n\0{\"type\":\"assistant\"}\n")',
    "half JSON": r'write(b"{\"type\":\"assistant\",\"message\":{\"usage\":{\"input_tokens\":5\n")',
    "arrays and numbers": r'write(b"[1,2,3]\n42\n-1e999\nnull\ntrue\n\"text\"\n[[]]\n{}\n")',
    "deep nesting": r'write(b"[" * 20_000 + b"\n" + b"{\"a\":" * 20_000 + b"1" + b"}" * 20_000 + b"\n")',
    "deep nesting in an event": r"""
        write(b'{"type":"assistant","message":{"content":' + b"[" * 20_000 + b"]" * 20_000 + b"}}\n")
        """,
    "usage null": 'emit({"type": "assistant", "message": {"id": "x", "usage": None}})',
    "usage of strings": 'emit({"type": "assistant", "message": {"id": "x", "usage": {"input_tokens": "9"}}})',
    "over 2^63": 'emit({"type": "assistant", "message": {"id": "x", "usage": {"input_tokens": 2**70}}})',
    "5,000 digits": r"""write(b'{"type":"assistant","message":{"usage":{"input_tokens":' + b"9" * 5000 + b"}}}\n")""",
    "negative": 'emit({"type": "assistant", "message": {"id": "x", "usage": {"input_tokens": -5}}})',
    "infinite": r"""write(b'{"type":"assistant","message":{"id":"x","usage":{"input_tokens":Infinity}}}\n')""",
    "CRLF": r"""write(b'{"type":"system","subtype":"status","status":"ok"}\r\n\r\n')""",
    "lines that other things end lines with": r"""write("\u2028 \u0085 \x0b \x0c \x1c".encode() + b"\r\r\n")""",
    "unknown types": """
        emit({"type": "telemetry", "usage": {"input_tokens": 10**9}})
        emit({"kind": 5, "type": []})
        """,
    "text that looks like usage": """
        emit({"type": "user", "message": {"content": '{"usage": {"input_tokens": 900000}} consumed 900000 tokens'}})
        """,
    "a standard error flood of 100 MB": 'for _ in range(100): sys.stderr.write("e" * 999_999 + chr(10))',
    "200,000 pieces as fast as they go": r"""
        piece = {"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": "word"}}
        line = json.dumps({"type": "stream_event", "event": piece}, separators=(",", ":")).encode() + b"\n"
        write(line * 200_000)
        """,
    "200,000 odd lines": r'write(b"{\n" * 200_000)',
}


@pytest.mark.slow
@pytest.mark.parametrize("name", COUNTED)
def test_it_is_counted_right_and_the_run_continues(place: Workplace, name: str) -> None:
    instance = stream(place, f"start(1)\nend(1)\n{textwrap.dedent(COUNTED[name])}\nresult(1)\nsys.stdin.read()\n")
    assert instance["status"] == "completed", instance["reason"]
    assert instance["usage"]["total_tokens"] == (1057 if "with usage" in name else 1050)
    assert instance["usage"]["exact"] or "with usage" in name


HOSTILE = {  # what it says of itself goes into journal, ledger, reports and arguments
    "half a surrogate pair": {"model": "\\ud800x", "session_id": "\\ud800x"},
    "NUL": {"model": "a\\0b", "session_id": "a\\0b"},
    "an id that is no word": {"session_id": "x; rm -rf $HOME"},
    "an endless id": {"session_id": "x" * 5000},
    "a version of 5,000 digits": {"claude_code_version": "1.2." + "9" * 5000},
}


@pytest.mark.slow
@pytest.mark.parametrize("name", HOSTILE)
def test_invalid_names_ids_and_versions_do_no_harm(place: Workplace, name: str) -> None:
    """It fails for a passing cause, so that the next attempt is given what it said."""
    fields = ", ".join(f'"{key}": "{value}"' for key, value in HOSTILE[name].items())
    body = f"""
        sys.stdout.write(json.dumps({{"type": "system", "subtype": "init", {fields}}}) + chr(10))
        start(1)
        end(1)
        result(1, is_error=True, result="API Error: 529 overloaded", api_error_status=529)
        sys.stdin.read()
        """
    instance = stream(place, body, "--retries", "1", "--ledger", str(place.root / "ledger.db"))
    assert instance["status"] == "failed" and instance["usage"]["total_tokens"] == 2100
    (attempt, again) = SqliteLedger(place.root / "ledger.db").attempts()
    assert attempt.usage.total_tokens == again.usage.total_tokens == 1050
    assert instance["resume"] is None or "rm -rf $HOME'" in instance["resume"] or "rm" not in instance["resume"]


def test_impossible_costs_and_limits_are_skipped(place: Workplace) -> None:
    body = """
        start(1)
        end(1)
        limits = {"five_hour": {"utilization": 10**400}, "weekly": {"utilization": 12.5}}
        session = {"total_cost_usd": 1e300, "model_usage": {"m": {"inputTokens": 1000, "costUSD": 1e11}}}
        answer = {"session": session, "rate_limits": limits}
        response = {"subtype": "success", "request_id": "usage", "response": answer}
        emit({"type": "control_response", "response": response})
        result(1)
        sys.stdin.read()
        """
    instance = stream(place, body, "--ledger", str(place.root / "ledger.db"))
    assert instance["status"] == "completed" and instance["cost_usd"] == 0.01
    assert [limit["name"] for limit in place.report()["rate_limits"]] == ["weekly"]


@pytest.mark.parametrize(
    "line",
    [
        r"""b'{"type":"assistant","message":{"usage":{"input_tokens":5\n'""",
        r"""b'{"type":"assistant","message":{"id":"x","usage":{"input_tokens":-5}}}\n'""",
        r"""b'{"type":"assistant","message":{"id":"x","usage":{"input_tokens":18446744073709551617}}}\n'""",
        r"""b'{"type":"assistant","pad":"' + b"x" * (65 * 1024 * 1024) + b'"}\n'""",
    ],
    ids=["half", "negative", "over 2^63", "longer than the bound"],
)
def test_a_count_that_is_lost_for_good_is_reported(place: Workplace, line: str) -> None:
    """Without a later count of claude's own, the total is a lower bound."""
    instance = stream(place, f"start(1)\nend(1)\nwrite({line})\nsys.exit(0)\n")
    assert instance["status"] == "failed" and instance["usage"]["total_tokens"] == 1050
    assert instance["usage"]["exact"] is False


@pytest.mark.slow
def test_memory_is_bounded(place: Workplace) -> None:
    """A flood on both pipes, and lines of 20 MB: about two of them at most are held at one time."""
    body = r"""
        start(1)
        end(1)
        for _ in range(6):
            emit({"type": "user", "message": {"content": "x" * 20_000_000}})
            sys.stderr.write("e" * 5_000_000)
        result(1)
        sys.stdin.read()
        """
    watch = """
import resource, subprocess, sys
code = subprocess.run(sys.argv[2:]).returncode
open(sys.argv[1], "w").write(str(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss))
sys.exit(code)
"""
    stream(place, body)
    claude = place.root / "claude"  # now it is there
    peak = place.root / "peak"
    argv = place.argv("hello", "--quiet", claude=str(claude))
    subprocess.run(
        [sys.executable, "-c", watch, str(peak), *argv], env=place.env, check=True, stdout=subprocess.DEVNULL
    )
    assert int(peak.read_text()) * 1024 < 200 * MIB


def test_a_line_over_the_bound_is_dropped_without_being_held() -> None:
    framer = LineFramer(max_line_bytes=1000)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    for _ in range(2000):
        assert framer.feed(b"x" * MIB) == b""
    assert framer.feed(b"\n{}\n") == b"{}\n" and framer.dropped == 1
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 64 * 1024


def test_values_that_are_no_counts_are_not_counted() -> None:
    values: list[object] = [None, True, "5", 1.5, -1, 2**53, 2**63, [], {}, 1e400]
    for value in values:
        start = {"type": "message_start", "message": {"usage": {"input_tokens": value}}}
        line = json.dumps({"type": "stream_event", "event": start})
        event = parse_line(line.encode())
        assert isinstance(event, MessageStart) and event.usage.total_tokens == 0
        tally = UsageTally()
        tally.feed(event)
        assert tally.exact is (value is None)
    assert isinstance(parse_line(b"{" * 100_000), BadLine)


def test_escape_sequences_of_an_instance_never_reach_the_terminal(place: Workplace) -> None:
    nasty = r"\033]0;owned\007\033[2J\033[31m\r\b\x9b31m\u202e"
    body = f"""
        emit({{"type": "system", "subtype": "init", "model": "{nasty}", "session_id": "{nasty}"}})
        start(1)
        end(1)
        sys.stderr.write("{nasty}")
        result(1, is_error=True, subtype="{nasty}", result="{nasty}", terminal_reason="{nasty}")
        sys.stdin.read()
        """
    instance = stream(place, body)
    assert instance["status"] == "failed"
    done = place.run("hello", claude=str(place.root / "claude"))
    shown = done.stdout + done.stderr
    assert not any(char in shown for char in "\x1b\x07\x08\x9b\u202e") and "\r" not in shown
    assert os.sep in shown
