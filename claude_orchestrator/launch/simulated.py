"""A launcher of simulated instances: they print lines in the CLI's real shapes, without a process, an API or a cost.

What an instance spends comes from its `rehearsal` settings, or else from its estimate. It is drawn with a seed, so that
a rehearsal can be repeated.
"""

from __future__ import annotations

import asyncio
import json
import random
import uuid
from collections.abc import AsyncIterator, Callable, Mapping
from dataclasses import dataclass
from typing import Any

from claude_orchestrator.claude.stream import LineBatch
from claude_orchestrator.config.approvals import ASK
from claude_orchestrator.config.launch_spec import LaunchSpec
from claude_orchestrator.launch.base import Capabilities, Exit

MODEL = "rehearsal"
DEFAULT_TURNS = 4
MAX_NAMED_CHARS = 100  # of the prompt, in a simulated answer
DEFAULT_SECONDS = 3.0
PIECES = 5  # of streamed text for each response
SAMPLE_COMMAND = "npm test"
TOOL_SHARE = 0.4  # of the time of a response and the tool before it
TOOLS = ("Read", "Grep", "Bash", "Edit")
# the API's names, and those of the CLI's own count
NAMES = {
    "input_tokens": "inputTokens",
    "output_tokens": "outputTokens",
    "cache_creation_input_tokens": "cacheCreationInputTokens",
    "cache_read_input_tokens": "cacheReadInputTokens",
}


@dataclass(frozen=True, slots=True)
class Response:
    """What a simulated API should answer: tokens of each kind, within so many seconds."""

    id: str
    input_tokens: int
    cache_write_tokens: int
    cache_read_tokens: int
    output_tokens: int
    seconds: float

    async def events(self) -> AsyncIterator[dict[str, Any]]:
        """Yield the events of its stream, spread over its seconds."""
        usage = {
            "input_tokens": self.input_tokens,
            "cache_creation_input_tokens": self.cache_write_tokens,
            "cache_read_input_tokens": self.cache_read_tokens,
            "output_tokens": min(1, self.output_tokens),
        }
        message = {"id": self.id, "role": "assistant", "model": MODEL, "stop_reason": None, "usage": usage}
        yield {"type": "message_start", "message": {**message, "content": []}}
        for piece in range(PIECES):
            await asyncio.sleep(self.seconds / PIECES)
            delta = {"type": "text_delta", "text": f"word {piece} "}
            yield {"type": "content_block_delta", "index": 0, "delta": delta}
        yield {"type": "content_block_stop", "index": 0}
        final = {**usage, "output_tokens": self.output_tokens}
        yield {"type": "message_delta", "delta": {"stop_reason": "end_turn"}, "usage": final}


class Refused(Exception):
    """The simulated API, or a gateway in front of it, refuses the request."""


Ask = Callable[[str, Response], AsyncIterator[dict[str, Any]]]


class SimulatedLauncher:
    """Starts simulated instances. With `ask` they request their responses from the API address in their environment."""

    capabilities = Capabilities(simulated=True)

    def __init__(self, ask: Ask | None = None) -> None:
        self.ask = ask

    async def launch(self, spec: LaunchSpec) -> SimulatedRunning:
        """Start one. This never fails."""
        return SimulatedRunning(spec, self.ask)

    async def check(self, spec: LaunchSpec, command: str, folder: str) -> PassedCheck:
        """Pass the check, without running its command."""
        return PassedCheck()


class PassedCheck:
    """A simulated check: it passes at once."""

    async def output(self) -> AsyncIterator[LineBatch]:
        """Yield an empty batch."""
        yield LineBatch(b"", b"")

    def send(self, message: Mapping[str, Any]) -> None:
        """Do nothing."""

    def close_input(self) -> None:
        """Do nothing."""

    def stop(self, grace_s: float) -> None:
        """Do nothing."""

    async def wait(self) -> Exit:
        """It has passed."""
        return Exit(0)


