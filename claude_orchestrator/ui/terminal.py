"""The only writer to the screen: messages above, and below them a status report that is redrawn in place."""

from __future__ import annotations

import contextlib
import os
import sys
import threading
from collections.abc import Callable, Iterator
from datetime import datetime
from typing import TextIO

from token_budget.text import RenderOptions, printable, uncolored
from token_budget.visualization import RED, RESET, YELLOW

_COLORS = {"WARNING": YELLOW, "ERROR": RED}
MAX_WAITING_CHARS = 4 * 1024 * 1024
SLOW_CHARS = 64 * 1024  # with more waiting, the terminal is slow, and the status report is not redrawn
LEVELS = ("debug", "info", "warning", "error")


class Terminal:
    """Writes results to `out` and messages to `err`. If a stream is closed, the run continues without it."""

    def __init__(
        self,
        out: TextIO | None = None,
        err: TextIO | None = None,
        *,
        quiet: bool = False,
        level: str = "info",
    ) -> None:
        self._out = sys.stdout if out is None else out
        self._err = sys.stderr if err is None else err
        self.quiet = quiet
        self._least = LEVELS.index("error" if quiet else level)
        self._drawn: list[str] = []
        self._draw: Callable[[], list[str]] | None = None
        self._due: Callable[[], None] = lambda: None
        self._above: list[tuple[TextIO, str]] = []
        self._size = os.terminal_size((0, 0))
        self._writer: _Writer | None = None
        self.is_workflow = os.environ.get("GITHUB_ACTIONS") == "true"
        self.live = not quiet and not self.is_workflow and _is_terminal(self._out) and os.environ.get("TERM") != "dumb"
        self._watched = _is_terminal(self._err)
        self._color = {stream: _may_color(stream) for stream in (self._out, self._err)}
        if any(self._color.values()):
            import colorama

            colorama.just_fix_windows_console()

    @contextlib.contextmanager
    def in_background(self) -> Iterator[None]:
        """Inside this context, writing never waits for a slow screen or pipe."""
        with contextlib.suppress(RuntimeError):  # "can't start new thread": then writing waits
            self._writer = _Writer()
        try:
            yield
        finally:
            self.show(None)
            writer, self._writer = self._writer, None
            if writer is not None:
                writer.close()

    def render_options(self, *, visuals: bool = True) -> RenderOptions:
        """How to render reports on this terminal."""
        width = _size().columns if self.live else _columns()
        # a line of the full width would hide that its end was reached: terminals differ in what they clear then
        width = max(20, width) - self.live
        return RenderOptions(width, self._color[self._out], not _can_encode("█═…·", self._out), visuals)

    def height(self) -> int:
        """How many lines the terminal shows."""
        return _size().lines

    def message(self, level: str, text: str, at: datetime | None = None) -> None:
        """Write one message, e.g. `WARNING: …`, if its level is shown. Control characters are escaped.

        `at` is its time, which a person at a terminal does not need.
        """
        if LEVELS.index(level.lower()) < self._least:
            return
        if self.is_workflow:
            from claude_orchestrator.ui.ci.workflow_commands import annotation

            self._put(self._err, annotation(level, text) + "\n")
            return
        time = "" if at is None or self._watched else f"{at.isoformat(timespec='seconds')} "
        color = _COLORS.get(level, "") if self._color[self._err] else ""
        self._put(self._err, f"{color}{time}{level}: {printable(text)}{RESET if color else ''}\n")

    def warn(self, text: str) -> None:
        """Write a message of level WARNING."""
        self.message("WARNING", text)

    def print(self, lines: list[str], *, folded: bool = False) -> None:
        """Write lines of a report above the status report. `folded`: the log of a workflow shows the first one only."""
        if self.is_workflow:
            from claude_orchestrator.ui.ci.workflow_commands import group, plain

            lines = [*(group(lines) if folded and lines else map(plain, lines))]
        self._put(self._out, "".join(f"{line}\n" for line in lines))

    def show(self, draw: Callable[[], list[str]] | None, due: Callable[[], None] = lambda: None) -> None:
        """From now on, keep the lines that `draw` returns at the bottom of the screen; None: keep nothing there.

        `due` is called when there is something to write above them. It has to call `redraw` soon.
        """
        self._flush()
        self._draw, self._due = draw, due
        self.redraw()

    def redraw(self) -> None:
        """Redraw the bottom lines, if this is a terminal: what has changed of them."""
        if self._draw is None or not self.live:
            return
        if self._writer is not None and self._writer.waiting > SLOW_CHARS:
            self._flush()
            return
        from claude_orchestrator.ui.redraw import update  # only for a terminal

        size = _size()
        lines = self._draw()[: max(1, size.lines - 1)]
        if self._above or size != self._size:
            self._flush()
        self._size = size
        text = update(self._drawn, lines)
        self._drawn = lines
        if text:
            self._write(self._out, text)

    def _put(self, stream: TextIO, text: str) -> None:
        """Write above the bottom lines: with the next redrawing, if there are some."""
        self._above.append((stream, text))
        if self._draw is not None and self.live:
            self._due()
        else:
            self._flush()

    def _flush(self) -> None:
        """Remove the bottom lines, and write what has to stand above them."""
        if self._drawn:
            from claude_orchestrator.ui.redraw import erase

            self._write(self._out, erase(self._drawn, _size().columns))
            self._drawn = []
        above, self._above = self._above, []
        for stream, text in above:
            self._write(stream, text)

    def _write(self, stream: TextIO, text: str) -> None:
        encoding = getattr(stream, "encoding", None) or "utf-8"
        if not self._color.get(stream) and not self.live:
            text = uncolored(text)
        text = text.encode(encoding, "replace").decode(encoding, "replace")
        if self._writer is not None:
            self._writer.put(stream, text)
        else:
            _write(stream, text)


