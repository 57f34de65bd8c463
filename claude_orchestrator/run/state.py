"""One instance's state, and how an event or the process's end changes it. Pure."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

from claude_orchestrator.claude.events import (
    ApiUsage,
    Assistant,
    BadLine,
    Event,
    Init,
    MessageDelta,
    NoBackgroundTasks,
    Price,
    RateLimit,
    Result,
    Retry,
    Task,
)
from claude_orchestrator.claude.failures import INTERRUPTED, command_word, failure, interruption, is_command_name
from claude_orchestrator.claude.tally import UsageTally
from claude_orchestrator.config.plan import LaunchSpec, continued
from token_budget.api_usage import MESSAGE, UsagePart
from token_budget.models import Amount, Usage, Weights
from token_budget.text import NANO

MAX_TOOL_IDS = 100_000
MAX_SESSIONS = 1_000  # of one attempt
MAX_LAST_CHARS, LAST_LINES = 4_096, 6
MAX_PERCENT = 1_000_000  # of a limit's use, that makes any sense


class State(StrEnum):
    """What an instance is doing, or how it ended; the `status` of reports."""

    PENDING = "pending"
    WAITING = "waiting"
    RUNNING = "running"
    COMPLETED = "completed"
    FAILED = "failed"
    BLOCKED = "blocked"
    STOPPED = "stopped"
    TIMED_OUT = "timed_out"
    CANCELLED = "cancelled"


NOT_ENDED = frozenset({State.PENDING, State.WAITING, State.RUNNING})


@dataclass(frozen=True, slots=True)
class Attempt:
    """What an ended attempt at an instance has used, in tokens, USD as the CLI states it, and seconds."""

    usage: Usage = field(default_factory=Usage)
    exact: bool = True
    cost_usd: float | None = None
    seconds: float = 0.0


@dataclass(frozen=True, slots=True)
class PlannedRetry:
    """Another attempt: why and when. Times are of the monotonic and the wall clock; `-inf` where they do not matter.

    `counts`: it is one of the retries that the settings allow; `afresh`: it does not resume the session.
    """

    cause: str | None
    reason: str
    wait_s: float
    not_before: float = float("-inf")
    not_before_wall: float = float("-inf")
    counts: bool = False
    afresh: bool = False


@dataclass(frozen=True, slots=True)
class ModelDelta:
    """What was used of one model since the last delta. A correction can be negative."""

    usage: Usage
    nano_usd: int


@dataclass(frozen=True, slots=True)
class UsageDelta:
    """What an attempt has used since the last delta: what budgets are charged, and the same by model.

    `cost_source` says where the cost comes from: `claude`, `prices`, or None while it is unknown.
    """

    amount: Amount
    by_model: Mapping[str, ModelDelta]
    cost_source: str | None = None


def _difference(now: Usage, before: Usage) -> Usage:
    return Usage(*(count - earlier for count, earlier in zip(now.counts, before.counts, strict=True)))


def cost_of(attempts: Iterable[Attempt]) -> float | None:
    """The sum of their costs in USD; None where none is stated."""
    costs = [attempt.cost_usd for attempt in attempts if attempt.cost_usd is not None]
    return sum(costs) if costs else None


class InstanceStatus:
    """An instance's state, use and results, over all its attempts. Times are seconds of the supervisor's clock."""

    def __init__(self, spec: LaunchSpec) -> None:
        self.planned = spec
        self.state = State.PENDING
        self.reason = ""
        self.earlier: tuple[Attempt, ...] = ()
        self.not_before = float("-inf")
        self.not_before_wall = float("-inf")
        self.retries_used = 0
        self.failed_before = ""
        self.model_turns = 0
        self.tool_calls = 0
        self.tools: Counter[str] = Counter()
        self.permission_denials: list[str] = []
        self.log: str | None = None
        self.bad_lines = 0
        self._models: tuple[str, ...] = ()
        self._tool_ids: set[str] = set()
        self._prepare(spec)

    def _prepare(self, spec: LaunchSpec) -> None:
        """What is of one attempt only."""
        self.spec = spec
        self.session_id = spec.session_id
        self.sessions: dict[str, None] = {}  # all whose use is counted here, in the order of their beginnings
        self.tally = UsageTally(resumed=spec.session_id is not None)
        self.started_at: float | None = None
        self.ended_at: float | None = None
        self.turns_sent = 0
        self.turns_done = 0
        self.last_result: Result | None = None
        self.exit_code: int | None = None
        self.launch_errno: int | None = None
        self.began = False
        self.stalled = False
        self.api_error = ""
        self.limit_resets_at: int | None = None
        self.retry = ""
        self.unknown_command: str | None = None
        self._listed_command: str | None = None  # of the turn in progress
        self._background: set[str] = set()  # shell commands at work
        self._answers = 0
        self._taken_version: tuple[Usage, float | None, int] = (Usage(), None, 0)
        self._taken = Amount()
        self._taken_usage: dict[str, Usage] = {}
        self._taken_costs: dict[str, int] = {}
        self._prices_found = 0
        self._priced: dict[str, Counter[str]] = {}
        self._priced_by_model: Counter[str] = Counter()
        self._ending: tuple[State, str] | None = None

    def prepare_retry(self, *, afresh: bool = False) -> None:
        """Make another attempt ready: in this one's session if that had begun to work, else from the start."""
        resumes = not afresh and (self.spec.resumed or self.tally.usage.total_tokens > 0)
        session = (self.session_id, self.turns_completed) if resumes and self.session_id else None
        self._models = self.models
        self.restore((*self.earlier, self.this_attempt), session)

    def retry_later(self, retry: PlannedRetry) -> None:
        """The attempt that has ended is followed by another one, which is made ready."""
        failed = self.reason
        self.retries_used += retry.counts
        self.prepare_retry(afresh=retry.afresh)
        self.failed_before, self.state = failed, State.WAITING
        self.reason = f"{retry.reason} after: {failed}"
        self.not_before, self.not_before_wall = retry.not_before, retry.not_before_wall

    def restore(self, earlier: tuple[Attempt, ...], session: tuple[str, int] | None) -> None:
        """Make the next attempt ready, after these; `session`: the id to resume, and the turns done in it."""
        self.earlier = earlier
        self._prepare(continued(self.planned, *session) if session else self.planned)

    @property
    def name(self) -> str:
        """The instance's name."""
        return self.spec.name

    @property
    def usage(self) -> Usage:
        """The tokens counted so far."""
        return sum((attempt.usage for attempt in self.earlier), self.tally.usage)

    @property
    def exact(self) -> bool:
        """Whether that is all that was billed."""
        return self.tally.exact and all(attempt.exact for attempt in self.earlier)

    @property
    def cost_usd(self) -> float | None:
        """The cost as the CLI states it; None where it states nothing."""
        return cost_of((*self.earlier, self.this_attempt))

    @property
    def models(self) -> tuple[str, ...]:
        """The models that were used, the latest attempt's first."""
        return tuple(dict.fromkeys((*self.tally.models, *self._models)))

    @property
    def done(self) -> dict[str, Any]:
        """What it did, besides using tokens, over all attempts; for `restore_done`."""
        return {
            "models": self.models,
            "model_turns": self.model_turns,
            "tools": dict(self.tools),
            "permission_denials": self.permission_denials,
            "bad_lines": self.bad_lines,
            "log": self.log,
        }

    def restore_done(self, done: Mapping[str, Any]) -> None:
        """Take over what an earlier orchestrator saw of it."""
        self._models = tuple(done["models"])
        self.model_turns, self.bad_lines, self.log = done["model_turns"], done["bad_lines"], done["log"]
        self.tools, self.permission_denials = Counter(done["tools"]), list(done["permission_denials"])
        self.tool_calls = self.tools.total()

    @property
    def launched(self) -> bool:
        """Whether a process was ever launched for it."""
        return bool(self.earlier) or self.started_at is not None

    @property
    def attempts(self) -> int:
        """How often it was launched."""
        return len(self.earlier) + (self.started_at is not None)

    @property
    def this_attempt(self) -> Attempt:
        """What this attempt has used."""
        seconds = (self.ended_at or 0.0) - (self.started_at or 0.0) if self.ended_at is not None else 0.0
        return Attempt(self.tally.usage, self.tally.exact, self.tally.cost_usd, seconds)

    def seconds(self, now: float) -> float:
        """How long it has run, without the time between attempts."""
        ran = 0.0 if self.started_at is None else (self.ended_at or now) - self.started_at
        return sum(attempt.seconds for attempt in self.earlier) + ran

    @property
    def total_tokens(self) -> int:
        """The sum of the four counts so far."""
        return self.usage.total_tokens

    @property
    def ended(self) -> bool:
        """Whether nothing more will happen to it."""
        return self.state not in NOT_ENDED

    @property
    def ending(self) -> bool:
        """Whether its end is decided: it ended, or is being stopped."""
        return self.ended or self._ending is not None

    @property
    def turn_running(self) -> bool:
        """Whether a turn was sent whose result has not come."""
        return self.turns_done < self.turns_sent

    @property
    def idle(self) -> bool:
        """Whether every turn has had its result (or no further one will be sent) and nothing works in the background.

        2.1.197 kills a background command when its input is closed; 2.1.332 waits for it. Both begin another turn
        when it has ended.
        """
        at_work = self.turn_running or self.tally.agents or self._background
        return not at_work and (self.all_sent or self.turn_failed is not None)

    @property
    def work_done(self) -> bool:
        """Whether it has nothing left to do: what follows is only that its process leaves."""
        return self.idle and self.turns_done > 0

    @property
    def all_sent(self) -> bool:
        """Whether no turn is left to be sent."""
        return self.turns_sent == len(self.spec.turns)

    @property
    def turns_completed(self) -> int:
        """How many of the planned turns are done, those of earlier attempts in this session included."""
        failed = self.turn_failed is not None and not self.turn_running
        return self.spec.turns_before + max(0, self.turns_done - failed)

    @property
    def turn_failed(self) -> str | None:
        """Why the last turn that ended is a failure, or None."""
        return failure(self.last_result, self._listed_command) if self.last_result is not None else None

    def next_turn(self) -> str:
        """The text of the next turn, which is now sent."""
        text = self.spec.turns[self.turns_sent]
        self.turns_sent += 1
        self._answers = 0
        return text

    def begin(self, now: float) -> None:
        """The process is being launched."""
        self.state, self.started_at = State.RUNNING, now
        self.reason = self.failed_before = ""

    def _work_in(self, session_id: str | None) -> None:
        """Note the session that the process works in; a `/clear` begins another one."""
        if session_id:
            self.session_id = session_id
            self._count_session(session_id)

    def _count_session(self, session_id: str) -> None:
        if len(self.sessions) < MAX_SESSIONS:
            self.sessions[session_id] = None

    def apply(self, event: Event) -> None:
        """Take one event into account."""
        self.tally.feed(event)
        match event:
            case Init():
                self.began = True
                self._work_in(event.session_id)
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
                self._count_tools(event)
            case RateLimit():
                self.limit_resets_at = event.resets_at if event.refuses else None
            case Result():
                self._take_result(event)
            case MessageDelta(parent=None) if event.stop_reason not in (None, "tool_use", "pause_turn"):
                self._answers += 1
            case Retry():
                self.retry = f"retry {event.attempt}: {event.error}"
            case BadLine():
                self.bad_lines += 1
            case _:
                return
        if not isinstance(event, Retry):
            self.retry = ""

    def _take_result(self, result: Result) -> None:
        self.session_id = result.session_id or self.session_id
        self.model_turns += result.num_turns
        self.permission_denials.extend(result.permission_denials)
        ends_turn = self.turn_running and self._ends_turn(result)
        self.turns_done += ends_turn
        if ends_turn or not result.follows_task or self.last_result is None:
            self.last_result = result  # one that follows a background task does not replace the turn's own

    def _follow_task(self, task: Task) -> None:
        if task.status is not None:
            self._background.discard(task.id)
        elif task.kind == "local_bash":
            self._background.add(task.id)

    def _ends_turn(self, result: Result) -> bool:
        """Whether it is the result of the turn that was sent, not of one that the CLI began when a task ended.

        2.1.174 gives one result for both: then the main thread has answered twice since our turn was sent.
        """
        return not result.follows_task or self._answers > 1

    def _read_command(self, init: Init) -> None:
        """Note the slash command of the turn in progress, and whether the session lists it (it may be an alias).

        2.1.197 answers one that it does not list itself with "Unknown command"; 2.1.330 sends it to the model as text.
        """
        word = command_word(self.spec.turns[max(0, self.turns_sent - 1)]) if self.turn_running else None
        listed = word is not None and word.removeprefix("/") in init.slash_commands
        self._listed_command = word if listed else None
        unknown = word is not None and init.slash_commands and not listed and is_command_name(word)
        self.unknown_command = word if unknown else None

    def _count_tools(self, event: Assistant) -> None:
        for name, tool_id in zip(event.tools, event.tool_ids, strict=True):
            if tool_id in self._tool_ids:
                continue
            if len(self._tool_ids) < MAX_TOOL_IDS:
                self._tool_ids.add(tool_id)
            self.tool_calls += 1
            self.tools[name] += 1

    def take_delta(self, weights: Weights) -> UsageDelta | None:
        """What this attempt has used and cost since the last call; None if nothing has changed."""
        version = self.tally.usage, self.tally.cost_usd, self._prices_found
        if version == self._taken_version:
            return None
        self._taken_version = version
        usage, costs = self.tally.by_model, self.cost_by_model
        amount = Amount(weights.draw(self.tally.usage), max(self.cost_nano_usd or 0, self._taken.nano_usd))
        delta = UsageDelta(
            amount - self._taken,
            {
                model: ModelDelta(
                    _difference(usage.get(model, Usage()), self._taken_usage.get(model, Usage())),
                    costs.get(model, 0) - self._taken_costs.get(model, 0),
                )
                for model in {**usage, **costs, **self._taken_usage, **self._taken_costs}
            },
            self.cost_source,
        )
        self._taken, self._taken_usage, self._taken_costs = amount, usage, costs
        return delta

    @property
    def cost_nano_usd(self) -> int | None:
        """This attempt's cost so far in nano-dollars: what the CLI states, and prices where it states none."""
        return sum(self.cost_by_model.values()) if self._priced or self.tally.cost_usd is not None else None

    @property
    def cost_by_model(self) -> dict[str, int]:
        """`cost_nano_usd` divided by model, as far as that is known."""
        stated = {model: round(cost * NANO) for model, cost in self.tally.cost_by_model.items()}
        if self.tally.metered:
            return max(stated, dict(self._priced_by_model), key=lambda costs: sum(costs.values()))
        return dict(Counter(stated) + self._priced_by_model)

    @property
    def cost_source(self) -> str | None:
        """Where the cost is from: `claude`, or `prices` where a part of it is reckoned here."""
        return "prices" if self._priced else None if self.tally.cost_usd is None else "claude"

    def price(self, price: Price, response: ApiUsage | None) -> None:
        """Reckon what the CLI has no figure for: a response that the API meter has seen, else those cut off."""
        if response is not None:
            told = {response.id: response.billed()}
        else:
            cut_off = [] if self.tally.metered else self.tally.cut_off
            told = {response_id: (UsagePart(MESSAGE, model, usage),) for response_id, model, usage in cut_off}
        for response_id, parts in told.items():
            costs = [(part.model, price(part.model, part.usage, part.written_for_1h_tokens)) for part in parts]
            by_model = Counter[str]()
            for model, cost_nano_usd in costs:
                by_model[model] += cost_nano_usd or 0
            before = self._priced.get(response_id, Counter())
            if by_model.total() >= before.total() and any(cost_nano_usd is not None for _, cost_nano_usd in costs):
                self._prices_found += 1
                self._priced[response_id] = by_model
                self._priced_by_model.subtract(before)
                self._priced_by_model.update(by_model)

    def decide_end(self, state: State, reason: str) -> bool:
        """Decide how this instance ends; the first decision stands. Returns whether this is it."""
        if self.ending:
            return False
        self._ending = (state, reason)
        return True

    def wait(self, reason: str) -> None:
        """It is not launched yet."""
        self.state, self.reason = State.WAITING, reason

    def take_over(self, state: State, reason: str) -> None:
        """It ended in an earlier orchestrator of the run."""
        self.state, self.reason = state, reason

    def meter(self) -> None:
        """From now on the API meter counts this attempt, not its stream."""
        self.tally.metered = True

    def log_to(self, path: str | None) -> None:
        """Its raw lines are kept in this file."""
        self.log = path

    def cannot_launch(self, errno: int | None, why: str) -> None:
        """Its process could not be started; `errno` if the system said why."""
        self.launch_errno = errno
        self.decide_end(State.FAILED, f"cannot be launched: {why}")

    def note_silence(self) -> None:
        """It has printed nothing for so long that it is stopped for that."""
        self.stalled = not self.ending and not self.work_done

    def skip(self, state: State, reason: str) -> None:
        """It ends without having been launched."""
        self.state, self.reason = state, reason

    def finish(self, now: float, exit_code: int | None, stderr: str, redact: Callable[[str], str] = str) -> None:
        """The process has ended and its stream was read to the end: judge it. `redact` hides secrets in the reason."""
        self.tally.close()
        self.ended_at, self.exit_code = now, exit_code
        self.state, reason = self._ending or self._judge(exit_code, last_words(redact(stderr)))
        self.reason = redact(reason)

    def _judge(self, exit_code: int | None, stderr: str) -> tuple[State, str]:
        """By its results, never by the exit code alone."""
        if self.last_result is None or self.turn_running:
            if interruption(None, exit_code):
                return State.FAILED, INTERRUPTED
            which = f" for turn {self.turns_done + 1} of {len(self.spec.turns)}" if len(self.spec.turns) > 1 else ""
            tail = f": {stderr}" if stderr else ""
            return State.FAILED, f"exited with code {exit_code} and without a result{which}{tail}"
        failed = interruption(self.last_result, exit_code) or self.turn_failed
        if failed is not None:
            return State.FAILED, failed
        if self.last_result.terminal_reason == "hook_stopped":
            return State.COMPLETED, "a hook stopped it"
        return State.COMPLETED, ""


def last_words(text: str) -> str:
    """The last lines of what a process wrote to standard error, in one line."""
    return " | ".join(text[-MAX_LAST_CHARS:].split("\n")[-LAST_LINES:]).strip(" |")


def rate_limit_rows(limits: Mapping[str, Any]) -> list[tuple[str, float, str]]:
    """A subscription's limits as the CLI tells them: name, percent used, when it resets ("": not said)."""
    rows = []
    for name, limit in limits.items():
        used = limit.get("utilization") if isinstance(limit, Mapping) else None
        if isinstance(used, int | float) and not isinstance(used, bool) and 0 <= used <= MAX_PERCENT:
            resets_at = limit.get("resets_at")
            rows.append((str(name), float(used), resets_at if isinstance(resets_at, str) else ""))
    return rows
