"""What a journal records of a run and of its instances. Pure."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from claude_orchestrator.claude.permission_rules import Rule
from claude_orchestrator.engine.attempt import AttemptTotals, cost_of
from claude_orchestrator.engine.in_flight import InFlight
from claude_orchestrator.engine.state import State
from claude_orchestrator.engine.verification import CheckVerdict
from claude_orchestrator.engine.worktrees.changes import Changes, changes_from
from token_budget.api_usage import MAX_COUNT, read_count
from token_budget.models import NO_USAGE, Usage
from token_budget.text import NANO

MAX_ATTEMPTS = 1_000_000
_FOUR = [int] * 4


@dataclass(slots=True)
class OpenAttempt:
    """An attempt whose end is not in the journal, because its orchestrator was killed.

    `launched_at`, `last_at`, its last record, and `next_at`, the next attempt, are times of the clock on the wall.
    """

    launched_at: float
    last_at: float
    log: str | None
    resumed: bool
    next_at: float = math.inf
    sessions: dict[str, None] = field(default_factory=dict)


@dataclass(slots=True)
class EarlierInstance:
    """An instance of an earlier start of the run, as the journal records it."""

    name: str
    base_command: str | None = None
    group: str | None = None
    depends_on: tuple[str, ...] = ()
    turns_digest: str = ""
    state: State = State.PENDING
    reason: str = ""
    attempts: list[AttemptTotals] = field(default_factory=list)
    session_id: str | None = None
    folder: str | None = None
    turns_done: int = 0
    worked: bool = False
    launched_at: float = 0.0
    done: Mapping[str, Any] = field(default_factory=dict)
    check_rounds: int = 0
    verdict: CheckVerdict | None = None
    fix_due: bool = False
    changes: Changes | None = None
    changes_known: bool = False
    in_flight: InFlight = field(default_factory=InFlight)
    open_attempts: dict[int, OpenAttempt] = field(default_factory=dict)  # by their numbers; not those at the gateway
    first_input: Usage = NO_USAGE  # of its first response

    @property
    def usage(self) -> Usage:
        """The tokens counted."""
        return sum((attempt.usage for attempt in self.attempts), Usage())

    @property
    def exact(self) -> bool:
        """Whether that is all that was billed."""
        return all(attempt.exact for attempt in self.attempts)

    @property
    def cost_usd(self) -> float | None:
        """The cost as the CLI stated it; None where it stated nothing."""
        return cost_of(self.attempts)

    @property
    def nano_usd(self) -> int | None:
        """What its attempts have cost in nano-dollars, by Claude's figures or by prices; None if unknown."""
        return sum(attempt.cost_nano_usd or 0 for attempt in self.attempts) or None


@dataclass(slots=True)
class JournalHistory:
    """A run as its journal records it.

    `header` describes the latest start, with every setting that any start was given. `runs` is the number of starts,
    `last_number` the number of the journal's last line, and `rules` what people allowed for the rest of the run.
    """

    header: Mapping[str, Any] = field(default_factory=dict)
    instances: dict[str, EarlierInstance] = field(default_factory=dict)
    runs: int = 0
    damaged_lines: int = 0
    last_number: int = 0
    rules: list[Rule] = field(default_factory=list)

    @property
    def usage(self) -> Usage:
        """The tokens counted for all instances."""
        return sum((instance.usage for instance in self.instances.values()), Usage())

    @property
    def was_interrupted(self) -> bool:
        """Whether attempts have no end, so that what they used is not known."""
        return any(one.open_attempts for one in self.instances.values())

    @property
    def first_input(self) -> Usage:
        """The smallest input of any instance's first response; zero if no response had begun."""
        found = [one.first_input for one in self.instances.values() if one.first_input.total_tokens]
        return min(found, key=lambda usage: usage.total_tokens, default=NO_USAGE)


def read_history(records: Iterable[Mapping[str, Any] | None]) -> JournalHistory:
    """Read a journal's records in order (None: a damaged line). Unknown kinds of records are skipped."""
    history, n_read = JournalHistory(), 0
    for record in records:
        try:
            if record is None:
                history.damaged_lines += 1
                continue
            if record["n"] <= history.last_number:  # a copy of a line
                continue
            n_read, history.last_number = n_read + 1, record["n"]
            if record["kind"] == "run":
                _begin(history, record)
            elif record["kind"] == "expand":
                _enter(history, record["instances"])
            elif record["kind"] == "rule":
                history.rules.append(_rule(record["rule"]))
            elif record.get("instance") in history.instances:
                _apply_record(history.instances[record["instance"]], record)
                _note_open(history.instances[record["instance"]], record)
        except (KeyError, TypeError, ValueError):
            history.damaged_lines += 1
    history.damaged_lines = max(history.damaged_lines, history.last_number - n_read)
    return history


def _rule(data: Mapping[str, Any]) -> Rule:
    tool, pattern, exact = data["tool"], data["pattern"], data["exact"]
    if not isinstance(tool, str) or not isinstance(pattern, str | None) or not isinstance(exact, bool):
        raise TypeError("not a rule")
    return Rule(tool, pattern, exact)


def _begin(history: JournalHistory, record: Mapping[str, Any]) -> None:
    before, now = history.header.get("settings", {}), record.get("settings", {})
    budgets = [*before.get("command_budgets", ()), *now.get("command_budgets", ())]  # the last one for a key counts
    history.header = {**record, "settings": {**before, **now, **({"command_budgets": budgets} if budgets else {})}}
    history.runs = record["number"]
    _enter(history, record["instances"])