class SimulatedRunning:
    """A simulated instance. It spends what its settings name, divided over API responses and over time."""

    def __init__(self, spec: LaunchSpec, ask: Ask | None = None) -> None:
        self._ask = ask
        self._url = dict(spec.env).get("ANTHROPIC_BASE_URL", "")
        settings = spec.rehearsal
        seed = settings.seed if settings.seed is not None else f"{spec.name}/{spec.command}"
        self._random = random.Random(seed)
        self._session_id = spec.session_id or str(uuid.UUID(int=self._random.getrandbits(128), version=4))
        self._responses = settings.turns or DEFAULT_TURNS
        # without a figure of its own an instance uses about three quarters of its estimate
        self._tokens = settings.tokens or max(1, round(spec.estimate.tokens * self._random.uniform(0.6, 0.9)))
        self._seconds = settings.seconds or DEFAULT_SECONDS
        self._final_turn = spec.turns[-1]
        self._schema = spec.json_schema
        self._usage = dict.fromkeys(NAMES, 0)
        self._lines: asyncio.Queue[bytes | None] = asyncio.Queue()
        self._inbox: asyncio.Queue[str | None] = asyncio.Queue()
        self._turn: asyncio.Task[None] | None = None
        self._task = asyncio.ensure_future(self._run_turns())
        self._task.add_done_callback(self._end)  # a task that is cancelled before its first step never runs
        self._code = 0
        self._stopped = False
        self._asks = spec.approvals.default == ASK
        self._answered = asyncio.Event()

    # -- Running --

    async def output(self) -> AsyncIterator[LineBatch]:
        """Yield the lines as they are printed."""
        while (line := await self._lines.get()) is not None:
            yield LineBatch(line + b"\n", line + b"\n")

    def send(self, message: Mapping[str, Any]) -> None:
        """Accept a turn, a `get_usage` request or an `interrupt` request."""
        if message["type"] == "user":
            self._inbox.put_nowait(message["message"]["content"])
        elif message["type"] == "control_response":
            self._answered.set()
        elif message["type"] == "control_request":
            response: dict[str, Any] = {"subtype": "success", "request_id": message["request_id"]}
            if message["request"]["subtype"] == "get_usage":
                response["response"] = {"session": {"total_cost_usd": 0.0, "model_usage": self._model_usage()}}
            elif self._turn is not None:
                self._turn.cancel()
            self._emit({"type": "control_response", "response": response})

    def close_input(self) -> None:
        """End after the turns that were sent."""
        self._inbox.put_nowait(None)

    def stop(self, grace_s: float) -> None:
        """Interrupt the turn in progress, then end; with no grace, end at once."""
        self._stopped = True  # also a turn that was sent and has not begun
        if grace_s <= 0:
            self._task.cancel()
        elif self._turn is not None:
            self._turn.cancel()
        self.close_input()

    async def wait(self) -> Exit:
        """Wait until it has ended."""
        await asyncio.wait([self._task])
        return Exit(-9 if self._task.cancelled() else self._code)

    # -- the simulation --

    async def _run_turns(self) -> None:
        while (text := await self._inbox.get()) is not None and not self._stopped:
            self._emit({"type": "system", "subtype": "init", "model": MODEL})
            self._turn = asyncio.ensure_future(self._work(text))
            await asyncio.wait([self._turn])
            refused = None if self._turn.cancelled() else self._turn.exception()
            self._result(text, self._turn.cancelled(), refused)
            self._turn = None

    def _end(self, task: asyncio.Task[None]) -> None:
        """Nothing more is printed."""
        if self._turn is not None:
            self._turn.cancel()
        self._lines.put_nowait(None)

    async def _work(self, text: str) -> None:
        """Do one turn. Only the last one spends tokens, so that the sum is what the settings name."""
        if text != self._final_turn:
            return
        shares = [self._random.uniform(0.5, 1.5) for _ in range(self._responses)]
        left, tool_id = self._tokens, ""
        for number, share in enumerate(shares):
            tokens = left if number == self._responses - 1 else min(left, round(self._tokens * share / sum(shares)))
            left -= tokens
            seconds = self._seconds * share / sum(shares)
            if tool_id:
                await self._ask_person(tool_id)
                await asyncio.sleep(seconds * TOOL_SHARE)
                seconds -= seconds * TOOL_SHARE
                block = {"type": "tool_result", "tool_use_id": tool_id, "content": "Rehearsed."}
                self._emit(
                    {"type": "user", "message": {"role": "user", "content": [block]}, "parent_tool_use_id": None}
                )
            tool_id = await self._respond(tokens, seconds, last=number == self._responses - 1)

    async def _ask_person(self, tool_id: str) -> None:
        """With approvals, the first tool of an instance needs one."""
        if not self._asks:
            return
        self._asks = False
        request = {"subtype": "can_use_tool", "tool_name": "Bash", "input": {"command": SAMPLE_COMMAND}}
        asked = {"type": "control_request", "request_id": tool_id, "request": {**request, "tool_use_id": tool_id}}
        self._emit(asked)
        await self._answered.wait()

    async def _respond(self, tokens: int, seconds: float, *, last: bool) -> str:
        """Take one API response of so many tokens: mostly cache reads, as in real sessions.

        Returns the id of the tool that it calls; empty if it calls none.
        """
        output, written, read = tokens * 10 // 100, tokens * 15 // 100, tokens * 70 // 100
        message_id = f"msg_rehearsal_{self._random.getrandbits(64):016x}"
        response = Response(message_id, tokens - output - written - read, written, read, output, seconds)
        block: dict[str, Any] = {"type": "text", "text": "Rehearsed."}
        tool_id = ""
        if not last:
            tool_id = f"toolu_{self._random.getrandbits(64):016x}"
            block = {"type": "tool_use", "id": tool_id, "name": self._random.choice(TOOLS), "input": {}}
        message: dict[str, Any] = {}
        async for event in response.events() if self._ask is None else self._ask(self._url, response):
            match event["type"]:
                case "message_start":
                    message = event["message"]
                case "content_block_stop":
                    answer = {"type": "assistant", "message": {**message, "content": [block]}}
                    self._emit({**answer, "parent_tool_use_id": None})
                case "message_delta":
                    event["delta"]["stop_reason"] = "end_turn" if last else "tool_use"
                    for key in self._usage:
                        self._usage[key] += event["usage"][key]
            self._emit({"type": "stream_event", "event": event, "parent_tool_use_id": None})
        return tool_id

    def _result(self, text: str, interrupted: bool, refused: BaseException | None) -> None:
        is_final, failed = text == self._final_turn, interrupted or refused is not None
        output = self._output() if is_final and not failed else {}
        answer = json.dumps(output["structured_output"]) if output else _answer(text)
        self._code = int(interrupted or refused is not None)
        self._emit(
            {
                "type": "result",
                "subtype": "error_during_execution" if interrupted else "success",
                "is_error": interrupted or refused is not None,
                "num_turns": self._responses if is_final else 0,
                "result": "" if interrupted else f"API Error: {refused}" if refused else answer,
                "terminal_reason": "aborted_streaming" if interrupted else "completed",
                "total_cost_usd": 0.0,
                "modelUsage": self._model_usage(),
                **output,
            }
        )

    def _output(self) -> dict[str, Any]:
        """The structured output that the instance is asked for, if it is."""
        if self._schema is None:
            return {}
        from claude_orchestrator.launch.sample_output import sample_of

        return {"structured_output": sample_of(self._schema)}

    def _model_usage(self) -> dict[str, Any]:
        return {MODEL: {NAMES[key]: count for key, count in self._usage.items()} | {"costUSD": 0.0}}

    def _emit(self, data: dict[str, Any]) -> None:
        line = json.dumps({**data, "session_id": self._session_id}, separators=(",", ":"))
        self._lines.put_nowait(line.encode())


def _answer(prompt: str) -> str:
    """A short answer that names its prompt; none for a command that is only about the session."""
    line = prompt.strip().partition("\n")[0]
    return "" if line in ("/clear", "/compact") else f"Rehearsed: {line[:MAX_NAMED_CHARS]}"
