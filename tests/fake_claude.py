#!/usr/bin/env python3
"""A stand-in for the claude executable, for faults that the real one does not show on demand.

FAKE_CLAUDE names the scenario, FAKE_DIR a folder for what it wants to tell the test.
"""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

SESSION = "0f0e0d0c-0000-4000-8000-000000000001"


def emit(data: dict[str, Any]) -> None:
    sys.stdout.write(json.dumps({**data, "session_id": SESSION}, separators=(",", ":")) + "\n")
    sys.stdout.flush()


def start(number: int, tokens: int = 1000) -> None:
    usage = {"input_tokens": tokens, "output_tokens": 1}
    message = {"id": f"msg_{number}", "model": "fake-model", "usage": usage, "content": []}
    emit({"type": "stream_event", "event": {"type": "message_start", "message": message}, "parent_tool_use_id": None})


def end(number: int, output: int = 50) -> None:
    event = {"type": "message_delta", "delta": {"stop_reason": "end_turn"}, "usage": {"output_tokens": output}}
    emit({"type": "stream_event", "event": event, "parent_tool_use_id": None})


class Turns:
    """How many results there were: an interrupt between turns has none."""

    ended = 0


def result(responses: int, tokens: int = 1000, **extra: object) -> None:
    model = {"inputTokens": tokens * responses, "outputTokens": 50 * responses, "costUSD": 0.01 * responses}
    base = {"type": "result", "subtype": "success", "is_error": False, "num_turns": responses, "result": "done"}
    Turns.ended += 1
    emit({**base, "terminal_reason": "completed", "modelUsage": {"fake-model": model}, **extra})


def note(name: str, text: str = "") -> None:
    (Path(os.environ["FAKE_DIR"]) / name).write_text(text)


def messages() -> Iterator[dict[str, Any]]:
    for line in sys.stdin:
        yield json.loads(line)


def sleeper(*, ignore_term: bool) -> int:
    """A grandchild in a session of its own, as Claude's tools are."""
    code = "import signal,time\n" + ("signal.signal(15,signal.SIG_IGN)\n" if ignore_term else "") + "time.sleep(600)"
    return subprocess.Popen([sys.executable, "-c", code], start_new_session=True).pid


def sleeper_without_mark() -> int:
    """One with an empty environment, that holds our standard output open; FAKE_SLEEP tells it from others."""
    seconds = os.environ.get("FAKE_SLEEP", "600")
    return subprocess.Popen(["/bin/sleep", seconds], env={}, start_new_session=True).pid


def sleeper_of_nobody() -> int:
    """A daemon: forked twice, in a session of its own, its parent gone."""
    code = """
import os, signal, sys, time
if os.fork(): os._exit(0)
os.setsid()
if os.fork(): os._exit(0)
signal.signal(15, signal.SIG_IGN)
print(os.getpid(), flush=True)
os.dup2(os.open("/dev/null", os.O_RDWR), 1)
time.sleep(600)
"""
    done = subprocess.run([sys.executable, "-c", code], stdout=subprocess.PIPE, check=True)
    return int(done.stdout)


