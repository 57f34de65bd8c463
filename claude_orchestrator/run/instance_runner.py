"""One launched instance: sends its turns, asks for its count, reacts to what it says, and stops it."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import replace
from enum import StrEnum
from typing import Any, Protocol

from claude_orchestrator.claude.events import (
    ApiUsage,
    Assistant,
    ControlRequest,
    Event,
    Init,
    Price,
    Result,
    Retry,
    SideCall,
    Task,
    UsageAnswer,
    User,
)
from claude_orchestrator.claude.stream import Batch, parse
from claude_orchestrator.config.plan import LaunchSpec
from claude_orchestrator.config.settings import Settings
from claude_orchestrator.launch.local import Launcher, Running, control_request
from claude_orchestrator.run.state import InstanceStatus, State, last_words
from token_budget.models import Action, Budget, Decision, Hold

ASK_EVERY_S = 0.25  # at most this often for one instance, on its events
ASK_SUBSCRIPTION_EVERY_S = 2.0  # with an answer that has rate limits, for which claude may have to ask elsewhere
BEAT_S = 2.0  # while subagents are at work
SLOW_BEAT_S = 10.0
LINGER_S = 30.0  # of silence, for a process whose work is done and whose input is closed
LEAVE_S = 5.0  # for a process that has closed its output
BACKGROUND_S = 600.0  # how long a finished turn waits for what works in the background
FOLLOW_UP_S = 2.0  # how long the CLI has to begin its own turn when a background subagent has ended
# tools that never call the API themselves: their results are no reason to ask for the CLI's count
LOCAL_TOOLS = frozenset(
    {"Bash", "Edit", "Glob", "Grep", "LS", "MultiEdit", "NotebookEdit", "Read", "TodoWrite", "Write"}
)
LATE_S = 1.0
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


class Records(Protocol):
    """Where every launch, count, decision and ending is written down."""

    def write(self, kind: str, /, **fields: object) -> None:
        """Append a record."""

    async def sync(self) -> None:
        """Wait until what was written outlives the machine."""


class Unrecorded:
    """Records that nobody keeps."""

    def write(self, kind: str, /, **fields: object) -> None:
        """Forget it."""

    async def sync(self) -> None:
        """Nothing to wait for."""


class Accounts(Protocol):
    """The books of all runs."""

    async def admit(self, status: InstanceStatus, hold: Hold) -> Decision:
        """Hold it on what all runs share too."""

    def note(self, status: InstanceStatus) -> None:
        """It was launched, or more was counted."""

    async def sync(self) -> None:
        """Wait until what was noted outlives the machine."""

    def ended(self, status: InstanceStatus) -> None:
        """An attempt has ended."""

    def released(self, hold: Hold) -> None:
        """A hold is over."""

    def adjusted(self, kind: str, text: str, instance: str | None = None) -> None:
        """A hold was changed, with the reason."""


class Unaccounted:
    """Books that nobody keeps."""

    async def admit(self, status: InstanceStatus, hold: Hold) -> Decision:
        """Nothing is shared with others."""
        return Decision(Action.ALLOW, hold=hold)

    def note(self, status: InstanceStatus) -> None:
        """Forget it."""

    async def sync(self) -> None:
        """Nothing to wait for."""

    def ended(self, status: InstanceStatus) -> None:
        """Forget it."""

    def released(self, hold: Hold) -> None:
        """Forget it."""

    def adjusted(self, kind: str, text: str, instance: str | None = None) -> None:
        """Forget it."""


class MeterPlace(Protocol):
    """One attempt's place at the API meter; `waiting` is how many of its requests wait for a budget."""

    waiting: int

    @property
    def env(self) -> tuple[tuple[str, str], ...]:
        """The variables that lead through it."""


class ApiMeter(Protocol):
    """Counts an instance's API calls as they pass, and refuses what its budgets cannot pay for."""

    def open(
        self,
        budgets: tuple[Budget, ...],
        environ: Mapping[str, str],
        *,
        on_request: Callable[[], None],
        on_usage: Callable[[ApiUsage, Hold | None], None],
        on_refused: Callable[[Budget], None],
        reserve: Callable[[Hold], Awaitable[bool]],
        on_settled: Callable[[Hold], None],
        price: Price | None,
    ) -> Any:
        """A place for one attempt, which is a MeterPlace; `environ` is the instance's own: the API's address is in it
        where it has one.

        Budgets in money apply to requests whose model `price` knows.

        `reserve` holds a request on what all runs share too, unless there is no room; `on_settled`: it is over.
        """

    async def close(self, place: Any) -> None:
        """The attempt has ended."""

    def look_again(self) -> None:
        """Budgets have more room: let those go who wait for it."""


