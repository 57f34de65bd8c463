"""A Launcher of scripted instances: one API response for each turn, no process."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Mapping
from typing import Any

from claude_orchestrator.claude.stream import LineBatch
from claude_orchestrator.config.launch_spec import LaunchSpec
from claude_orchestrator.launch.base import Capabilities, Exit, Running
from claude_orchestrator.launch.simulated import PassedCheck


class Script:
    """What scripted instances do on each message, and what they were told."""

    capabilities = Capabilities(simulated=True)

    def __init__(
        self,
        tokens: int = 1000,
        *,
        fail: OSError | None = None,
        silent: bool = False,
        answers: Mapping[str, object] | None = None,
        delay_s: float = 0.0,
    ) -> None:
        self.tokens = tokens
        self.answers = answers or {}  # by instance: a text, or structured output
        self.fail = fail
        self.silent = silent
        self.delay_s = delay_s  # of each response
        self.log: list[str] = []
        self.checks: list[tuple[int, str]] = []
        self.running = 0
        self.peak = 0

    async def launch(self, spec: LaunchSpec) -> ScriptedRunning:
        if self.fail:
            raise self.fail
        running = ScriptedRunning(self, spec)
        await asyncio.sleep(0)  # as a real launch does, let the others go on
        return running

    async def check(self, spec: LaunchSpec, command: str, folder: str) -> Running:
        self.log.append(f"check {spec.name} in {folder}")
        return ScriptedCheck(*(self.checks.pop(0) if self.checks else (0, "")))


class ScriptedCheck(PassedCheck):
    """A check that ends with a code and a text of the script's."""

    def __init__(self, code: int, text: str) -> None:
        self._code, self._text = code, text

    async def output(self) -> AsyncIterator[LineBatch]:
        yield LineBatch(self._text.encode(), b"")

    async def wait(self) -> Exit:
        return Exit(self._code)


class ScriptedRunning:
    """One response for each turn; a turn called `wait` does not end, and one called `mute` shows nothing."""

    def __init__(self, script: Script, spec: LaunchSpec) -> None:
        self.script, self.spec = script, spec
        self.queue: asyncio.Queue[bytes | None] = asyncio.Queue()
        self.turns = 0
        self.stopped: list[float] = []
        script.running += 1
        script.peak = max(script.peak, script.running)
        script.log.append(f"launch {spec.name}")

    def emit(self, data: dict[str, Any]) -> None:
        self.queue.put_nowait(json.dumps({**data, "session_id": "s"}, separators=(",", ":")).encode())

    def send(self, message: Mapping[str, Any]) -> None:
        if message["type"] == "control_request":
            return
        self.turns += 1
        text = message["message"]["content"]
        self.script.log.append(f"{self.spec.name}: {text}")
        if text == "mute":
            return
        if self.script.delay_s:
            asyncio.get_running_loop().call_later(self.script.delay_s, self.respond, text)
        else:
            self.respond(text)

    def respond(self, text: str) -> None:
        self.emit({"type": "system", "subtype": "init", "model": "m"})
        usage = {"input_tokens": self.script.tokens, "output_tokens": 1}
        start = {"type": "message_start", "message": {"id": f"{self.spec.name}{self.turns}", "usage": usage}}
        self.emit({"type": "stream_event", "event": start})
        if text == "wait":
            return
        delta = {"type": "message_delta", "delta": {"stop_reason": "end_turn"}, "usage": {"output_tokens": 1}}
        self.emit({"type": "stream_event", "event": delta})
        if not self.script.silent:
            self.result(is_error=text == "broken")

    def result(self, *, is_error: bool) -> None:
        usage = {"inputTokens": self.script.tokens * self.turns, "outputTokens": self.turns}
        subtype = "error_during_execution" if is_error else "success"
        base = {"type": "result", "subtype": subtype, "is_error": is_error, "num_turns": 1}
        self.emit({**base, "modelUsage": {"m": usage}, **({} if is_error else self.answer())})

    def answer(self) -> dict[str, object]:
        answer = self.script.answers.get(self.spec.name, f"{self.spec.name} answers")
        return {"result": answer} if isinstance(answer, str) else {"result": "{}", "structured_output": answer}

    def close_input(self) -> None:
        self.queue.put_nowait(None)

    def stop(self, grace_s: float) -> None:
        self.stopped.append(grace_s)
        self.script.log.append(f"stop {self.spec.name}")
        self.queue.put_nowait(None)

    async def output(self) -> AsyncIterator[LineBatch]:
        while (line := await self.queue.get()) is not None:
            yield LineBatch(line + b"\n", line + b"\n")
        self.script.running -= 1

    async def wait(self) -> Exit:
        return Exit(0)
