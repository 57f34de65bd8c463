"""Counts again the attempts that a kill left without an end, from their logs and from claude's own transcripts."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from pathlib import Path

from claude_orchestrator.claude.events import Price
from claude_orchestrator.claude.recount import Recount
from claude_orchestrator.claude.stream import LineFramer
from claude_orchestrator.config.kinds import is_session_id
from claude_orchestrator.config.launch_spec import LaunchSpec
from claude_orchestrator.config.plan import Plan
from claude_orchestrator.config.settings import Settings
from claude_orchestrator.engine.attempt import AttemptTotals
from claude_orchestrator.engine.journal_history import EarlierInstance, JournalHistory, OpenAttempt
from claude_orchestrator.engine.run_events import Recounted
from claude_orchestrator.engine.sessions import config_folder
from claude_orchestrator.engine.state import State
from claude_orchestrator.engine.usage_delta import AttemptCosts
from token_budget.folders import Folder
from token_budget.ledger.transcript_files import open_if_there, read_objects
from token_budget.models import Usage
from token_budget.named_tuples import NamedTuple

MAX_LOG_BYTES = 512 * 1024 * 1024  # of one attempt; the rest of a longer one is left to its journal
CHUNK_BYTES = 1024 * 1024
OUTLIVES_S = 5.0  # how long after its last line a process may have worked: the guard ends it within 2 s


class _Sources(NamedTuple):
    """Where to look: the run's folder, and the place of the instance's own claude."""

    folder: Folder
    projects: Path
    price: Price | None
    charges_unanswered: bool
    first_input: Usage


def count_interrupted(
    folder: Folder, history: JournalHistory, plan: Plan, price: Price | None, *, charge_unanswered: bool
) -> list[Recounted]:
    """Count the interrupted attempts of a run again, and enter in `history` what they had used.

    With `charge_unanswered`, a request that had no answer counts with an estimate of its input.

    Returns those whose counts changed. What cannot be read stays as the journal has it.
    """
    specs, found = {spec.name: spec for spec in plan.specs}, []
    first_input = history.first_input
    for instance in (one for one in history.instances.values() if one.open_attempts):
        spec = specs.get(instance.name) or specs.get(instance.group or "")
        sources = _Sources(folder, _projects(spec, instance), price, charge_unanswered, first_input)
        for number, opened in instance.open_attempts.items():
            before = instance.attempts[number - 1]
            was_done = instance.state is State.COMPLETED and number == len(instance.attempts)
            after = _recounted(sources, opened, before, was_done=was_done)
            if after != before:
                instance.attempts[number - 1] = after
                found.append(Recounted(instance.name, number, after))
    return found


def _projects(spec: LaunchSpec | None, instance: EarlierInstance) -> Path:
    environ: Mapping[str, str] = {**os.environ, **dict(spec.env if spec is not None else ())}
    folder = spec.cwd if spec is not None else instance.folder
    return config_folder(Path(folder or "."), environ) / "projects"


def _recounted(sources: _Sources, opened: OpenAttempt, before: AttemptTotals, *, was_done: bool) -> AttemptTotals:
    recount, until_s = Recount(resumed=opened.resumed, first_input=sources.first_input), opened.last_at
    if opened.log is not None:
        until_s = max(until_s, _read_log(sources.folder, opened.log, recount))
    span = opened.launched_at, min(until_s + OUTLIVES_S, opened.next_at)
    for session in {**opened.sessions, **recount.sessions}:
        if is_session_id(session):
            _read_transcripts(sources.projects, session, recount, span)
    recount.close()
    usage = before.usage | recount.usage
    if sources.charges_unanswered:
        usage += recount.unanswered
    exact = was_done and recount.exact and usage == recount.usage
    cost_usd, cost_nano_usd = _costs(recount, before, sources)
    by_model = tuple(recount.by_model.items())
    return AttemptTotals(usage, exact, cost_usd, before.seconds, cost_nano_usd, by_model)


def _read_log(folder: Folder, name: str, recount: Recount) -> float:
    """Read an attempt's stream again; returns when its last line came."""
    try:
        with os.fdopen(folder.file(name, os.O_RDONLY), "rb") as file:
            framer = LineFramer()
            while file.tell() < MAX_LOG_BYTES and (chunk := file.read(CHUNK_BYTES)):
                recount.read_stream(framer.feed(chunk))
            return os.fstat(file.fileno()).st_mtime
    except OSError:
        return 0.0


def _read_transcripts(projects: Path, session: str, recount: Recount, span: tuple[float, float]) -> None:
    for path in projects.glob(f"*/{session}.jsonl"):
        for line in _lines(path):
            recount.read_transcript(line, *span)
    for path in projects.glob(f"*/{session}/subagents/**/*.jsonl"):
        for line in _lines(path):
            recount.read_transcript(line, *span, path.stem)


def _lines(path: Path) -> Iterator[Mapping[str, object]]:
    if not path.is_file():  # a pipe would never end
        return
    try:
        with open_if_there(path) as file:
            yield from (line for line in (read_objects(file) if file is not None else ()) if line is not None)
    except OSError:
        return


def _costs(recount: Recount, before: AttemptTotals, sources: _Sources) -> tuple[float | None, int | None]:
    """What the attempt has cost: as claude states it, and with prices for the rest where there are prices."""
    costs, price, uncosted = AttemptCosts(recount.tally), sources.price, recount.uncosted
    if sources.charges_unanswered:
        uncosted = uncosted._replace(usage=uncosted.usage + recount.unanswered)
    if price is not None:
        costs.price(price, None)
        if uncosted.usage.total_tokens:
            costs.price(price, uncosted)
    stated = [cost for cost in (before.cost_usd, recount.tally.cost_usd) if cost is not None]
    charged = [cost for cost in (before.cost_nano_usd, costs.nano_usd) if cost is not None]
    return max(stated, default=None), max(charged, default=None)


def interrupted_attempts(
    folder: Folder, history: JournalHistory, plan: Plan, settings: Settings, price: Price | None
) -> tuple[list[Recounted], list[tuple[str, str]]]:
    """Count a real run's interrupted attempts again; returns them, and a message with its level if tokens were added.

    `charge_unanswered` decides on requests without an answer, as for those at the gateway.
    """
    before = history.usage
    charge = settings.charge_unanswered or ("bound" if settings.budget_enforcement_mode == "block" else "none")
    found = count_interrupted(folder, history, plan, price, charge_unanswered=charge != "none")
    more = history.usage - before
    return found, [("INFO", message(found, more.total_tokens))] if more.total_tokens else []


def message(found: list[Recounted], more_tokens: int) -> str:
    """What a resumed run reports of them."""
    which = "1 interrupted attempt was" if len(found) == 1 else f"{len(found):,} interrupted attempts were"
    return f"{which} counted again from the logs and Claude's transcripts: {more_tokens:,} more tokens"