class _Writer:
    """Writes in its own thread: a reader that stops (Ctrl-S, a pager) stops the display, and nothing else."""

    def __init__(self) -> None:
        import queue  # only while a run is displayed

        self._put_chars = self._written_chars = 0  # each changed by one thread only
        self._queue: queue.SimpleQueue[tuple[TextIO, str] | None] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._write_all, daemon=True)
        self._thread.start()

    @property
    def waiting(self) -> int:
        """How many characters are not written yet."""
        return self._put_chars - self._written_chars

    def put(self, stream: TextIO, text: str) -> None:
        """Write a text soon. It is dropped if 4 MiB of others wait already."""
        if self.waiting < MAX_WAITING_CHARS:
            self._put_chars += len(text)
            self._queue.put((stream, text))

    def _write_all(self) -> None:
        while (item := self._queue.get()) is not None:
            _write(*item)
            self._written_chars += len(item[1])

    def close(self) -> None:
        """Wait until all is written."""
        self._queue.put(None)
        self._thread.join()


def _write(stream: TextIO, text: str) -> None:
    """Write without the stream's own buffer, whose lock would outlive a write that never ends."""
    try:
        stream.flush()
        if sys.platform == "win32" or not hasattr(stream, "buffer"):
            stream.write(text)
            stream.flush()
            return
        data = text.encode(stream.encoding, "replace")
        while data:
            data = data[os.write(stream.fileno(), data) :]
    except (OSError, ValueError):  # a closed pipe or terminal must not end the run
        _silence(stream)


def _silence(stream: TextIO) -> None:
    """Discard what is still written, or Python would report the error again as it exits."""
    with contextlib.suppress(OSError, ValueError):
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, stream.fileno())
        os.close(nowhere)


def _is_terminal(stream: TextIO) -> bool:
    try:
        return stream.isatty()
    except ValueError:
        return False


def _may_color(stream: TextIO) -> bool:
    """See no-color.org and force-color.org. The log of a workflow marks the levels of messages."""
    if os.environ.get("NO_COLOR") or os.environ.get("GITHUB_ACTIONS") == "true":
        return False
    if os.environ.get("FORCE_COLOR"):
        return True
    return _is_terminal(stream) and os.environ.get("TERM") != "dumb"


def _size() -> os.terminal_size:
    import shutil  # only for a terminal

    return shutil.get_terminal_size((100, 24))


def _columns() -> int:
    columns = os.environ.get("COLUMNS", "")
    return min(500, int(columns)) if columns.isascii() and columns.isdigit() and int(columns) else 100


def _can_encode(text: str, stream: TextIO) -> bool:
    try:
        text.encode(getattr(stream, "encoding", None) or "utf-8")
    except (UnicodeEncodeError, LookupError):
        return False
    return True
