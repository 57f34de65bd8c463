"""One launched instance: sends its turns, asks for its count, reacts to what it says, and stops it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from enum import StrEnum
from typing import Protocol

from claude_orchestrator.events import (
    Assistant,
    ControlRequest,
    Event,
    Init,
    Result,
    Retry,
    SideCall,
    Task,
    UsageAnswer,
    User,
)
from claude_orchestrator.instance import InstanceStatus, State
from claude_orchestrator.launcher import Launcher, Running, control_request
from claude_orchestrator.plan import LaunchSpec
from claude_orchestrator.settings import Settings
from claude_orchestrator.stream import Batch, parse_lines
from token_budget.models import CommandBudgetInfo, Hold

ASK_EVERY_S = 0.25  # at most this often for one instance, on its events
ASK_SUBSCRIPTION_EVERY_S = 2.0  # with an answer that has rate limits, for which claude may have to ask elsewhere
BEAT_S = 2.0  # while subagents are at work
SLOW_BEAT_S = 10.0
LINGER_S = 120.0  # of silence, for a process whose work is done and whose input is closed
FOLLOW_UP_S = 2.0  # how long the CLI has to begin its own turn when a background subagent has ended
# tools that never call the API themselves: their results are no reason to ask for the CLI's count
LOCAL_TOOLS = frozenset(
    {"Bash", "Edit", "Glob", "Grep", "LS", "MultiEdit", "NotebookEdit", "Read", "TodoWrite", "Write"}
)
_ANSWER = b'{"type":"control_response"'


class Level(StrEnum):
    """How much a message matters."""

    INFO = "INFO"
    WARNING = "WARNING"
    ERROR = "ERROR"


class Log(Protocol):
    """Where an instance's raw lines are kept."""

    path: str

    def write(self, data: bytes) -> None:
        """Append what the instance has written."""

    def close(self) -> None:
        """No more lines come."""


class Host(Protocol):
    """What a session needs of the supervisor that it belongs to."""

    settings: Settings
    launcher: Launcher
    clock: Callable[[], float]
    say: Callable[[Level, str], None]
    on_change: Callable[[], None]
    open_log: Callable[[LaunchSpec], Log | None]
    knows_command: Callable[[str, str], bool]

    def record(self, status: InstanceStatus, hold: Hold) -> None:
        """Book what an instance has drawn since the last time, then judge it."""

    def over_budget(self, spec: LaunchSpec) -> CommandBudgetInfo | None:
        """In block mode, the budget of this instance whose limit is passed, if there is one."""


