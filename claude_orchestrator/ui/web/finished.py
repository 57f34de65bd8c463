"""Collects what the page of a finished run contains, from the run and the files in its directory."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from claude_orchestrator.engine import journal
from claude_orchestrator.engine.control.event_json import event_json
from claude_orchestrator.engine.control.snapshot import Rows, RunMoment, Steering, snapshot
from claude_orchestrator.engine.run_request import RunResult
from claude_orchestrator.engine.snapshot import Snapshots
from claude_orchestrator.ui.web.page_file import MAX_DATA_BYTES, fitting, page_file, short_conversation
from claude_orchestrator.ui.web.run_files import NoFileError, RunFiles
from claude_orchestrator.ui.web.timeline import recorded
from token_budget.folders import Folder

MAX_TALK_BYTES = 2_000_000  # of a log that is read for the page


def html_bytes(result: RunResult) -> bytes:
    """The page of a run that has ended. Raises OSError."""
    view, now = result.view, time.monotonic()
    assert view.directory is not None
    directory = Path(view.directory).absolute()

    def notable() -> Iterator[dict[str, Any]]:
        for at, event in view.changes.notable:
            yield {"at": round(at, 3), **event_json(event, view, now)}

    steering = Steering("ended", False, 1, str(directory))
    with Folder.open(directory) as folder:
        with os.fdopen(folder.file(journal.NAME, os.O_RDONLY), "rb") as file:
            records = list(journal.records(file.read()))
        run = snapshot(view, Rows(view), steering, RunMoment(now, Snapshots(view).take(now)), notable)
        timeline = recorded(records, run["budgets"], {row["name"]: row["budgets"] for row in run["instances"]})
        data = {
            **run,
            "number": 0,
            "source": "file",
            "at": time.time(),
            "timeline": timeline.data(),
        }
        return page_file(data, _parts(RunFiles(folder), data["instances"]))


def _parts(files: RunFiles, rows: list[Mapping[str, Any]]) -> dict[str, dict[str, Any]]:
    """What instances said, answered and changed. A third of the room is for each."""
    room = MAX_DATA_BYTES // 3
    answers = fitting([_text(files, "answer", row) for row in rows], room)
    patches = fitting([_text(files, "patch", row) for row in rows], room)
    each = room // max(1, len(rows))
    parts = {}
    for row, answer, patch in zip(rows, answers, patches, strict=True):
        talk = short_conversation(_lines(files, row), each)
        found = {"answer": answer, "patch": patch, "conversation": talk}
        parts[row["name"]] = {kind: value for kind, value in found.items() if value}
    return parts


def _text(files: RunFiles, kind: str, row: Mapping[str, Any]) -> str:
    try:
        part = files.answer(row) if kind == "answer" else files.patch(row)
    except NoFileError:
        return ""
    return part.data.decode("utf-8", "replace")


def _lines(files: RunFiles, row: Mapping[str, Any]) -> Iterator[bytes]:
    logs = files.attempts(row)
    offset = 0
    while logs and offset < MAX_TALK_BYTES:
        try:
            part = files.lines(logs[-1], offset)
        except NoFileError:
            return
        yield from part.data.split(b"\n")
        if part.next == offset:
            return
        offset = part.next
