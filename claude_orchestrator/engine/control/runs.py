"""Finds runs, and reads them: from their orchestrator while it is there, else from their directory."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from claude_orchestrator.config.fields import PROGRAM
from claude_orchestrator.engine import journal
from claude_orchestrator.engine.control.client import AnsweredError, ControlClient
from claude_orchestrator.engine.control.commands import output_dir_option, runs_command
from claude_orchestrator.engine.control.past import past_status
from claude_orchestrator.engine.control.socket_place import NotListening
from claude_orchestrator.engine.earlier_runs import LAST, matching
from claude_orchestrator.engine.file_names import file_stems
from claude_orchestrator.engine.results.answer_files import FOLDER as RESULTS
from claude_orchestrator.errors import UserError
from token_budget.folders import Folder
from token_budget.named_tuples import NamedTuple
from token_budget.owned import NotOursError
from token_budget.text import printable

NAMES_SHOWN = 5


class FoundRun(NamedTuple):
    """A run's id and its directory."""

    id: str
    path: Path

    def command(self, verb: str, *more: str) -> str:
        """The claude-runs command for this run."""
        return " ".join((runs_command(self.path.parent), verb, self.id, *more))

    def resume_command(self, status: Mapping[str, Any]) -> str:
        """The command that continues the run, of which this is the status."""
        command = f"{PROGRAM} --resume {self.id}{output_dir_option(self.path.parent)}"
        return printable(f"{command} {status['run']['resume_with']}".rstrip())


def run_names(output_dir: Path) -> list[str]:
    """The ids of this user's runs in a folder, the latest last. Raises UserError where others can change the folder."""
    try:
        with Folder.open(output_dir, may_be_shared=True) as folder:
            return sorted(name for name in folder.names() if _is_ours(folder, name))
    except NotOursError as error:
        raise UserError(f"--output-dir: {error.strerror}") from None
    except OSError:
        return []


def _is_ours(runs: Folder, name: str) -> bool:
    """Whether this run belongs to this user. A folder that everybody can write to may contain runs of others."""
    try:
        with runs.folder(name) as folder:
            os.close(folder.file(journal.NAME, os.O_RDONLY))
    except OSError:
        return False
    return True


def find_run(output_dir: Path, text: str) -> FoundRun:
    """The run with this id or unique prefix; `last` is the latest one. Raises UserError."""
    names = run_names(output_dir)
    if text not in ("", LAST, "..") and Path(text).name == text and text not in names and (output_dir / text).is_dir():
        return FoundRun(text, output_dir / text)  # whoever opens it gets the reason why it is none
    if not names:
        raise UserError(f"there are no runs in {output_dir}")
    if text == LAST:
        return FoundRun(names[-1], output_dir / names[-1])
    found = matching(names, text)
    if len(found) == 1:
        return FoundRun(found[0], output_dir / found[0])
    if found:
        more = f" and {len(found) - NAMES_SHOWN} more" if len(found) > NAMES_SHOWN else ""
        raise UserError(f"{text}: several runs begin with this: {', '.join(found[-NAMES_SHOWN:])}{more}")
    raise UserError(f"no run is called {text!r}; see claude-runs list")


@contextlib.contextmanager
def opened(run: FoundRun) -> Iterator[Folder]:
    """The run's directory, open. Raises UserError."""
    try:
        folder = Folder.open(run.path)
    except NotOursError as error:
        raise UserError(f"{run.id}: {error.strerror}") from None
    except OSError as error:
        raise UserError(f"{run.id}: {error.strerror or error}") from None
    with folder:
        yield folder


def connect(run: FoundRun, timeout_s: float | None = 10.0) -> ControlClient | None:
    """A connection to the orchestrator of the run; None if it is gone, or does not listen."""
    with opened(run) as folder:
        try:
            return ControlClient(folder, timeout_s)
        except NotListening:
            return None
        except OSError as error:
            raise UserError(f"{run.id}: its orchestrator cannot be reached: {error.strerror or error}") from None


@contextlib.contextmanager
def answering(run: FoundRun) -> Iterator[None]:
    """Raise UserError if the orchestrator refuses, hangs or has left."""
    try:
        yield
    except AnsweredError as error:
        raise UserError(str(error)) from None
    except TimeoutError:
        raise UserError(f"{run.id}: its orchestrator does not answer") from None
    except ConnectionError:
        raise UserError(f"{run.id}: the run has just ended") from None


def status_of(run: FoundRun, *, brief: bool = False) -> dict[str, Any]:
    """The run as JSON data, from its orchestrator or from its directory. Raises UserError."""
    client = connect(run)
    if client is not None:
        with client, contextlib.suppress(OSError):
            found: dict[str, Any] = client.call("status", brief=brief)
            return {**found, "live": True}
    return past_of(run)


def past_of(run: FoundRun) -> dict[str, Any]:
    """The run from its directory. Raises UserError."""
    with opened(run) as folder:
        try:
            with os.fdopen(folder.file(journal.NAME, os.O_RDONLY), "rb") as file:
                if os.fstat(file.fileno()).st_size > journal.MAX_BYTES:
                    raise UserError(f"{run.id}: its journal is larger than {journal.MAX_BYTES // 2**30} GiB")
                data = file.read()
                used = journal.is_locked(file.fileno())
        except OSError as error:
            raise UserError(f"{run.id}: its journal cannot be read: {error.strerror or error}") from None
    stems: dict[str, str] = {}

    def result_of(name: str) -> str | None:
        if not stems:
            stems.update(file_stems(names))
        path = f"{RESULTS}/{stems[name]}.md"
        return path if (run.path / path).is_file() else None

    records = list(journal.records(data))
    names = _names_in(records)
    status = past_status(records, str(run.path.absolute()), result_of)
    if status is None:
        raise UserError(f"{run.id}: the first line of its journal is damaged")
    if used:
        status["run"]["state"] = "unreachable"
    return {**status, "live": False}


def _names_in(records: list[dict[str, Any] | None]) -> list[str]:
    entries = (record.get("instances", ()) for record in records if record and record.get("kind") in ("run", "expand"))
    return list(dict.fromkeys(entry["name"] for found in entries for entry in found if "name" in entry))
