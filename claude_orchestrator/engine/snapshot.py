"""A run at one moment, as values: what screens, control programs and exporters show of it. Pure."""

from __future__ import annotations

from collections import Counter, deque

from claude_orchestrator.engine.activity import Doing
from claude_orchestrator.engine.groups import GroupStatus, groups_of
from claude_orchestrator.engine.run_view import RunView
from claude_orchestrator.engine.source_uses import share_of_subagents
from claude_orchestrator.engine.state import InstanceStatus, State
from claude_orchestrator.engine.time_left import time_left_s
from token_budget.models import Budget, Usage
from token_budget.named_tuples import NamedTuple

PACE_OVER_S = 60.0
LEAST_PACE_S = 5.0  # a shorter time shows no pace


class Row(NamedTuple):
    """One instance. `label` is its state in words, and `doing` is what it does, waits for, or why it ended.

    `seconds` is None if it was never launched. `turn` of its `turns` is the one that was sent last.
    `doing_s` is for how long it has been doing that. `budgets` are those that it draws on.
    `subagents` is their number and their share of the tokens.
    """

    name: str
    group: str | None
    state: State
    label: str
    unneeded: bool = False
    doing: str = ""
    doing_s: float | None = None
    seconds: float | None = None
    usage: Usage = Usage()
    exact: bool = True
    nano_usd: int | None = None
    turn: int = 0
    turns: int = 1
    attempts: int = 0
    model: str = ""
    tools: int = 0
    budgets: tuple[Budget, ...] = ()
    subagents: str = ""

    @property
    def budget_percentage(self) -> float | None:
        """The use of its tightest budget; None without a budget."""
        return max((budget.percentage for budget in self.budgets), default=None)

    @property
    def ended(self) -> bool:
        """Whether nothing more will happen to it."""
        return self.state not in (State.PENDING, State.WAITING, State.RUNNING)


class Snapshot(NamedTuple):
    """A run at one moment. `tokens_per_min` and `left_s` are None while they are unknown.

    `held_back` is why requests or launches wait for the API's rate limits, if they do.
    """

    run_id: str
    rehearsal: bool
    seconds: float
    rows: tuple[Row, ...]
    groups: tuple[GroupStatus, ...]
    budgets: tuple[Budget, ...]
    usage: Usage
    exact: bool
    nano_usd: int | None
    tokens_per_min: float | None = None
    left_s: float | None = None
    held_back: str | None = None

    @property
    def states(self) -> Counter[State]:
        """How many instances are in each state."""
        return Counter(row.state for row in self.rows)

    @property
    def over(self) -> bool:
        """Whether every instance has ended."""
        return all(row.ended for row in self.rows)


class TokenRate:
    """Tokens per minute over the last minute."""

    def __init__(self) -> None:
        self._points: deque[tuple[float, int]] = deque()

    def note(self, now: float, tokens: int) -> float | None:
        """Take the total at this time; returns the pace, or None if it is unknown yet."""
        points = self._points
        if not points or now - points[-1][0] >= 1.0:
            points.append((now, tokens))
        while len(points) > 1 and now - points[1][0] >= PACE_OVER_S:
            points.popleft()
        since, before = points[0]
        return (tokens - before) / (now - since) * 60 if now - since >= LEAST_PACE_S else None


class Snapshots:
    """Takes snapshots of one run. What has not changed since the last one is not computed again."""

    def __init__(self, view: RunView) -> None:
        self._view = view
        self._pace = TokenRate()
        self._still: dict[str, tuple[tuple[State, bool, Usage], Row]] = {}

    def take(self, now: float) -> Snapshot:
        """The run at this time of its clock."""
        view = self._view
        rows = tuple([self._row(status, now) for status in view.instances])
        parts = [row.usage for row in rows] + [past.usage for past in view.removed]
        usage = Usage(*map(sum, zip(*parts, strict=True))) if parts else Usage()
        earlier = [attempt.cost_nano_usd for part in view.removed for attempt in part.attempts]
        costs = [cost for cost in (*(row.nano_usd for row in rows), *earlier) if cost is not None]
        tokens = usage.total_tokens
        pace = self._pace.note(now, tokens)
        used = [(status, row.usage.total_tokens) for status, row in zip(view.instances, rows, strict=True)]
        return Snapshot(
            run_id=view.run_id,
            rehearsal=view.rehearsal,
            seconds=now - view.clock_at_start,
            rows=rows,
            groups=tuple(groups_of(view.instances, now)),
            budgets=view.manager.budgets,
            usage=usage,
            exact=all(row.exact for row in rows) and all(part.exact for part in view.removed),
            nano_usd=sum(costs) if costs else None,
            tokens_per_min=pace,
            left_s=time_left_s(used, pace, view.manager.total.tokens / tokens if tokens else 1.0),
            held_back=view.changes.pace,
        )

    def _row(self, status: InstanceStatus, now: float) -> Row:
        """The row of an instance. One that is ended or has not begun keeps its row, unless it is charged more."""
        state = status.state, status.unneeded, status.tally.usage
        known = self._still.get(status.name)
        if known is not None and known[0] == state:
            return known[1]
        row = self._new_row(status, now)
        if status.state not in (State.RUNNING, State.WAITING):
            self._still[status.name] = state, row
        return row

    def _new_row(self, status: InstanceStatus, now: float) -> Row:
        spec = status.spec
        doing, since = doing_of(status)
        return Row(
            name=status.name,
            group=status.planned.group,
            state=status.state,
            label=state_text(status),
            unneeded=status.unneeded,
            doing=doing,
            doing_s=None if since is None else now - since,
            seconds=status.seconds(now) if status.launched else None,
            usage=status.usage,
            exact=status.exact,
            nano_usd=status.nano_usd,
            turn=status.turn,
            turns=len(status.planned.turns),
            attempts=status.attempts,
            model=status.models[0] if status.models else "",
            tools=status.tool_calls,
            budgets=self._view.manager.budgets_for(spec.base_command, status.name),
            subagents=share_of_subagents(status),
        )


def state_text(status: InstanceStatus) -> str:
    """The state of an instance in words, with the tool calls that it was denied."""
    if status.state is State.COMPLETED and status.permission_denials:
        return f"completed ({len(status.permission_denials)} denied)"
    if status.state is State.RUNNING and status.verification is not None and status.verification.running:
        return "checking"
    return "retrying" if status.attempt.retrying and status.state is State.RUNNING else str(status.state)


def _activity(status: InstanceStatus) -> tuple[str, float | None]:
    """What a running instance does. How long it has done that matters for tools, and where nothing seems to happen."""
    activity = status.activity
    if status.attempt.retrying:
        return "the API refused a request, and claude tries again", None
    if activity is None:
        return "", None
    return activity.words, None if activity.doing is Doing.ANSWERING else activity.since


def doing_of(status: InstanceStatus) -> tuple[str, float | None]:
    """What an instance does, waits for, or why it ended; and since when, on the supervisor's clock, if that matters."""
    match status.state:
        case State.WAITING if not status.failed_before:
            return f"waits: {status.reason.partition(': ')[0]}", None
        case State.PENDING:
            return "", None
        case State.RUNNING:
            return _activity(status)
        case _:
            return status.reason, None
