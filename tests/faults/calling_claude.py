#!/usr/bin/env python3
"""A claude that never ends, and a tool of it in a session of its own. Both call twenty times a second.

They call CALL_URL if that is set, otherwise what costs nothing at the API's address.
"""

import contextlib
import json
import os
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

SESSION = "0f0e0d0c-0000-4000-8000-000000000003"


def emit(data: dict[str, object]) -> None:
    print(json.dumps({**data, "session_id": SESSION}, separators=(",", ":")), flush=True)


def call_for_ever(who: str) -> None:
    url = os.environ.get("CALL_URL") or f"{os.environ['ANTHROPIC_BASE_URL']}/v1/models"
    while True:
        with contextlib.suppress(OSError):
            urllib.request.urlopen(f"{url}/{who}/{os.getpid()}", timeout=5).read()
        time.sleep(0.05)


def main() -> None:
    if "--version" in sys.argv:
        print("2.1.332 (Claude Code)")
        return
    if sys.argv[1:2] == ["tool"]:
        call_for_ever("tool")
    sys.stdin.readline()
    emit({"type": "system", "subtype": "init", "model": "m", "claude_code_version": "2.1.332", "slash_commands": []})
    message = {"id": f"msg_{os.getpid()}", "model": "m", "usage": {"input_tokens": 1000, "output_tokens": 1}}
    event = {"type": "message_start", "message": {**message, "content": []}}
    emit({"type": "stream_event", "event": event, "parent_tool_use_id": None})
    subprocess.Popen([sys.executable, str(Path(__file__)), "tool"], start_new_session=True)
    call_for_ever("claude")


if __name__ == "__main__":
    main()
