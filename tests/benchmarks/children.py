"""A simulated instance for the benchmarks: a small process that speaks the CLI's lines. Modes by environment."""

import json
import os
import sys
import time


def emit(data: dict[str, object]) -> None:
    sys.stdout.write(json.dumps(data, separators=(",", ":")) + "\n")
    sys.stdout.flush()


def response(number: int, tokens: int) -> None:
    usage = {"input_tokens": tokens, "output_tokens": 1}
    message = {"id": f"msg_{number}", "model": "m", "usage": usage}
    emit({"type": "stream_event", "event": {"type": "message_start", "message": message}, "parent_tool_use_id": None})
    for piece in range(20):
        delta = {"type": "text_delta", "text": f"piece {piece}"}
        emit({"type": "stream_event", "event": {"type": "content_block_delta", "index": 0, "delta": delta}})
    event = {"type": "message_delta", "delta": {"stop_reason": "end_turn"}, "usage": {"output_tokens": 10}}
    emit({"type": "stream_event", "event": event, "parent_tool_use_id": None})


def result(responses: int, tokens: int) -> None:
    usage = {"inputTokens": tokens * responses, "outputTokens": 10 * responses, "costUSD": 0.0}
    base = {"type": "result", "subtype": "success", "is_error": False, "num_turns": responses, "session_id": "s"}
    emit({**base, "modelUsage": {"m": usage}})


def cross() -> None:
    """Stream pieces, pass the budget, wait for the interrupt; tell on standard error how long it took (ms)."""
    sys.stdin.readline()  # the turn
    emit({"type": "system", "subtype": "init", "session_id": "s", "model": "m"})
    for number in range(int(os.environ["CROSS_AFTER"])):
        response(number, 1)
        time.sleep(0.01)
    begun = time.perf_counter()
    message = {"id": "msg_cross", "model": "m", "usage": {"input_tokens": 10**6}}
    emit({"type": "stream_event", "event": {"type": "message_start", "message": message}, "parent_tool_use_id": None})
    for line in sys.stdin:
        if '"interrupt"' in line:
            sys.stderr.write(f"{(time.perf_counter() - begun) * 1000}")
            break
    result(1, 10**6)


def main() -> None:
    if "CROSS_AFTER" in os.environ:
        cross()
        return
    responses, seconds = int(os.environ.get("RESPONSES", "5")), float(os.environ.get("SECONDS_EACH", "0.1"))
    for line in sys.stdin:
        message = json.loads(line)
        if message["type"] != "user":
            continue
        emit({"type": "system", "subtype": "init", "session_id": "s", "model": "m"})
        for number in range(responses):
            response(number, 100)
            time.sleep(seconds)
        result(responses, 100)


main()
