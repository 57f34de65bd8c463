"""What the ledger could not take at the end of a run: kept in the run's directory, and taken in by a later run."""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from token_budget.files import write_atomically
from token_budget.folders import Folder
from token_budget.ledger.address import whole_name

if TYPE_CHECKING:
    from token_budget.ledger.import_reader import ImportData
    from token_budget.ledger.store import LedgerStore

NAME = "ledger-pending.jsonl"
MAX_RUNS = 1_000  # so many of the latest runs are looked through
MAX_BYTES = 64 * 1024 * 1024


def keep(run_directory: Path, ledger: str, parcel: ImportData) -> Path:
    """Keep what belongs into a ledger, beside what an earlier start has left; returns the file. Raises OSError."""
    from token_budget.ledger.export_import import lines_of

    path = run_directory / NAME
    lines = [json.dumps({"ledger": whole_name(ledger)}), *lines_of(parcel)]
    with contextlib.suppress(FileNotFoundError):
        earlier = path.read_text().splitlines()
        lines = [*earlier, *lines[2:]] if earlier[:2] == lines[:2] else lines
    write_atomically(path, [("\n".join(lines) + "\n").encode()], mode=0o600)
    return path


def take_in(output_dir: Path, ledger: LedgerStore, warn: Callable[[str], None]) -> None:
    """Write what earlier runs have left for this ledger. A record that it has already is not added again.

    Raises LedgerError, and then nothing is lost.
    """
    for path, text in _files(output_dir):
        from token_budget.ledger.import_reader import read

        first, _, rest = text.partition("\n")
        with contextlib.suppress(ValueError, AttributeError):
            if json.loads(first).get("ledger") != whole_name(ledger.name):
                continue
        try:
            parcel = read(rest.splitlines(), path.name)
        except ValueError as error:
            warn(f"the ledger: {path}: {error}: its records are not added")
            continue
        ledger.write(runs=parcel.runs, attempts=parcel.attempts, records=parcel.records, notes=parcel.notes)
        for run in parcel.runs:
            ledger.release_run(run.run)  # it has ended, and its records have what its holds were for
        with contextlib.suppress(OSError):
            path.unlink()


def _files(output_dir: Path) -> Iterator[tuple[Path, str]]:
    with contextlib.suppress(OSError), Folder.open(output_dir, may_be_shared=True) as runs:
        for name in sorted(runs.names(), reverse=True)[:MAX_RUNS]:
            with contextlib.suppress(OSError, UnicodeError), runs.folder(name) as folder:
                with os.fdopen(folder.file(NAME, os.O_RDONLY), "rb") as file:
                    text = file.read(MAX_BYTES).decode()
                yield folder.path / NAME, text
