"""The CLI's streaming JSON: bytes to whole lines to typed events. Pure.

How events become a token count is in `tally.py`.
"""

from __future__ import annotations

from claude_orchestrator.claude.events import BadLine, Event, Streamed
from claude_orchestrator.claude.line_events import event_of, parse_line
from claude_orchestrator.claude.line_values import decode, object_in
from claude_orchestrator.claude.pieces import end_of_pieces
from token_budget.api_usage import least_tokens, output_text
from token_budget.named_tuples import NamedTuple

MAX_LINE_BYTES = 64 * 1024 * 1024
_ANSWER = b'{"type":"control_response"'


class LineBatch(NamedTuple):
    """What arrived at once: the bytes as they came, and the whole lines that they completed, each with its end."""

    raw: bytes
    lines: bytes


def only_answers(batch: LineBatch) -> bool:
    """Whether each line of a batch answers a control request."""
    return all(line.startswith(_ANSWER) for line in batch.lines.split(b"\n")[:-1])


class LineFramer:
    """Cuts chunks of bytes into whole lines; only LF ends a line.

    A line of more than `max_line_bytes` is left out and counted in `dropped`: memory stays bounded.
    """

    def __init__(self, max_line_bytes: int = MAX_LINE_BYTES) -> None:
        self.max_line_bytes = max_line_bytes
        self.dropped = 0
        self._parts: list[bytes] = []
        self._size_bytes = 0

    def feed(self, chunk: bytes) -> bytes:
        """The lines that `chunk` completes, each with its end."""
        end = chunk.rfind(b"\n") + 1
        if end and self._size_bytes:
            first_bytes = chunk.index(b"\n")
            if self._size_bytes + first_bytes > self.max_line_bytes:
                lines = chunk[first_bytes + 1 : end]
                self.dropped += 1
            else:
                lines = b"".join((*self._parts, memoryview(chunk)[:end]))  # a view, so that the lines are copied once
            self._parts, self._size_bytes = [], 0
        else:
            lines = chunk[:end]
        if end < len(chunk):
            self._size_bytes += len(chunk) - end
            if self._size_bytes <= self.max_line_bytes:
                self._parts.append(chunk[end:])
            else:
                self._parts = []
        return lines

    def flush(self) -> bytes:
        """The last line, with an end, when the stream ends without one."""
        if not self._size_bytes:
            return b""
        if self._size_bytes > self.max_line_bytes:
            self.dropped += 1
            line = b""
        else:
            line = b"".join((*self._parts, b"\n"))
        self._parts, self._size_bytes = [], 0
        return line


def parse(lines: bytes) -> list[Event]:
    """The events in whole lines, each with its end; lines of streamed text that follow each other are one event."""
    events: list[Event] = []
    has_pieces = b"content_block_delta" in lines  # without any, the pattern for them need not be compiled
    position = first = 0  # `first` is where the present run of streamed text begins
    while position < len(lines):
        end = end_of_pieces(lines, position) if has_pieces else position
        if end == position:
            end = lines.index(b"\n", position) + 1
            event = parse_line(lines[position : end - 1])
            if not isinstance(event, Streamed):
                if position > first:
                    events.append(Streamed(lines[first:position]))
                first = end
                if isinstance(event, BadLine):
                    events += _parse_joined(lines[position : end - 1], event)
                elif event is not None:
                    events.append(event)
        position = end
    if position > first:
        events.append(Streamed(lines[first:position]))
    return events


def _parse_joined(line: bytes, bad: BadLine) -> list[Event]:
    """The events in a line that is not one JSON object: two writers may share a line, or a terminal's codes."""
    from claude_orchestrator.claude.joined_lines import objects_in

    found, is_whole = objects_in(line)
    events = [event for data in map(object_in, found) if (event := event_of(data)) is not None]
    rest = [] if is_whole else [bad._replace(lossy=bad.lossy or bool(found))]
    return [*rest, *(event for event in events if not isinstance(event, Streamed))]


def streamed_tokens(lines: bytes) -> int:
    """The least number of output tokens in lines of streamed text."""
    deltas = (object_in(object_in(decode(line)).get("event")).get("delta") for line in lines.split(b"\n") if line)
    return sum(least_tokens(output_text(delta)) for delta in deltas)
