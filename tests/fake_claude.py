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
from pathlib import Path

SESSION = "0f0e0d0c-0000-4000-8000-000000000001"


def emit(data: dict) -> None:
    sys.stdout.write(json.dumps({**data, "session_id": SESSION}, separators=(",", ":")) + "\n")
    sys.stdout.flush()


def start(number: int, tokens: int = 1000) -> None:
    usage = {"input_tokens": tokens, "output_tokens": 1}
    message = {"id": f"msg_{number}", "model": "fake-model", "usage": usage, "content": []}
    emit({"type": "stream_event", "event": {"type": "message_start", "message": message}, "parent_tool_use_id": None})


def end(number: int, output: int = 50) -> None:
    event = {"type": "message_delta", "delta": {"stop_reason": "end_turn"}, "usage": {"output_tokens": output}}
    emit({"type": "stream_event", "event": event, "parent_tool_use_id": None})


def result(responses: int, tokens: int = 1000, **extra: object) -> None:
    model = {"inputTokens": tokens * responses, "outputTokens": 50 * responses, "costUSD": 0.01 * responses}
    base = {"type": "result", "subtype": "success", "is_error": False, "num_turns": responses, "result": "done"}
    emit({**base, "terminal_reason": "completed", "modelUsage": {"fake-model": model}, **extra})


def note(name: str, text: str = "") -> None:
    (Path(os.environ["FAKE_DIR"]) / name).write_text(text)


def messages():
    for line in sys.stdin:
        yield json.loads(line)


def sleeper(*, ignore_term: bool) -> int:
    """A grandchild in a session of its own, as Claude's tools are."""
    code = "import signal,time\n" + ("signal.signal(15,signal.SIG_IGN)\n" if ignore_term else "") + "time.sleep(600)"
    return subprocess.Popen([sys.executable, "-c", code], start_new_session=True).pid


def main() -> None:
    scenario = os.environ.get("FAKE_CLAUDE", "ok")
    if sys.argv[1:] == ["--version"]:
        print(
            {"old": "1.0.3 (Claude Code)", "older": "2.1.100 (Claude Code)", "mute": "who knows"}.get(
                scenario, "2.1.330 (Claude Code)"
            )
        )
        return
    if scenario == "crash":
        sys.exit("something went wrong\nbadly")
    if scenario == "echo":
        note("argv.json", json.dumps(sys.argv[1:]))
        note("cwd.txt", str(Path.cwd()))
        note("env.json", json.dumps(dict(os.environ)))
    if scenario == "stubborn":
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            signal.signal(number, signal.SIG_IGN)
    turns = []
    for message in messages():
        if message["type"] == "control_request":
            if message["request"]["subtype"] == "interrupt" and scenario != "stubborn":
                result(0, is_error=True, subtype="error_during_execution", terminal_reason="aborted_streaming")
            continue
        if message["type"] == "control_response":
            note("control_response.json", json.dumps(message))
            end(1)
            result(1)
            continue
        turns.append(message["message"]["content"])
        note("turns.json", json.dumps(turns))
        emit({"type": "system", "subtype": "init", "model": "fake-model", "slash_commands": []})
        if scenario == "asks":
            start(1)
            emit({"type": "control_request", "request_id": "q1", "request": {"subtype": "can_use_tool"}})
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
        elif scenario == "no-result":
            start(1)
            sys.stderr.write("fatal: lost my way\n")
            sys.exit(0)
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
            result(len(turns), int(os.environ.get("FAKE_TOKENS", "1000")))


main()