class Session:
    """One launched instance: sends its turns, asks for its count, and stops it."""

    def __init__(self, supervisor: Host, status: InstanceStatus, hold: Hold) -> None:
        self.supervisor = supervisor
        self.status = status
        self.hold = hold
        self._running: Running | None = None
        self._stop_grace_s: float | None = None
        self._asked_at = float("-inf")
        self._asking = False
        self._ask_every_s = ASK_EVERY_S
        self._timer: asyncio.TimerHandle | None = None
        self._follow_up: asyncio.TimerHandle | None = None
        self._linger: asyncio.TimerHandle | None = None
        self._idle: asyncio.TimerHandle | None = None

    async def run(self) -> None:
        """Launch, read to the end, judge."""
        status, supervisor = self.status, self.supervisor
        loop = asyncio.get_running_loop()
        try:
            running = await supervisor.launcher.launch(status.spec)
        except OSError as error:
            status.decide_end(State.FAILED, f"cannot be launched: {error.strerror or error}")
            status.finish(supervisor.clock(), None, "")
            return
        self._running = running
        timers = []
        if status.spec.timeout_s is not None:
            reason = f"timed out after {status.spec.timeout_s:g} s"
            timers.append(loop.call_later(status.spec.timeout_s, self.stop, State.TIMED_OUT, reason))
        beat = asyncio.ensure_future(self._beat())
        log = supervisor.open_log(status.spec)
        status.log = log.path if log else None
        try:
            if status.tally.resumed:
                self._ask()  # before the first turn: what earlier processes of this session had counted
            self._send_turn()
            if self._stop_grace_s is not None:  # a stop that came while the process was being started
                running.stop(self._stop_grace_s)
            self.stop_if_over()
            self._expect_output(None)
            async for batch in running.output():
                if log:
                    log.write(batch.raw)
                if self._linger is not None:
                    self._close_input()
                self._expect_output(batch)
                for event in parse_lines(batch.lines):
                    self._take(event)
                supervisor.on_change()
            exit = await running.wait()
        except BaseException:
            running.stop(0.0)
            await running.wait()
            raise
        finally:
            beat.cancel()
            for timer in (*timers, self._timer, self._follow_up, self._linger, self._idle):
                if timer is not None:
                    timer.cancel()
            if log:
                log.close()
        for _ in range(exit.dropped_lines):
            status.tally.lost_line()
        status.finish(supervisor.clock(), exit.code, exit.stderr)
        supervisor.record(status, self.hold)

    def _take(self, event: Event) -> None:
        status = self.status
        status.apply(event)
        self.supervisor.record(status, self.hold)
        match event:
            case Init():
                command = status.unknown_command
                if command is not None and not self.supervisor.knows_command(status.spec.cwd, command):
                    self.stop(State.FAILED, f"Unknown command: {command}")
            case Result():
                self._turn_ended()
            case UsageAnswer():
                self._asking = False
                self._ask_every_s = ASK_EVERY_S if event.rate_limits is None else ASK_SUBSCRIPTION_EVERY_S
                if status.ending and not status.turn_running:
                    self._close_input()
            case ControlRequest():
                self._refuse(event)
            case Task():
                self._ask_soon()
                if event.status is not None:
                    self._close_after_follow_up()
            case SideCall() | Retry():
                self._ask_soon()
            case Assistant() | User() if event.parent is not None:
                self._ask_soon()
            case Assistant(tools=tools) if not LOCAL_TOOLS.issuperset(tools):
                self._ask_soon()
            case _:
                pass

    # -- turns --

    def _send_turn(self) -> None:
        status = self.status
        if self._running is not None and not status.ending:
            self._running.send({"type": "user", "message": {"role": "user", "content": status.next_turn()}})

    def _turn_ended(self) -> None:
        status = self.status
        if status.turn_running:
            return
        if not status.ending and not status.all_sent and status.turn_failed is None:
            self._send_turn()
        elif status.ending or status.idle:
            self._close_input()

    def _close_after_follow_up(self) -> None:
        """A background subagent has ended: the CLI now tells the model, in a turn of its own, which we wait for."""
        if self.status.idle and self._follow_up is None:
            self._follow_up = asyncio.get_running_loop().call_later(FOLLOW_UP_S, self._turn_ended)

    def _close_input(self) -> None:
        """No further turn comes: the process leaves by itself, or is ended when it has been silent for long."""
        if self._running is None:
            return
        self._running.close_input()
        if self._linger is not None:
            self._linger.cancel()
        grace_s = self.supervisor.settings.grace_s
        self._linger = asyncio.get_running_loop().call_later(LINGER_S, self._running.stop, grace_s)

    def _refuse(self, request: ControlRequest) -> None:
        """Nobody is there to be asked: deny, so that the instance does not wait for ever."""
        denial = {"behavior": "deny", "message": "Permission denied: this instance runs unattended."}
        response = {"subtype": "success", "request_id": request.request_id, "response": denial}
        if request.subtype != "can_use_tool":
            response = {"subtype": "error", "request_id": request.request_id, "error": "not supported"}
        if self._running is not None:
            self._running.send({"type": "control_response", "response": response})

    # -- the CLI's own count --

    async def _beat(self) -> None:
        """Ask at a slow beat too: not every call has an event."""
        while True:
            await asyncio.sleep(BEAT_S if self.status.tally.unseen_calls else SLOW_BEAT_S)
            self._ask()

    def _ask_soon(self) -> None:
        """Ask for the CLI's count now, or as soon as it may be asked again."""
        loop = asyncio.get_running_loop()
        wait_s = self._asked_at + self._ask_every_s - loop.time()
        if wait_s <= 0 and not self._asking:
            self._ask()
        elif self._timer is None:
            self._timer = loop.call_later(max(wait_s, 0.0), self._ask)

    def _ask(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if self._running is not None:
            self._asked_at, self._asking = asyncio.get_running_loop().time(), True
            self._running.send(control_request("usage", "get_usage"))

    # -- stops --

    def _expect_output(self, batch: Batch | None) -> None:
        """Let the idle time begin anew, unless all that came are answers to our own questions."""
        idle_s = self.supervisor.settings.idle_timeout_s
        if idle_s is None or (batch is not None and all(line.startswith(_ANSWER) for line in batch.lines)):
            return
        if self._idle is not None:
            self._idle.cancel()
        reason = f"stalled: nothing printed for {idle_s:g} s"
        self._idle = asyncio.get_running_loop().call_later(idle_s, self.stop, State.TIMED_OUT, reason)

    def stop_if_over(self) -> None:
        """Stop the instance if a budget that it draws on is used up and there is something left to stop."""
        status = self.status
        budget = self.supervisor.over_budget(status.spec)
        done = status.idle and status.turns_done > 0
        if budget is None or status.ending or done:
            return
        self.supervisor.say(
            Level.ERROR, f"BLOCK MODE: Budget exceeded for instance {status.name}. Stopping. ({figures(budget)})"
        )
        self.stop(State.STOPPED, f"stopped by budget: {figures(budget)}")

    def stop(self, state: State, reason: str, grace_s: float | None = None) -> None:
        """End the instance by the ladder; the first reason stands, a later call can only hurry."""
        self.status.decide_end(state, reason)
        self._stop_grace_s = self.supervisor.settings.grace_s if grace_s is None else grace_s
        if self._running is not None:
            self._running.stop(self._stop_grace_s)
            self._ask()
        self.supervisor.on_change()


def figures(budget: CommandBudgetInfo) -> str:
    """A budget's name and figures in a reason."""
    return f"{budget.label} budget: used {budget.used:,}/{budget.limit:,} tokens"
