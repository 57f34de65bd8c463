"""Opens the directory of an earlier run, to resume the run or to apply its changes."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from pathlib import Path

from claude_orchestrator.engine import journal
from claude_orchestrator.engine.journal_history import JournalHistory, read_history
from claude_orchestrator.engine.run_dir import RunDirectory
from claude_orchestrator.errors import UserError
from token_budget.folders import Folder
from token_budget.named_tuples import NamedTuple
from token_budget.owned import NotOursError

LAST = "last"
MAX_HEADER_BYTES = 64 * 1024 * 1024


class EarlierRun(NamedTuple):
    """A run to resume: its directory, what its journal records, and the journal, locked."""

    directory: RunDirectory
    history: JournalHistory
    journal: journal.Journal


def reopen_run(
    output_dir: Path, run_id: str, warn: Callable[[str], None], *, rehearsal: bool, verb: str = "resume"
) -> EarlierRun:
    """Open the run with this id; `last` is the latest rehearsal or the latest real run, as `rehearsal` asks.

    Messages name the option `verb`.

    Raises UserError if there is none, if another user made it, or if another orchestrator is running it.
    """
    try:
        with Folder.open(output_dir, may_be_shared=True) as runs:
            name = (
                _last_run(runs, warn, rehearsal=rehearsal, verb=verb) if run_id == LAST else _whole(runs, run_id, verb)
            )
            if Path(name).name != name or name in ("", ".."):
                raise FileNotFoundError
            folder = runs.folder(name)
    except NotOursError as error:
        raise UserError(f"--{verb}: {error.strerror}") from None
    except OSError:
        what = f"run {run_id!r}" if run_id != LAST else f"{'rehearsal' if rehearsal else 'run'} to {verb}"
        raise UserError(f"--{verb}: no {what} in {output_dir}: claude-runs lists the runs") from None
    data, opened = journal.reopen(folder, warn, verb)
    history = read_history(journal.records(data))
    if not history.header:
        opened.close()
        raise UserError(
            f"--{verb}: {folder.path / journal.NAME}: its first line is damaged: this run cannot be resumed"
        )
    opened.continue_after(history.last_number)
    return EarlierRun(RunDirectory(folder, warn), history, opened)


def matching(names: Sequence[str], text: str) -> list[str]:
    """The names of runs that a text stands for: that name itself, or else all that begin with it."""
    return [text] if text in names else [name for name in names if text and name.startswith(text)]


def _whole(runs: Folder, beginning: str, verb: str) -> str:
    """The only run that begins like this; else the text itself. Raises UserError for several."""
    found = matching(runs.names(), beginning)
    if len(found) > 1:
        raise UserError(f"--{verb}: {beginning}: several runs begin with this: claude-runs lists the runs")
    return found[0] if found else beginning


def _last_run(runs: Folder, warn: Callable[[str], None], *, rehearsal: bool, verb: str) -> str:
    """The name of the latest run. Raises FileNotFoundError if there is none."""
    found, unreadable = [], []
    for name in runs.names():
        try:
            with runs.folder(name) as folder, os.fdopen(folder.file(journal.NAME, os.O_RDONLY), "rb") as file:
                header = journal.decode(file.readline(MAX_HEADER_BYTES).rstrip(b"\n"))
                written_ns = os.fstat(file.fileno()).st_mtime_ns
        except NotOursError as error:
            warn(f"--{verb} last: skipped: {error.strerror}")
        except OSError:  # no run, or one without a journal
            continue
        else:
            if header is None:
                unreadable.append((written_ns, name))
            elif header.get("rehearsal") is rehearsal:
                found.append((written_ns, name))
    if not found:
        raise FileNotFoundError
    last = max(found)
    for _, name in sorted(newer for newer in unreadable if newer > last):
        warn(f"--{verb} last: {name} is newer, but its journal is damaged: skipped")
    return last[1]
