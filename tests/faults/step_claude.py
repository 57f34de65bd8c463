#!/usr/bin/env python3
"""A stand-in for claude whose steps work once: what a step has done survives a kill, as a real session's tools do.

WORK_LOG gets the name of each step that has worked; beside it lie the sessions, and what each response was billed.
"""

import json
import os
import re
import sys
import time
import uuid
from pathlib import Path
from typing import Any

LOG = Path(os.environ["WORK_LOG"])
FILES = ["a.py", "b.py", "c.py", "d.py", "e.py", "f.py"]


def append(path: Path, text: str) -> None:
    """One whole line."""
    fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.write(fd, f"{text}\n".encode())
    os.close(fd)


def step_of(text: str, session: str) -> tuple[str, str]:
    """The step that a turn is for, and its session: a new one, or the one that is resumed."""
    found = re.match(r"STEP-(\S+)", text)
    if found is None:
        return (LOG.parent / f"{session}.step").read_text(), session
    name = found[1]
    session = str(uuid.uuid5(uuid.NAMESPACE_URL, name))
    (LOG.parent / f"{session}.step").write_text(name)
    return name, session


def main() -> None:
    if sys.argv[1:] == ["--version"]:
        print("2.1.330 (Claude Code)")
        return
    session = next((arg.partition("=")[2] for arg in sys.argv if arg.startswith("--resume=")), "")
    for line in sys.stdin:
        message = json.loads(line)
        if message["type"] != "user":
            continue
        name, session = step_of(message["message"]["content"], session)

        def emit(data: dict[str, Any], session: str = session) -> None:
            print(json.dumps({**data, "session_id": session}), flush=True)

        emit({"type": "system", "subtype": "init", "model": "fake"})
        response, usage = f"msg_{uuid.uuid4()}", {"input_tokens": 1000, "output_tokens": 1}
        start = {"type": "message_start", "message": {"id": response, "model": "fake", "usage": usage, "content": []}}
        append(LOG.with_name("billed.log"), "1000")
        emit({"type": "stream_event", "event": start, "parent_tool_use_id": None})
        try:
            os.close(os.open(LOG.parent / f"{session}.worked", os.O_CREAT | os.O_EXCL))
            append(LOG, name)
        except FileExistsError:
            pass
        time.sleep(0.05)
        end = {"type": "message_delta", "delta": {"stop_reason": "end_turn"}, "usage": {"output_tokens": 1}}
        emit({"type": "stream_event", "event": end, "parent_tool_use_id": None})
        output = {"structured_output": {"files": FILES}} if name == "plan" else {}
        base = {"type": "result", "subtype": "success", "is_error": False, "num_turns": 1, "result": f"{name} is done"}
        emit({**base, "terminal_reason": "completed", **output})


main()
