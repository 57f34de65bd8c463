"""Finds the run or command in the ledger that a user means."""

from __future__ import annotations

from token_budget.ledger.records import RunRecord
from token_budget.ledger.store import LedgerStore
from token_budget.text import printable
from token_budget.usage.nearest import nearest

NEAR_AMONG = 5_000  # latest runs
NAMED = 3  # known names that a message lists


def find_run(ledger: LedgerStore, run_id: str, option: str = "RUN_ID") -> RunRecord:
    """A run by its id; `last` is the one that started last. Raises ValueError with a line for the user of `option`."""
    if run_id != "last":
        found = ledger.runs(run=run_id)
        if found:
            return found[0]
    runs = ledger.runs()
    if not runs:
        raise ValueError(f"{option}: the ledger has no run yet")
    if run_id == "last":
        return runs[-1]
    ids = [run.run for run in reversed(runs)]
    near = nearest(run_id, ids[:NEAR_AMONG])
    hint = f"the nearest: {', '.join(map(printable, near))}" if near else f"the latest: {printable(ids[0])}"
    raise ValueError(f"{option}: expected a run of the ledger or last, got '{printable(run_id)}'; {hint}")


def find_subject(ledger: LedgerStore, asked: str, option: str = "COMMAND") -> tuple[str | None, str]:
    """What a text asks a forecast for: a base command of the ledger, or an instance with a plain prompt.

    A base command is the text's first word, with or without its slash. The text may also be the name of an instance;
    the base command is then None. Raises ValueError with a line for the user of `option`.
    """
    asked = asked.strip()
    word = next(iter(asked.split()), "")
    for name in (word, f"/{word}"):
        if ledger.attempts(base_command=name, latest=1):
            return name, ""
    named = [*ledger.attempts(instance=asked, imported=False), *ledger.attempts_of_group(asked)]
    if any(attempt.base_command is None for attempt in named):
        return None, asked
    raise ValueError(
        f"{option}: expected a command or an instance of the ledger, got '{printable(asked)}'; {_hint(ledger, asked)}"
    )


def _hint(ledger: LedgerStore, asked: str) -> str:
    """The commands and instances with plain prompts that are near to a text, or else some known commands."""
    sums = ledger.sums("command", "instance")
    commands = sorted({command for command, _ in (part.groups for part in sums) if command})
    prompts = sorted({instance for command, instance in (part.groups for part in sums) if not command and instance})
    word = next(iter(asked.split()), "").removeprefix("/")
    near = [*nearest(f"/{word}", commands), *nearest(asked, prompts)]
    known = [*commands, *prompts]
    names = ", ".join(map(printable, near or known[:NAMED])) or "none"
    return f"the nearest: {names}" if near else f"known: {names}{', …' if len(known) > NAMED else ''}"
