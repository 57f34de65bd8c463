"""One instance's state over all its attempts. Pure."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from claude_orchestrator.claude.argv import with_model
from claude_orchestrator.claude.events import Assistant, BadLine, Event, Result
from claude_orchestrator.claude.tally import UsageTally
from claude_orchestrator.config.launch_spec import InterruptedSession, LaunchSpec, continued, in_worktree
from claude_orchestrator.engine.activity import Activity
from claude_orchestrator.engine.attempt import AttemptStatus, AttemptTotals, cost_of, last_words
from token_budget.model_weights import TokenWeights, draw
from token_budget.models import Usage
from token_budget.named_tuples import NamedTuple
from token_budget.string_enums import StrEnum

if TYPE_CHECKING:
    from claude_orchestrator.engine.verification import Verification
    from claude_orchestrator.engine.worktrees.changes import Changes, Worktree

MAX_TOOL_IDS = 100_000


class State(StrEnum):
    """What an instance is doing, or how it ended; the `status` of reports."""

    PENDING = "pending"
    WAITING = "waiting"
    RUNNING = "running"
    COMPLETED = "completed"
    FAILED = "failed"
    BLOCKED = "blocked"
    SKIPPED = "skipped"
    STOPPED = "stopped"
    TIMED_OUT = "timed_out"
    CANCELLED = "cancelled"


NOT_ENDED = frozenset({State.PENDING, State.WAITING, State.RUNNING})


class PlannedRetry(NamedTuple):
    """Why and when another attempt follows. Times are of the monotonic and of the wall clock, else `-inf`.

    `counts`: it is one of the retries that the settings allow. `afresh`: it begins a new session.
    """

    cause: str | None
    reason: str
    wait_s: float
    not_before: float = float("-inf")
    not_before_wall: float = float("-inf")
    counts: bool = False
    afresh: bool = False


class InstanceStatus:
    """An instance's state, use and results. `attempt` is the present attempt, `earlier` has the totals of the others.

    Times are seconds of the supervisor's clock.
    """

    def __init__(self, spec: LaunchSpec) -> None:
        self.planned = spec
        self.verification: Verification | None = None
        if spec.check is not None:
            from claude_orchestrator.engine.verification import Verification

            self.verification = Verification(spec.check)
        self.attempt = AttemptStatus(spec, self.verification)
        self._past: list[AttemptStatus] = []  # attempts of this orchestrator
        self.earlier: tuple[AttemptTotals, ...] = ()
        self.state = State.PENDING
        self.reason = ""
        self.chosen_model: str | None = None  # because little of a budget was left
        self.unneeded = False  # it was there for a failure, and nothing failed; or another one has won its race
        self.not_before = float("-inf")
        self.not_before_wall = float("-inf")
        self.retries_used = 0
        self.failed_before = ""
        self.model_turns = 0
        self.tool_calls = 0
        self.tools: Counter[str] = Counter()
        self.permission_denials: list[str] = []
        self.log: str | None = None
        self.activity: Activity | None = None  # while an attempt runs
        self.bad_lines = 0
        self.worktree: Worktree | None = None
        self.changes: Changes | None = None
        self.changes_known = False
        self._models: tuple[str, ...] = ()
        self._tool_ids: set[str] = set()
        self._decided_end: tuple[State, str] | None = None

    # -- attempts --

    def prepare_retry(self, *, afresh: bool = False) -> None:
        """Prepare another attempt: in the present session if its work had begun, else from the start."""
        attempt = self.attempt
        resumes = not afresh and (self.spec.resumed or self.tally.usage.total_tokens > 0)
        session = None
        if resumes and attempt.session_id:
            session = InterruptedSession(attempt.session_id, attempt.turns_completed, attempt.folder, self.fix)
        self._models = self.models
        self._past.append(attempt)
        self.restore((*self.earlier, attempt.totals), session)

    def retry_later(self, retry: PlannedRetry) -> None:
        """The present attempt has ended: prepare the one that follows."""
        failed = self.reason
        self.retries_used += retry.counts
        self.prepare_retry(afresh=retry.afresh)
        self.failed_before, self.state = failed, State.WAITING
        self.reason = f"{retry.reason} after: {failed}"
        self.not_before, self.not_before_wall = retry.not_before, retry.not_before_wall

    def restore(self, earlier: tuple[AttemptTotals, ...], session: InterruptedSession | None) -> None:
        """Prepare the attempt after these, which resumes the session if there is one."""
        self.earlier = earlier
        if session is None and self.verification is not None:
            self.verification.start_again()
        spec = continued(self.planned, session) if session else self.planned
        self.attempt = AttemptStatus(spec, self.verification)
        self._decided_end = None

    @property
    def divided(self) -> tuple[AttemptStatus, ...]:
        """The attempts of this orchestrator, whose use can be divided."""
        return (*self._past, self.attempt)

    @property
    def fix(self) -> str | None:
        """The turn that answers a failed check, if it is due."""
        return self.verification.prompt if self.verification is not None and self.verification.fix_due else None

    @property
    def verified(self) -> bool | None:
        """Whether the instance's check has passed; None if it has none, or if that has not run."""
        return None if self.verification is None else self.verification.verified

    @property
    def check_rounds(self) -> int:
        """How often the check has run."""
        return 0 if self.verification is None else self.verification.rounds

    def work_in(self, worktree: Worktree) -> None:
        """The instance works in this worktree, in this attempt and all later ones."""
        self.worktree = worktree
        self.planned = in_worktree(self.planned, worktree.cwd)
        self.attempt.work_in(worktree.cwd)

    def use_model(self, model: str) -> None:
        """Start the instance with this model instead of the planned one."""
        self.planned = self.planned._replace(argv=with_model(self.planned.argv, model))
        self.attempt.use_model(model)
        self.chosen_model = model

    @property
    def branch(self) -> str | None:
        """The branch of its worktree; None if it has never had one."""
        return None if self.worktree is None else self.worktree.branch

    def keep_changes(self, changes: Changes | None) -> None:
        """What the instance has changed in its worktree so far; None if that is nothing."""
        self.changes, self.changes_known = changes, changes is None or changes.kept

    @property
    def changes_unkept(self) -> bool:
        """Whether its changes could not be saved, so that only its worktree has them."""
        return self.changes is not None and not self.changes.kept

    @property
    def spec(self) -> LaunchSpec:
        """What the present attempt launches."""
        return self.attempt.spec

    @property
    def tally(self) -> UsageTally:
        """The present attempt's tokens and costs, as the CLI's stream shows them."""
        return self.attempt.tally

    @property
    def session_id(self) -> str | None:
        """The present attempt's session."""
        return self.attempt.session_id

    @property
    def launched(self) -> bool:
        """Whether a process was ever launched for the instance."""
        return self.attempts > 0

    @property
    def attempts(self) -> int:
        """How often the instance was launched."""
        return len(self.earlier) + (self.attempt.started_at is not None)

    # -- totals --

    @property
    def name(self) -> str:
        """The instance's name."""
        return self.spec.name

    @property
    def usage(self) -> Usage:
        """The tokens counted so far."""
        return sum((attempt.usage for attempt in self.earlier), self.tally.usage)

    def drawn(self, weights: TokenWeights) -> int:
        """What the tokens counted so far draw from budgets."""
        earlier = sum(draw(weights, attempt.usage, dict(attempt.by_model)) for attempt in self.earlier)
        return earlier + draw(weights, self.tally.usage, self.tally.by_model)

    @property
    def total_tokens(self) -> int:
        """The sum of the four counts so far."""
        return self.usage.total_tokens

    @property
    def exact(self) -> bool:
        """Whether `usage` is everything that was billed; else it is a lower bound."""
        return self.tally.exact and all(attempt.exact for attempt in self.earlier)

    @property
    def turn(self) -> int:
        """The number of the turn that was sent last, from 1, among the turns of the plan; 1 before the first."""
        return min(len(self.planned.turns), self.spec.turns_before + max(1, self.attempt.turns_sent))

    @property
    def cost_usd(self) -> float | None:
        """The cost that the CLI states; None if it states none."""
        return cost_of((*self.earlier, self.tally))

    @property
    def nano_usd(self) -> int | None:
        """What all attempts have cost so far in nano-dollars, by Claude's figures or by prices; None if unknown."""
        costs = [cost for cost in (*(one.cost_nano_usd for one in self.earlier), self.attempt.costs.nano_usd) if cost]
        return sum(costs) if costs else None

    @property
    def models(self) -> tuple[str, ...]:
        """The models that were used, the latest attempt's first."""
        return tuple(dict.fromkeys((*self.tally.models, *self._models)))

    def seconds(self, now: float) -> float:
        """How long the instance has run, without the time between attempts."""
        return sum(attempt.seconds for attempt in self.earlier) + self.attempt.seconds(now)

    @property
    def done(self) -> dict[str, Any]:
        """What the instance did in all attempts, besides using tokens; for `restore_done`."""
        return {
            "models": self.models,
            "model_turns": self.model_turns,
            "tools": dict(self.tools),
            "permission_denials": self.permission_denials,
            "bad_lines": self.bad_lines,
            "log": self.log,
        }

    def restore_done(self, done: Mapping[str, Any]) -> None:
        """Take over what an earlier orchestrator saw of the instance."""
        self._models = tuple(done["models"])
        self.model_turns, self.bad_lines, self.log = done["model_turns"], done["bad_lines"], done["log"]
        self.tools, self.permission_denials = Counter(done["tools"]), list(done["permission_denials"])
        self.tool_calls = self.tools.total()

    # -- events --

    def apply(self, event: Event) -> None:
        """Take one event into account."""
        self.attempt.apply(event)
        match event:
            case Assistant():
                self._count_tools(event)
            case Result():
                self.model_turns += event.num_turns
                self.permission_denials.extend(event.permission_denials)
            case BadLine():
                self.bad_lines += 1
            case _:
                pass

    def _count_tools(self, event: Assistant) -> None:
        for name, tool_id in zip(event.tools, event.tool_ids, strict=True):
            if tool_id in self._tool_ids:
                continue
            if len(self._tool_ids) < MAX_TOOL_IDS:
                self._tool_ids.add(tool_id)
            self.tool_calls += 1
            self.tools[name] += 1

    def log_to(self, path: str | None) -> None:
        """The present attempt's raw lines are kept in this file."""
        self.log = path

    # -- changes of state --

    @property
    def ended(self) -> bool:
        """Whether nothing more will happen to the instance."""
        return self.state not in NOT_ENDED

    @property
    def ending(self) -> bool:
        """Whether the instance has ended, or its end is decided."""
        return self.ended or self._decided_end is not None

    def wait(self, reason: str) -> None:
        """The instance cannot be launched yet."""
        self.state, self.reason = State.WAITING, reason

    def skip(self, state: State, reason: str, *, unneeded: bool = False) -> None:
        """The instance ends without a further launch."""
        self.state, self.reason, self.unneeded = state, reason, unneeded

    def reopen(self) -> None:
        """The instance, which was not launched, may start after all."""
        self.state, self.reason, self.unneeded = State.PENDING, "", False

    def lose_race(self) -> None:
        """Another attempt at the same work was verified first, so the instance may end in any way."""
        self.unneeded = True

    def take_over(self, state: State, reason: str) -> None:
        """The instance ended in an earlier orchestrator of the run."""
        self.state, self.reason = state, reason

    def begin(self, now: float) -> None:
        """The process is being launched."""
        self.attempt.begin(now)
        self.state, self.reason, self.failed_before = State.RUNNING, "", ""

    def do(self, activity: Activity) -> None:
        """What the instance does has changed."""
        self.activity = activity

    def decide_end(self, state: State, reason: str) -> bool:
        """Decide how the instance ends, unless that is decided already; returns whether this decision stands."""
        if self.ending:
            return False
        self._decided_end = (state, reason)
        return True

    def cannot_launch(self, errno: int | None, why: str) -> None:
        """The process could not be started; `errno` is the system's reason, if it gave one."""
        self.attempt.cannot_launch(errno)
        self.decide_end(State.FAILED, f"cannot be launched: {why}")

    def note_silence(self) -> None:
        """The instance has printed nothing for too long, and is stopped unless its work is done."""
        if not self.ending and not self.attempt.work_done:
            self.attempt.note_stall()

    def finish(self, now: float, exit_code: int | None, stderr: str, redact: Callable[[str], str] = str) -> None:
        """The process has ended and its stream was read to the end: set the state. `redact` hides secrets."""
        self.attempt.finish(now, exit_code)
        self.activity = None
        if self._decided_end is not None:
            self.state, reason = self._decided_end
        else:
            completed, reason = self.attempt.judge(last_words(redact(stderr)))
            self.state = State.COMPLETED if completed else State.FAILED
        self.reason = redact(reason)
