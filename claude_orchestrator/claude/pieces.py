"""Finds runs of streamed text in the CLI's output without reading each line as JSON. Pure.

Nearly all of a stream's lines are `content_block_delta` events, which carry no usage. One pattern recognises them:
whatever stands in the text, it accepts a line only where a JSON parser would find such an event in it. The lines of a
run differ in their text and their uuid only. So the pattern reads the first line of a run field by field, and
compares what surrounds the text of the others with that.
"""

from __future__ import annotations

import re
from functools import cache

# any byte but a quote, a backslash and LF: the ranges take half the time of the same set written as [^...]
_PLAIN = rb"[\x00-\x09\x0b-\x21\x23-\x5b\x5d-\xff]*+"
_SCALAR = rb'(?:null|true|false|-?(?:0|[1-9][0-9]{0,17})|"' + _PLAIN + rb'")'
_FIELD = rb'"(?!(?:type|event|delta|uuid)")[a-z_]++":' + _SCALAR
_BEFORE, _AFTER = rb"(?:" + _FIELD + rb",)*+", rb"(?:," + _FIELD + rb")*+"
_TEXT = rb'(?!")' + _PLAIN + rb'(?:\\(?:["\\/bfnrt]|u[0-9a-fA-F]{4})' + _PLAIN + rb")*+"
_UUID = _PLAIN + rb'"'
_DELTA = rb'"delta":\{"type":"(?:text_delta","text|thinking_delta","thinking|input_json_delta","partial_json)":"'
_HEAD = _BEFORE + rb'"type":"stream_event",' + _BEFORE + rb'"event":\{' + _BEFORE + rb'"type":"content_block_delta",'
_FIRST = (
    rb"(?P<begin>\{" + _BEFORE + rb'(?P<early>"uuid":")?+)(?(early)' + _UUID + rb",)"
    rb"(?P<head>" + _HEAD + _BEFORE + _DELTA + rb")" + _TEXT + rb'(?P<middle>"\}' + _AFTER + rb"\}" + _AFTER +
    rb'(?P<late>,"uuid":")?+)(?(late)' + _UUID + rb")(?P<tail>" + _AFTER + rb"\}\n)"
)  # fmt: skip
_OTHER = (
    rb"(?P=begin)(?(early)" + _UUID + rb",)(?P=head)" + _TEXT + rb"(?P=middle)(?(late)" + _UUID + rb")(?P=tail)"
)  # fmt: skip


@cache
def _run() -> re.Pattern[bytes]:
    """The pattern, compiled at its first use: no start of the program needs it."""
    return re.compile(_FIRST + rb"(?:" + _OTHER + rb")*+")


def end_of_pieces(lines: bytes, position: int) -> int:
    """Where the lines of streamed text that begin at `position` end; `position` itself where there are none.

    Each of the lines has its end.
    """
    match = _run().match
    run = match(lines, position)
    while run is not None:
        position = run.end()
        run = match(lines, position)
    return position