class Host(Protocol):
    """What a session needs of the supervisor that it belongs to."""

    settings: Settings
    launcher: Launcher
    clock: Callable[[], float]
    say: Callable[[Level, str], None]
    on_change: Callable[[], None]
    open_log: Callable[[LaunchSpec, int], Log | None]
    knows_command: Callable[[str, str], bool]
    journal: Records
    accounts: Accounts
    hide: Callable[[str], str]
    meter: ApiMeter | None
    price: Price | None

    def rate_limits_told(self, limits: Mapping[str, Any]) -> None:
        """The CLI has said how much of a subscription's limits is used."""

    def max_usd_of(self, spec: LaunchSpec, hold: Hold) -> str | None:
        """What an instance may spend at most, as text, where its budgets in money are enforced."""

    def budgets_of(self, spec: LaunchSpec) -> tuple[Budget, ...]:
        """The budgets that this instance draws on."""

    def release(self, hold: Hold) -> None:
        """Give back what is left of a hold."""

    def record(self, status: InstanceStatus, hold: Hold | None) -> None:
        """Book what an instance has drawn since the last time, then judge it."""

    def over_budget(self, spec: LaunchSpec) -> Budget | None:
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
        self._refusal: asyncio.TimerHandle | None = None
        self._place: MeterPlace | None = None

    async def run(self) -> None:
        """Launch, read to the end, judge."""
        status, supervisor = self.status, self.supervisor
        loop = asyncio.get_running_loop()
        running = self._running = await self._launch()
        if running is None:
            status.finish(supervisor.clock(), None, "")
            return
        timers: list[asyncio.TimerHandle] = []
        if status.spec.timeout_s is not None:
            reason = f"timed out after {status.spec.timeout_s:g} s"
            timers.append(loop.call_later(status.spec.timeout_s, self.stop, State.TIMED_OUT, reason))
        beat = asyncio.ensure_future(self._beat())
        log = supervisor.open_log(status.spec, status.attempts)
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
                for event in parse(batch.lines):
                    self._take(event)
                supervisor.on_change()
            timers.append(loop.call_later(LEAVE_S, running.stop, supervisor.settings.grace_s))
            exit = await running.wait()
            await self._leave_meter()
        except BaseException:
            running.stop(0.0)
            await running.wait()
            raise
        finally:
            beat.cancel()
            for timer in (*timers, self._timer, self._follow_up, self._linger, self._idle, self._refusal):
                if timer is not None:
                    timer.cancel()
            if log:
                log.close()
        for _ in range(exit.dropped_lines):
            status.tally.lost_line()
        status.finish(supervisor.clock(), exit.code, last_words(supervisor.hide(exit.stderr)))
        status.reason = supervisor.hide(status.reason)
        if supervisor.price is not None:
            status.price(supervisor.price, None)
        supervisor.record(status, self.hold)

    async def _launch(self) -> Running | None:
        """Start the process; None where it cannot be started, or its end is decided already."""
        if self.status.ending:
            return None
        try:
            return await self.supervisor.launcher.launch(self._through_meter(self._fenced(self.status.spec)))
        except (OSError, ValueError) as error:  # ValueError: an argument that no system takes
            await self._leave_meter()
            why = (error.strerror if isinstance(error, OSError) else None) or error
            self.status.launch_errno = error.errno if isinstance(error, OSError) else None
            self.status.decide_end(State.FAILED, f"cannot be launched: {why}")
            return None

    def _take(self, event: Event) -> None:
        status, journal = self.status, self.supervisor.journal
        session_id, turns, metered = status.session_id, status.turns_completed, status.tally.metered
        status.apply(event)
        self.supervisor.record(status, self.hold)
        if metered and not status.tally.metered:
            said = f"{status.name} reaches the API past our meter (does its settings.json name an address?)"
            self.supervisor.say(Level.WARNING, f"{said}: it is counted from its stream, without a hard cap")
        if status.session_id != session_id:
            journal.write("session", instance=status.name, session=status.session_id)
        if status.turns_completed != turns:
            journal.write("turn", instance=status.name, done=status.turns_completed)
        match event:
            case Init():
                self._ask_for_limits()
                command = status.unknown_command
                if command is not None and not self.supervisor.knows_command(status.spec.cwd, command):
                    self.stop(State.FAILED, f"Unknown command: {command}")
            case Result():
                self._ask_for_limits()
                self._turn_ended()
            case UsageAnswer():
                self._asking = False
                self._ask_every_s = ASK_EVERY_S if event.rate_limits is None else ASK_SUBSCRIPTION_EVERY_S
                if event.rate_limits is not None:
                    self.supervisor.rate_limits_told(event.rate_limits)
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

    def _fenced(self, spec: LaunchSpec) -> LaunchSpec:
        """The same instance, with Claude's own limit in money as a second fence."""
        max_usd = self.supervisor.max_usd_of(spec, self.hold)
        return spec if max_usd is None else replace(spec, argv=(*spec.argv, f"--max-budget-usd={max_usd}"))

    # -- the API meter --

    def _through_meter(self, spec: LaunchSpec) -> LaunchSpec:
        """The same instance, with the API's address being the meter's."""
        meter = self.supervisor.meter
        if meter is None:
            return spec
        self._place = meter.open(
            self.supervisor.budgets_of(spec),
            dict(spec.env),
            on_request=self._first_request,
            on_usage=self._metered,
            on_refused=self._refused,
            reserve=self._reserve,
            on_settled=self.supervisor.accounts.released,
            price=self.supervisor.price,
        )
        self.status.tally.metered = True
        return replace(spec, env=(*spec.env, *self._place.env))

    def _first_request(self) -> None:
        """From now on each request has a hold of its own."""
        if self.hold.remaining and self.supervisor.meter is not None:
            self.supervisor.release(self.hold)
            self.supervisor.meter.look_again()

    async def _reserve(self, hold: Hold) -> bool:
        decision = await self.supervisor.accounts.admit(self.status, hold)
        return decision.action in (Action.ALLOW, Action.WARN)

    async def _leave_meter(self) -> None:
        if self._place is not None and self.supervisor.meter is not None:
            self.supervisor.release(self.hold)
            await self.supervisor.meter.close(self._place)

    def _metered(self, usage: ApiUsage, hold: Hold | None) -> None:
        self.status.apply(usage)
        if self.supervisor.price is not None:
            self.status.price(self.supervisor.price, usage)
        self.supervisor.record(self.status, hold)
        self.supervisor.on_change()

    def _refused(self, budget: Budget) -> None:
        """A request was not sent, for its budget is spent: claude ends by itself, or is ended after the grace."""
        reason = f"stopped by budget: {figures(budget)}"
        if self.status.decide_end(State.STOPPED, reason):
            self.supervisor.journal.write("stop", instance=self.status.name, state=State.STOPPED, reason=reason)
            said = f"BLOCK MODE: Budget exceeded for instance {self.status.name}. Stopping. ({figures(budget)})"
            self.supervisor.say(Level.ERROR, said)
            grace_s = self.supervisor.settings.grace_s
            self._refusal = asyncio.get_running_loop().call_later(grace_s, self.stop, State.STOPPED, reason)

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
        elif self._follow_up is None:  # something works in the background: a server would do so for ever
            self._follow_up = asyncio.get_running_loop().call_later(BACKGROUND_S, self._close_input)

    def _close_after_follow_up(self) -> None:
        """A background subagent has ended: the CLI now tells the model, in a turn of its own, which we wait for."""
        if self.status.idle:
            if self._follow_up is not None:
                self._follow_up.cancel()
            self._follow_up = asyncio.get_running_loop().call_later(FOLLOW_UP_S, self._turn_ended)

    def _close_input(self) -> None:
        """No further turn comes: the process leaves by itself, or is ended when it has been silent for long."""
        if self._running is None:
            return
        status = self.status
        if self._linger is None and status.work_done and not status.ending and status.turn_failed is None:
            self.supervisor.journal.write("done", instance=status.name)
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
        """Ask for the CLI's count now, or as soon as it may be asked again; the API meter knows without."""
        if self.status.tally.metered:
            return
        loop = asyncio.get_running_loop()
        wait_s = self._asked_at + self._ask_every_s - loop.time()
        if wait_s <= 0 and not self._asking:
            self._ask()
        elif self._timer is None:
            self._timer = loop.call_later(max(wait_s, 0.0), self._ask)

    def _ask_for_limits(self) -> None:
        """At the beginning and the end of a turn too, where a subscription's limits are to stop the run."""
        if self.supervisor.settings.stop_at_rate_limit is not None:
            self._ask()

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
        lines = batch.lines.split(b"\n")[:-1] if idle_s is not None and batch is not None else []
        if idle_s is None or (batch is not None and all(line.startswith(_ANSWER) for line in lines)):
            return
        if self._idle is not None:
            self._idle.cancel()
        loop = asyncio.get_running_loop()
        self._idle = loop.call_at(loop.time() + idle_s, self._stalled, idle_s, loop.time() + idle_s)

    def _stalled(self, idle_s: float, due: float) -> None:
        paused = asyncio.get_running_loop().time() - due > LATE_S  # then what it printed has not been read
        if paused or (self._place is not None and self._place.waiting):
            self._expect_output(None)
            return
        self.status.stalled = not self.status.ending and not self.status.work_done
        self.stop(State.TIMED_OUT, f"stalled: nothing printed for {idle_s:g} s")

    def stop_if_over(self) -> None:
        """Stop the instance if a budget that it draws on is used up and there is something left to stop."""
        status = self.status
        budget = self.supervisor.over_budget(status.spec)
        if budget is None or status.ending or status.work_done:
            return
        self.supervisor.say(
            Level.ERROR, f"BLOCK MODE: Budget exceeded for instance {status.name}. Stopping. ({figures(budget)})"
        )
        self.stop(State.STOPPED, f"stopped by budget: {figures(budget)}")

    def stop(self, state: State, reason: str, grace_s: float | None = None) -> None:
        """End the instance by the ladder; the first reason stands, a later call can only hurry.

        Where its work is done, only the process is ended: it has completed.
        """
        if not self.status.work_done and self.status.decide_end(state, reason):
            self.supervisor.journal.write("stop", instance=self.status.name, state=state, reason=reason)
        self._stop_grace_s = self.supervisor.settings.grace_s if grace_s is None else grace_s
        if self._running is not None:
            self._running.stop(self._stop_grace_s)
            self._ask()
        self.supervisor.on_change()


def figures(budget: Budget) -> str:
    """A budget's name and figures in a reason."""
    return f"{budget.label} budget: used {budget.figures()}"
