#!/usr/bin/env python3
"""A claude whose turn is a row of API requests, one after the other, until one is refused."""

import http.client
import json
import os
import sys
import urllib.parse

SESSION = "0f0e0d0c-0000-4000-8000-000000000002"


def emit(data: dict[str, object]) -> None:
    print(json.dumps({**data, "session_id": SESSION}, separators=(",", ":")), flush=True)


def main() -> None:
    if "--version" in sys.argv:
        print("2.1.332 (Claude Code)")
        return
    sys.stdin.readline()
    emit({"type": "system", "subtype": "init", "model": "m", "claude_code_version": "2.1.332", "slash_commands": []})
    base = urllib.parse.urlsplit(os.environ["ANTHROPIC_BASE_URL"])
    body = json.loads(os.environ["POST_BODY"])
    for _ in range(int(os.environ["POSTS"])):
        connection = http.client.HTTPConnection(base.hostname or "", base.port, timeout=60)
        connection.request("POST", f"{base.path}/v1/messages", json.dumps(body), {"content-type": "application/json"})
        answer = connection.getresponse()
        answer.read()
        connection.close()
        if answer.status != 200:
            break
    ended = {"subtype": "success", "is_error": False, "num_turns": 1, "result": "done", "usage": {}, "modelUsage": {}}
    emit({"type": "result", "total_cost_usd": 0, **ended})
    sys.stdin.read()


if __name__ == "__main__":
    main()
