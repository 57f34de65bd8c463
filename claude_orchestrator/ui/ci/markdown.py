"""A run as Markdown for the summary of a workflow: a table, the budgets, and the answers folded. Pure."""

from __future__ import annotations

import html
import string
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from typing import TypeVar

from claude_orchestrator.engine.results.answers import AnswerOf, no_answers
from claude_orchestrator.engine.run_view import RunView
from claude_orchestrator.engine.snapshot import Row, Snapshot, Snapshots
from claude_orchestrator.engine.state import State
from claude_orchestrator.ui.screen import header
from claude_orchestrator.ui.table import at_least, duration
from token_budget.models import Budget
from token_budget.text import RenderOptions, counted, format_tokens, format_usd, printable

MAX_BYTES = 1024 * 1024  # of a step's summary; GitHub shows nothing of a larger one
ROWS_SHOWN = (300, 50, 5)  # as many as there is room for
BUDGETS_SHOWN = 50
MAX_CELL_CHARS = 200
MAX_ANSWER_CHARS = 60_000
_RESERVED_BYTES = 200  # for the line about what is left out
# character references have no meaning in Markdown, whatever they stand for
_LITERAL = str.maketrans({char: f"&#{ord(char)};" for char in string.punctuation if char not in "-,;/"})
_Value = TypeVar("_Value")
_ANY_WIDTH = RenderOptions(10_000)


def markdown_summary(view: RunView, now: float, answer_of: AnswerOf = no_answers, max_bytes: int = MAX_BYTES) -> str:
    """The run in at most `max_bytes` of UTF-8; empty if that is too little for anything.

    Names, reasons and answers can contain anything, and are shown as they are.
    """
    run = Snapshots(view).take(now)
    for rows in ROWS_SHOWN:
        head = "\n".join(_head(run, rows)) + "\n"
        room = max_bytes - len(head.encode()) - _RESERVED_BYTES
        if room >= 0:
            return head + "".join(_answers(run.rows, answer_of, room))
    return ""


def _head(run: Snapshot, most_rows: int) -> Iterator[str]:
    yield f"### claude-orchestrator: {html.escape(header(run, _ANY_WIDTH))}"
    yield ""
    # what did not complete comes first
    rows = sorted(run.rows, key=lambda row: row.state is State.COMPLETED or row.unneeded)
    yield from _table(
        ("Instance", "State", "Time", "Tokens", "Cost", "Turn", "Reason"),
        ":- :- -: -: -: -: :-",
        rows[:most_rows],
        _row,
    )
    if len(rows) > most_rows:
        states = Counter(str(row.state) for row in rows[most_rows:])
        counts = ", ".join(f"{count:,} {state}" for state, count in states.items())
        yield f"\n… and {len(rows) - most_rows:,} more: {counts}"
    budgets = sorted(run.budgets, key=lambda budget: -budget.percentage)
    if budgets:
        yield ""
        yield from _table(("Budget", "Used", "Limit", ""), ":- -: -: -:", budgets[:BUDGETS_SHOWN], _budget)
    if len(budgets) > BUDGETS_SHOWN:
        yield f"\n… and {len(budgets) - BUDGETS_SHOWN:,} more with less use"
    yield f"\nRun {_code(run.run_id)}"


def _table(
    titles: Sequence[str], alignment: str, values: Sequence[_Value], row: Callable[[_Value], Sequence[str]]
) -> Iterator[str]:
    yield f"| {' | '.join(titles)} |"
    yield f"| {alignment.replace(' ', ' | ')} |"
    for value in values:
        yield f"| {' | '.join(row(value))} |"


def _row(row: Row) -> Sequence[str]:
    return (
        _code(row.name),
        _literal(row.label) if row.state is State.COMPLETED or row.unneeded else f"**{_literal(row.label)}**",
        "" if row.seconds is None else duration(row.seconds),
        _literal(at_least(row.exact)) + format_tokens(row.usage.total_tokens) if row.attempts else "",
        "" if row.nano_usd is None else _literal(format_usd(row.nano_usd)),
        f"{row.turn}/{row.turns}" if row.attempts else "",
        "" if row.state is State.COMPLETED or not row.doing else _code(row.doing),
    )


def _budget(budget: Budget) -> Sequence[str]:
    used, limit = (_literal(budget.unit.show(quantity)) for quantity in (budget.used, budget.limit))
    mark = "🔴 " if budget.percentage > 90 else "🟡 " if budget.percentage >= 70 else "🟢 "
    return _code(budget.label), used, limit, f"{mark}{int(budget.percentage)} %"


def _answers(rows: Sequence[Row], answer_of: AnswerOf, room: int) -> Iterator[str]:
    """A folded section for each answer, as far as there is room."""
    left_out = 0
    for row in rows:
        found = answer_of(row.name)
        text = found.get("result")
        if not isinstance(text, str) or not text.strip():
            continue
        shown = text[:MAX_ANSWER_CHARS]
        if len(shown) > room:  # it has more bytes than characters
            left_out += 1
            continue
        more = "\n\n… (cut)" if len(text) > len(shown) or found.get("result_truncated") else ""
        lines = "\n".join(html.escape("\t".join(map(printable, line.split("\t")))) for line in shown.split("\n"))
        section = f"\n<details><summary>{_code(row.name)}</summary>\n\n<pre>\n{lines}{more}\n</pre>\n\n</details>\n"
        size = len(section.encode("utf-8", "replace"))
        if size > room:
            left_out += 1
            continue
        room -= size
        yield section
    if left_out:
        yield f"\n{counted(left_out, 'more answer')} in the files of the run\n"


def _literal(text: str) -> str:
    """One line of text in which nothing is Markdown, HTML, a link or a mention."""
    line = " ".join(printable(" ".join(text.split())).split())
    if len(line) > MAX_CELL_CHARS:
        line = line[: MAX_CELL_CHARS - 1] + "…"
    return line.translate(_LITERAL)


def _code(text: str) -> str:
    """The same in the type of code, where GitHub looks for no mentions."""
    return f"<code>{_literal(text)}</code>"