def _enter(history: JournalHistory, entries: Iterable[Mapping[str, Any]]) -> None:
    for entry in entries:
        instance = history.instances.setdefault(entry["name"], EarlierInstance(entry["name"]))
        instance.base_command, instance.turns_digest = entry["base_command"], entry["turns"]
        instance.group = entry.get("group")
        needs = entry.get("depends_on", ())
        instance.depends_on = tuple(map(str, needs)) if isinstance(needs, list) else ()


def _apply_record(instance: EarlierInstance, record: Mapping[str, Any]) -> None:
    if not 0 <= record.get("attempt", 0) <= MAX_ATTEMPTS:
        raise ValueError("not a number of attempts")
    match record["kind"]:
        case "launch":
            instance.state, instance.reason, instance.changes_known = State.RUNNING, "", False
            instance.attempts += [AttemptTotals(exact=False)] * (record["attempt"] - len(instance.attempts))
            instance.session_id, instance.turns_done = record["session"], record["turns_done"]
            instance.folder = _folder(record)
            instance.worked, instance.launched_at = record["goes_on"], record["at"]
        case "session":
            instance.session_id, instance.folder = record["session"], _folder(record)
        case "turn":
            instance.turns_done, instance.fix_due = record["done"], False
        case "check":
            _apply_check(instance, record)
        case "changes":
            instance.changes = changes_from(record["changes"])
            instance.changes_known = instance.changes is None or instance.changes.kept
        case "done":
            instance.state = State.COMPLETED
        case "usage":
            if not instance.first_input.total_tokens:
                instance.first_input = _usage_from(record["usage"])._replace(output_tokens=0)
            _count(instance, record, seconds=max(0.0, record["at"] - instance.launched_at))
            if "request" in record:
                instance.in_flight.note(record)
        case "sent" | "settled":
            instance.in_flight.note(record)
        case "recount":
            _count(instance, record, seconds=record["seconds"])
        case "end":
            instance.state, instance.reason = State(record["state"]), record["reason"]
            if record["attempt"]:
                _count(instance, record, seconds=record["seconds"])
                instance.session_id, instance.turns_done = record["session"], record["turns_done"]
                instance.done = record["done"]


def _note_open(instance: EarlierInstance, record: Mapping[str, Any]) -> None:
    """Note which attempts are without an end. The gateway's own count of an attempt needs no other."""
    number, kind, at = record.get("attempt", len(instance.attempts)), record["kind"], record["at"]
    if kind != "launch" and number not in instance.open_attempts:
        return
    if kind == "launch":
        for earlier in instance.open_attempts.values():
            earlier.next_at = min(earlier.next_at, at)
        log = record.get("log")  # earlier versions do not write it
        opened = OpenAttempt(at, at, log if isinstance(log, str) else None, record["session"] is not None)
        instance.open_attempts[number] = opened
    elif kind in ("end", "recount") or "request" in record:
        instance.open_attempts.pop(number, None)
    if number in instance.open_attempts:
        instance.open_attempts[number].last_at = at
        if isinstance(session := record.get("session"), str):
            instance.open_attempts[number].sessions[session] = None


def _apply_check(instance: EarlierInstance, record: Mapping[str, Any]) -> None:
    passed = bool(record["passed"])
    instance.check_rounds, instance.fix_due = int(record["round"]), not passed
    if passed:
        instance.verdict, instance.state = CheckVerdict(True), State.COMPLETED
    else:
        instance.verdict = CheckVerdict(False, str(record["reason"]), str(record["output"]), bool(record["hopeless"]))


def _folder(record: Mapping[str, Any]) -> str | None:
    folder = record.get("folder")  # earlier versions do not write it
    return folder if isinstance(folder, str) else None


def _count(instance: EarlierInstance, record: Mapping[str, Any], *, seconds: float) -> None:
    usage, cost_usd = _usage_from(record["usage"]), record["cost_usd"]
    stated = None if cost_usd is None else round(cost_usd * NANO)
    charged = record.get("cost_nano_usd", stated)  # earlier versions do not write it
    if not all(value is None or isinstance(value, int | float) for value in (seconds, cost_usd, charged)):
        raise ValueError("not a cost or a time")
    models = record.get("models", {})  # earlier versions do not write it
    if not isinstance(models, dict):
        raise ValueError("not models")
    by_model = {model: _usage_from(counts) for model, counts in models.items()}
    instance.attempts += [AttemptTotals(exact=False)] * (record["attempt"] - len(instance.attempts))
    # without an end record the attempt was interrupted, and its use after its last line is unknown
    exact = record["kind"] in ("end", "recount") and record["exact"]
    instance.attempts[record["attempt"] - 1] = AttemptTotals(
        usage, exact, cost_usd, seconds, charged, tuple(by_model.items())
    )
    instance.worked = instance.worked or usage.total_tokens > 0


def _usage_from(counts: Iterable[object]) -> Usage:
    if isinstance(counts, list) and list(map(type, counts)) == _FOUR:  # a journal has a hundred thousand of these
        plain: list[int] = counts
        if not (min(plain) < 0 or max(plain) > MAX_COUNT):
            return Usage(*plain)
    found = [read_count(count) for count in counts]
    if len(found) != len(Usage().counts) or not all(is_count for _, is_count in found):
        raise ValueError("not the four counts")
    return Usage(*(count for count, _ in found))
