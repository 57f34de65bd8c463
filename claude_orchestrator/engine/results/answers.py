"""An instance's answer, the names of its files, and its form in reports. Pure."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

from claude_orchestrator.engine.run_view import place_fields, usage_fields
from claude_orchestrator.engine.state import InstanceStatus
from token_budget.named_tuples import NamedTuple

MAX_REPORTED_BYTES = 64 * 1024
AnswerOf = Callable[[str], Mapping[str, Any]]  # what an instance's entry says of its answer, by the instance's name


class Answer(NamedTuple):
    """What an instance answered. `text` is the result of its last turn, `earlier` are those of the turns before.

    `file` holds the whole text; None where there is no answer, or where it could not be written. `structured_file`
    is that of the structured output.
    """

    text: str | None = None
    structured_output: Any = None
    earlier: tuple[str, ...] = ()
    file: str | None = None
    structured_file: str | None = None


def no_answers(name: str) -> Mapping[str, Any]:
    """Nothing is kept of any instance."""
    return {}


def clipped(text: str, limit_bytes: int = MAX_REPORTED_BYTES) -> tuple[str, bool]:
    """A text of at most so many bytes of UTF-8, and whether it was cut."""
    data = text.encode("utf-8", "replace")
    return (text, False) if len(data) <= limit_bytes else (data[:limit_bytes].decode("utf-8", "ignore"), True)


def report_fields(answer: Answer) -> dict[str, Any]:
    """An answer in the JSON report: long texts are cut, `result_file` has the whole one."""
    text, cut = (None, False) if answer.text is None else clipped(answer.text)
    return {
        "result": text,
        **({"result_truncated": True} if cut else {}),
        "result_file": answer.file,
        "structured_output": answer.structured_output,
        "turn_results": [clipped(earlier)[0] for earlier in answer.earlier],
    }


def printed(answers: Iterable[tuple[str, str | None]], *, with_names: bool) -> str:
    """The answers as text for standard output, each under its name if that is asked for."""
    parts = []
    for name, text in answers:
        body = "" if text is None else text if text.endswith("\n") else f"{text}\n"
        parts.append(f"# {name}\n\n{body}" if with_names else body)
    return "\n".join(parts)


def result_row(run_id: str, status: InstanceStatus, answer: Answer) -> dict[str, Any]:
    """One line of `--results`."""
    return {
        "run_id": run_id,
        "name": status.name,
        **place_fields(status.spec),
        "status": str(status.state),
        "reason": status.reason,
        "result": answer.text,
        "structured_output": answer.structured_output,
        "session_id": status.session_id,
        "usage": usage_fields(status.usage, exact=status.exact),
        "cost_usd": status.cost_usd,
        "duration_s": round(status.seconds(0.0), 3) if status.launched else None,
        "changes": None if status.changes is None else status.changes.fields,
        "verified": status.verified,
        "check_rounds": status.check_rounds,
    }
