"""The command that continues a run which did not complete. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from claude_orchestrator.config.fields import PROGRAM
from claude_orchestrator.config.given import Options, not_stored, repeated
from claude_orchestrator.engine.loading import FROM_PROMPT
from claude_orchestrator.engine.run_view import RunView
from claude_orchestrator.engine.state import InstanceStatus, State
from token_budget.budget_manager import WINDOW_SCOPES
from token_budget.models import Budget, Scope, Unit
from token_budget.text import NANO, counted

MAX_REPEATED_CHARS = 200  # of a PROMPT
SAME_PROMPT, SAME_ITEMS = "-  (with the same PROMPT on standard input)", "(with the same items on standard input)"
STANDARD_INPUT = ("-", "@-")


def continue_command(options: Options, view: RunView) -> str:
    """It repeats the options that the run does not store, and raises the limits that ended instances."""
    import shlex

    words = [PROGRAM, "--resume", view.run_id, *repeated(options, "output_dir"), *not_stored(options)]
    words += raised_limits(view)
    end = ["--"] if options.prompt is not None and options.prompt.startswith("-") else []  # it would be an option
    if options["for_each"] in STANDARD_INPUT:
        return f"{shlex.join([*words, *end, options.prompt or ''])}  {SAME_ITEMS}"
    if options.prompt is None:
        return shlex.join(words)
    if len(options.prompt) > MAX_REPEATED_CHARS or not options.prompt.isprintable():
        return f"{shlex.join(words)} {SAME_PROMPT}"
    return shlex.join([*words, *end, options.prompt])


def rest_of_command(header: Mapping[str, Any], finish: Mapping[str, Any]) -> str:
    """What follows the run's name in such a command, by the records of its start and end. None of them has a PROMPT."""
    import shlex

    parts = [shlex.join((*_words(header.get("not_stored")), *_words(finish.get("raised"))))]
    if header.get("source") == FROM_PROMPT:
        selection = header.get("selection")
        has_items = isinstance(selection, dict) and selection.get("for_each") in STANDARD_INPUT
        parts.append(f" (add the same PROMPT)  {SAME_ITEMS}" if has_items else SAME_PROMPT)
    return " ".join(filter(None, parts))


def _words(found: object) -> Iterable[str]:
    return map(str, found) if isinstance(found, list) else ()


def apply_line(options: Options, view: RunView) -> str | None:
    """What completed instances have changed in worktrees, and the command that applies it; None without changes."""
    changed = [
        status.changes
        for status in view.instances
        if status.state is State.COMPLETED and status.changes is not None and status.changes.kept
    ]
    if not changed:
        return None
    import shlex

    words = [PROGRAM, "--apply", view.run_id, *repeated(options, "output_dir")]
    files = counted(sum(one.files for one in changed), "file")
    return f"Changes: {files} in {counted(len(changed), 'worktree')}. Apply them: {shlex.join(words)}"


def raised_limits(view: RunView) -> Iterator[str]:
    """Options for the limits that stopped or blocked instances: what is used, and what the rest is estimated to use.

    An instance that was stopped may well need as much again as it has used. The gateway sends the last request only if
    the budget has room for the most that it may draw.
    """
    left = [status for status in view.instances if status.state is not State.COMPLETED and not status.unneeded]
    for budget, enough in view.changes.limits.items():
        if budget.scope in WINDOW_SCOPES and budget.key:  # the limit of an account is in the ledger
            continue
        draws = [one for one in left if budget in view.manager.budgets_for(one.planned.base_command, one.name)]
        needed = budget.used + sum(max(one.planned.estimate.of(budget.unit), _used(one, budget)) for one in draws)
        needed += view.changes.next_requests.get(budget, 0)
        yield from _option(budget, max(needed, budget.limit + 1, enough))


def _used(status: InstanceStatus, budget: Budget) -> int:
    if budget.unit is Unit.TOKENS:
        return status.total_tokens
    return status.nano_usd or 0


def _option(budget: Budget, needed: int) -> tuple[str, str]:
    """The option that gives a budget this limit, rounded up to two digits."""
    kind = "cost" if budget.unit is Unit.USD else "token"
    limit = _rounded_up(needed)
    text = f"{limit / NANO:.9f}".rstrip("0").rstrip(".") if budget.unit is Unit.USD else _short(limit)
    match budget.scope:
        case Scope.COMMAND | Scope.GROUP | Scope.INSTANCE:
            return f"--command{'-cost' if budget.unit is Unit.USD else ''}-budget", f"{budget.key}={text}"
        case scope:
            return f"--{scope}-{kind}-budget", text


def _rounded_up(number: int) -> int:
    step = int(10 ** max(0, len(str(number)) - 2))
    return -(-number // step) * step


def _short(tokens: int) -> str:
    for size, unit in ((1_000_000, "M"), (1_000, "k")):
        if tokens % (size // 10) == 0 and tokens >= size:
            return f"{tokens / size:g}{unit}"
    return str(tokens)