def main() -> None:
    scenario = os.environ.get("FAKE_CLAUDE", "ok")
    if scenario.endswith("-once"):
        scenario = "ok" if any(arg.startswith("--resume") for arg in sys.argv) else scenario.removesuffix("-once")
    if sys.argv[1:] == ["--version"]:
        print(
            {"old": "1.0.3 (Claude Code)", "older": "2.1.100 (Claude Code)", "mute": "who knows"}.get(
                scenario, "2.1.330 (Claude Code)"
            )
        )
        return
    if scenario == "tells-all":
        sys.exit(json.dumps(dict(os.environ)))
    if scenario == "crash":
        sys.exit("something went wrong\nbadly")
    if scenario == "echo":
        note("argv.json", json.dumps(sys.argv[1:]))
        note("cwd.txt", str(Path.cwd()))
        note("env.json", json.dumps(dict(os.environ)))
    if scenario == "crash-after":
        while not (Path(os.environ["FAKE_DIR"]) / "pids.json").exists():
            time.sleep(0.01)
        sys.exit("gave up")
    if scenario in ("stubborn", "hydra"):
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            signal.signal(number, signal.SIG_IGN)
    if scenario == "flaky":  # fails as FAKE_FAIL says as often as FAKE_FAILS says, then works
        failed = len(list(Path(os.environ["FAKE_DIR"]).glob("failed-*")))
        if failed < int(os.environ["FAKE_FAILS"]):
            note(f"failed-{failed}")
            scenario = os.environ["FAKE_FAIL"]
        else:
            scenario = "ok"
    turns: list[str] = []
    for message in messages():
        if message["type"] == "control_request":
            interrupted = message["request"]["subtype"] == "interrupt" and scenario not in ("stubborn", "hydra")
            if message["request"]["subtype"] == "initialize":
                response = {"subtype": "error", "request_id": message["request_id"], "error": "not supported"}
                emit({"type": "control_response", "response": response})
            if interrupted and len(turns) > Turns.ended:
                result(0, is_error=True, subtype="error_during_execution", terminal_reason="aborted_streaming")
            continue
        if message["type"] == "control_response":
            note("control_response.json", json.dumps(message))
            end(1)
            result(1)
            continue
        turns.append(message["message"]["content"])
        note("turns.json", json.dumps(turns))
        note(f"turns-{os.getpid()}.json", json.dumps([sys.argv[1:], turns]))
        emit({"type": "system", "subtype": "init", "model": "fake-model", "slash_commands": []})
        if scenario == "hangs-at-2" and len(turns) == 2:
            start(2)
            note("pids.json", json.dumps([os.getpid()]))
            continue
        if scenario == "asks":
            start(1)
            emit({"type": "control_request", "request_id": "q1", "request": {"subtype": "can_use_tool"}})
        elif scenario == "hydra":
            sleepers = [sleeper(ignore_term=True), sleeper_without_mark(), sleeper_of_nobody()]
            note("pids.json", json.dumps([os.getpid(), *sleepers]))
            start(1, tokens=2000)
            while True:
                time.sleep(60)
        elif scenario in ("hang", "stubborn"):
            start(1)
            note("pids.json", json.dumps([os.getpid(), sleeper(ignore_term=True)]))
            if scenario == "stubborn":
                while True:
                    time.sleep(60)
        elif scenario == "leaves-a-child":
            # holds our pipe open too: it inherits standard output
            note("pids.json", json.dumps([os.getpid(), sleeper(ignore_term=False)]))
            start(1)
            end(1)
            result(1)
        elif scenario == "lingers":
            for number in (signal.SIGINT, signal.SIGTERM):
                signal.signal(number, signal.SIG_IGN)
            start(1)
            end(1)
            result(1)
            note("pids.json", json.dumps([os.getpid()]))
            time.sleep(600)
        elif scenario == "closes-its-output":
            start(1)
            note("pids.json", json.dumps([os.getpid()]))
            os.close(1)
            time.sleep(600)
        elif scenario == "never-speaks":
            time.sleep(600)
        elif scenario == "half-result":
            start(1)
            end(1)
            sys.stdout.write('{"type":"result","subtype":"success","is_error":false,"modelUs')
            sys.exit(0)
        elif scenario == "no-result":
            start(1)
            sys.stderr.write("fatal: lost my way\n")
            sys.exit(0)
        elif scenario in ("rate_limit", "overloaded", "server_error", "authentication_failed", "invalid_request"):
            start(1)
            end(1)
            text = "API Error: " + scenario
            synthetic = {"id": "s", "model": "<synthetic>", "content": [{"type": "text", "text": text}]}
            emit({"type": "assistant", "message": synthetic, "error": scenario})
            result(1, is_error=True, result=text)
        elif scenario == "garbage":
            sys.stdout.write('not json\n{"half": \n[1,2]\n42\n"text"\n' + "[" * 20000 + "\n\n")
            sys.stdout.buffer.write(b"\xff\xfe\x00\x85\n" + b'{"type":"x","y":"' + b"z" * 2_000_000 + b'"}\r\n')
            start(1)
            end(1)
            result(1)
        elif scenario == "escapes":
            emit({"type": "system", "subtype": "init", "model": "\x1b]0;owned\x07\x1b[2J", "slash_commands": []})
            result(0, is_error=True, subtype="error", result="\x1b[31mred\x1b[0m\x07")
        else:
            start(len(turns), int(os.environ.get("FAKE_TOKENS", "1000")))
            end(len(turns))
            time.sleep(float(os.environ.get("FAKE_SECONDS", "0")))
            denied = [{"tool_name": "Bash"}] * int(os.environ.get("FAKE_DENIED", "0"))
            result(len(turns), int(os.environ.get("FAKE_TOKENS", "1000")), permission_denials=denied)
            if scenario == "leaves-after-1":
                break


main()
