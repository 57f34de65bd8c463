"""Errors that are the user's to mend: handled once, in `cli.py`, and shown without a traceback."""

from __future__ import annotations


class UserError(Exception):
    """Bad input or a missing thing, one line for each fault; nothing was started. Exit code 2."""

    def __init__(self, *lines: str) -> None:
        super().__init__("\n".join(lines))
        self.lines = lines
