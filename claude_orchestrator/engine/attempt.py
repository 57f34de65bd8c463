"""One attempt at an instance, and how the events of its stream change it. Pure."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Protocol

from claude_orchestrator.claude.argv import with_model
from claude_orchestrator.claude.events import (
    ApiUsage,
    Assistant,
    BadLine,
    Event,
    Init,
    MessageDelta,
    NoBackgroundTasks,
    RateLimit,
    Result,
    Retry,
    Task,
)
from claude_orchestrator.claude.failures import (
    INTERRUPTED,
    command_word,
    failure,
    interruption,
    is_command_name,
    session_not_found,
)
from claude_orchestrator.claude.tally import UsageTally
from claude_orchestrator.config.launch_spec import LaunchSpec, in_worktree
from claude_orchestrator.engine.usage_delta import AttemptCosts
from token_budget.models import NO_USAGE, Usage
from token_budget.named_tuples import NamedTuple
from token_budget.portions import MAIN, TOOLS

if TYPE_CHECKING:
    from claude_orchestrator.engine.verification import Verification

MAX_SESSIONS = 1_000
MAX_DENIED_TOOLS = 5  # that are named
MAX_LAST_CHARS, LAST_LINES = 4_096, 6


class AttemptTotals(NamedTuple):
    """What an attempt has used: tokens, the cost in USD that the CLI states, and seconds.

    `by_model` divides `usage` as far as models are known. `cost_nano_usd` is what budgets in money are charged: the
    CLI's figure, and a computed price where the CLI has none.
    """

    usage: Usage = NO_USAGE
    exact: bool = True
    cost_usd: float | None = None
    seconds: float = 0.0
    cost_nano_usd: int | None = None
    by_model: tuple[tuple[str, Usage], ...] = ()


if TYPE_CHECKING:

    class HasCost(Protocol):
        """Anything with a cost in USD that the CLI states, or None: an attempt, or several of them."""

        @property
        def cost_usd(self) -> float | None: ...


def cost_of(parts: Iterable[HasCost]) -> float | None:
    """The sum of the costs of these parts in USD; None if the CLI stated no cost for any of them."""
    costs = [cost for part in parts if (cost := part.cost_usd) is not None]
    return sum(costs) if costs else None


class AttemptStatus:
    """The session, turns and counts of one attempt. Times are seconds of the supervisor's clock."""

    def __init__(self, spec: LaunchSpec, verification: Verification | None = None) -> None:
        self.spec = self._unfilled = spec
        self.turns = list(spec.turns)
        self.verification = verification
        self.session_id = spec.session_id
        self.folder = spec.cwd if spec.resumed else None  # where claude works, once it has named it
        self.sessions: dict[str, None] = {}  # every session that is counted here, in the order of their beginnings
        self._own_sessions: set[str] = set()  # not those of a claude that a tool has started
        self.tally = UsageTally(resumed=spec.session_id is not None)
        self.costs = AttemptCosts(self.tally)
        self.started_at: float | None = None
        self.ended_at: float | None = None
        self.turns_sent = 0
        self.denials = 0  # of tool calls
        self._denied_tools: dict[str, None] = {}
        self._results = 0  # that the process has numbered, up to the last one that came
        self.lost_results = 0
        self.turns_done = 0
        self.last_result: Result | None = None
        self.exit_code: int | None = None
        self.launch_errno: int | None = None
        self.began = False
        self.stalled = False
        self.stopped = False  # by the orchestrator, whatever the reason
        self.api_error = ""
        self.limit_resets_at: int | None = None
        self.retrying = False
        self.unknown_command: str | None = None
        self._listed_command: str | None = None  # of the turn in progress
        self._background: set[str] = set()  # shell commands at work
        self._answers = 0
        self._has_output = False  # of the last turn that ended

    def fill(self, spec: LaunchSpec) -> None:
        """Use this spec while the attempt runs. Its texts contain the results of other instances."""
        self._unfilled, self.spec = self.spec, spec
        if self.verification is not None and spec.check is not None:
            self.verification.fill(spec.check)
        self.turns[: len(spec.turns)] = spec.turns

    def unfill(self) -> None:
        """Drop the filled texts, which may be long."""
        self.spec = self._unfilled
        self.turns[: len(self.spec.turns)] = self.spec.turns

    # -- turns --

    @property
    def turn_running(self) -> bool:
        """Whether a turn was sent whose result has not come."""
        return self.turns_done < self.turns_sent

    @property
    def all_sent(self) -> bool:
        """Whether every turn was sent."""
        return self.turns_sent == len(self.turns)

    @property
    def idle(self) -> bool:
        """Whether no turn runs, no further turn will be sent, and nothing works in the background.

        2.1.197 kills a background command when its input is closed; 2.1.332 waits for it. Both begin another turn
        when it has ended.
        """
        at_work = self.turn_running or self.tally.agents or self._background
        return not at_work and (self.all_sent or self.turn_failed is not None)

    @property
    def work_done(self) -> bool:
        """Whether the work is complete, so that only the process still has to end."""
        return self.idle and self.turns_done > 0 and (self.turn_failed is not None or not self.check_pending)

    @property
    def check_pending(self) -> bool:
        """Whether the instance has a check that has not passed yet, and can still pass."""
        return self.verification is not None and self.verification.pending

    @property
    def turns_completed(self) -> int:
        """How many of the planned turns are done, including those of earlier attempts in this session."""
        failed = self.turn_failed is not None and not self.turn_running
        return self.spec.turns_before + max(0, self.turns_done - failed)

    @property
    def turn_number(self) -> int:
        """The number of the last turn that ended, from 1, among the turns of the plan."""
        return self.spec.turns_before + max(1, self.turns_done)

    @property
    def turn_failed(self) -> str | None:
        """Why the last turn that ended is a failure, or None."""
        if self.last_result is None:
            return None
        return failure(self.last_result, self._listed_command) or self._lack

    @property
    def _lack(self) -> str | None:
        """What the answer of the last turn lacks, or None."""
        if self.spec.json_schema is None or self._has_output or self.turns_done < len(self.turns):
            return None
        return "no structured output: claude has not answered in the form of json_schema"

    def is_answer(self, result: Result) -> bool:
        """Whether a result that was applied is an answer: not an error, and not empty."""
        has_content = bool(result.answer.strip()) or result.structured_output is not None
        return has_content and failure(result, self._listed_command) is None

    def next_turn(self) -> str:
        """The text of the next turn, which counts as sent from now on."""
        text = self.turns[self.turns_sent]
        self.turns_sent += 1
        self._answers = 0
        return text

    def add_turn(self, text: str) -> None:
        """Another turn follows those of the plan."""
        self.turns.append(text)

    @property
    def left_its_check(self) -> bool:
        """Whether the process ended although only the check, or a turn that answers it, was left."""
        return self.check_pending and self.turn_failed is None and not self.denied

    @property
    def denied(self) -> bool:
        """Whether a tool call was denied, which fails this instance."""
        return self.spec.fail_on_denied and self.denials > 0

    @property
    def known_session(self) -> str | None:
        """The session, if claude has begun it and therefore saved it; else None."""
        exists = self.began or self.spec.resumed
        lost = self.last_result is not None and session_not_found(self.last_result)
        return self.session_id if exists and not lost else None

    # -- totals --

    @property
    def totals(self) -> AttemptTotals:
        """What the attempt has used; `seconds` is 0 until it ends."""
        seconds = 0.0 if self.ended_at is None else self.ended_at - (self.started_at or 0.0)
        tally, by_model = self.tally, tuple(self.tally.by_model.items())
        return AttemptTotals(tally.usage, tally.exact, tally.cost_usd, seconds, self.costs.nano_usd, by_model)

    def seconds(self, now: float) -> float:
        """How long the attempt has run."""
        return 0.0 if self.started_at is None else (self.ended_at or now) - self.started_at

    # -- events --

    def apply(self, event: Event) -> None:
        """Take one event into account."""
        self.tally.feed(event)
        match event:
            case Init():
                self.began = True
                self._work_in(event.session_id)
                self.folder = self.folder or event.folder or None
                self._read_command(event)
            case ApiUsage(session_id=str(session_id)):
                self._count_session(session_id)
            case NoBackgroundTasks():
                if not self.turn_running:
                    self.tally.agents.clear()
                    self._background.clear()
            case Task():
                self._follow_task(event)
            case Assistant():
                self.api_error = event.error if event.synthetic else ""
            case RateLimit():
                self.limit_resets_at = event.resets_at if event.refuses else None
            case Result():
                self._take_result(event)
            case MessageDelta(parent=None) if event.stop_reason not in (None, "tool_use", "pause_turn"):
                self._answers += 1
            case BadLine():
                pass
            case Retry():
                self.retrying = True
                return
            case _:
                return
        self.retrying = False

    def _work_in(self, session_id: str | None) -> None:
        """Note the session that the process works in; `/clear` begins another one."""
        if session_id:
            self.session_id = session_id
            self._own_sessions.add(session_id)
            self._count_session(session_id)

    def source_of(self, session_id: str | None) -> str:
        """Who asks in this session: the instance itself, or a claude that a tool has started."""
        is_own = not self._own_sessions or session_id is None or session_id in self._own_sessions
        return MAIN if is_own else TOOLS

    def _count_session(self, session_id: str) -> None:
        if len(self.sessions) < MAX_SESSIONS:
            self.sessions[session_id] = None

    def _take_result(self, result: Result) -> None:
        self.session_id = result.session_id or self.session_id
        self.denials += len(result.permission_denials)
        for tool in result.permission_denials:
            if len(self._denied_tools) < MAX_DENIED_TOOLS:
                self._denied_tools[tool] = None
        lost = self._lost_before(result)
        ends_turn = self.turn_running and (bool(lost) or self._ends_turn(result))  # a lost one may have ended it
        self.turns_done += ends_turn
        if ends_turn or not result.follows_task or self.last_result is None:
            self._has_output = result.structured_output is not None
            # one that follows a background task does not replace the turn's own; answers are kept elsewhere
            self.last_result = result._replace(answer="", structured_output=None)
        if ends_turn and self.verification is not None and self.turn_failed is None:
            self.verification.turn_ended()

    def _lost_before(self, result: Result) -> int:
        """How many results the process has written that never arrived."""
        if result.number is None:
            return 0
        lost = max(0, result.number - self._results)
        self._results = max(self._results, result.number + 1)
        self.lost_results += lost
        return lost

    def _ends_turn(self, result: Result) -> bool:
        """Whether the result belongs to the turn that was sent, not to one that the CLI began when a task ended.

        2.1.174 gives one result for both; the main thread has then answered twice since the turn was sent.
        """
        return not result.follows_task or self._answers > 1

    def _follow_task(self, task: Task) -> None:
        if task.status is not None:
            self._background.discard(task.id)
        elif task.kind == "local_bash":
            self._background.add(task.id)

    def _read_command(self, init: Init) -> None:
        """Note the slash command of the turn in progress, and whether the session lists it (it may be an alias).

        2.1.197 answers "Unknown command" to a command that it does not list; 2.1.330 sends it to the model as text.
        """
        word = command_word(self.turns[max(0, self.turns_sent - 1)]) if self.turn_running else None
        listed = word is not None and word.removeprefix("/") in init.slash_commands
        self._listed_command = word if listed else None
        may_fail = word is not None and is_command_name(word) and self.spec.unknown_command == "fail"
        unknown = may_fail and init.slash_commands and not listed
        self.unknown_command = word if unknown else None

    # -- launch and end --

    def work_in(self, folder: str) -> None:
        """The attempt works in this folder of its worktree."""
        self.spec, self._unfilled = in_worktree(self.spec, folder), in_worktree(self._unfilled, folder)
        self.folder = self.spec.cwd if self.spec.resumed else None

    def use_model(self, model: str) -> None:
        """The attempt starts with this model."""
        self.spec, self._unfilled = (
            spec._replace(argv=with_model(spec.argv, model)) for spec in (self.spec, self._unfilled)
        )

    def begin(self, now: float) -> None:
        """The process is being launched."""
        self.started_at = now

    def meter(self) -> None:
        """From now on the API meter counts this attempt, not its stream."""
        self.tally.meter()

    def cannot_launch(self, errno: int | None) -> None:
        """The process could not be started; `errno` is the system's reason, if it gave one."""
        self.launch_errno = errno

    def note_stall(self) -> None:
        """The attempt is stopped because it has printed nothing for too long."""
        self.stalled = True

    def finish(self, now: float, exit_code: int | None) -> None:
        """The process has ended, and its stream was read to the end."""
        self.tally.close()
        self.ended_at, self.exit_code = now, exit_code

    def note_stop(self) -> None:
        """The orchestrator ends the process."""
        self.stopped = True

    def judge(self, stderr: str) -> tuple[bool, str]:
        """Whether the attempt completed, and why or why not. Its results decide, not the exit code alone."""
        if self.verification is not None and self.verification.verified:
            return True, ""
        if self.last_result is None or self.turn_running:
            if not self.stopped and interruption(None, self.exit_code):
                return False, INTERRUPTED
            which = f" for turn {self.turns_done + 1} of {len(self.turns)}" if len(self.turns) > 1 else ""
            tail = f": {stderr}" if stderr else ""
            return False, f"exited with code {self.exit_code} and without a result{which}{tail}"
        interrupted = None if self.stopped else interruption(self.last_result, self.exit_code)
        failed = interrupted or self.turn_failed
        if failed is not None:
            return False, failed
        if self.denied:
            tools = ", ".join(self._denied_tools)
            how = "allow what it needs with allowed_tools, or answer with --approvals ask"
            return False, f"{self.denials} tool call{'s were' if self.denials > 1 else ' was'} denied: {tools}: {how}"
        if self.check_pending:
            return False, f"exited with code {self.exit_code} before its check had passed"
        return True, "a hook stopped it" if self.last_result.terminal_reason == "hook_stopped" else ""


def last_words(text: str) -> str:
    """The last lines of what a process wrote to standard error, in one line."""
    return " | ".join(text[-MAX_LAST_CHARS:].split("\n")[-LAST_LINES:]).strip(" |")
