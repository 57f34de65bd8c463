"""Measures how hard a page of Markdown is to read. Only prose counts: no code, tables or headings."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence

PARTICIPLES = (
    "known|taken|given|shown|held|kept|made|sent|read|told|said|found|written|seen|begun|run|left|lost|met|put|set|cut|"
    "let|built|spent|done|gone|chosen|broken|stopped|paid|drawn|bound|caught|thrown"
)
ADVERBS = r"(?:\s+(?:not|never|then|also|only|still|always|already|all|both|now|again|just|once|\w+ly))*"
PASSIVE = re.compile(rf"\b(?:is|are|was|were|be|been|being)\b{ADVERBS}\s+(?:\w+ed|{PARTICIPLES})\b", re.IGNORECASE)
ASIDE = re.compile(r"\(|;|\s[–—-]\s|:(?=\s+\S)")
READER = re.compile(r"\byou(?:r|rs)?\b", re.IGNORECASE)
NOT_PROSE = re.compile(r"\s*(?:\||#|>|!\[|<|\[[^\]]+\]:|---)")
LEAST_WORDS = 4


def sentences(page: str) -> Iterator[str]:
    """The sentences of a page; code in a line becomes a single word, a link its text."""
    text = re.sub(r"```.*?```", "\n", page, flags=re.DOTALL)
    text = "\n".join(line for line in text.splitlines() if not NOT_PROSE.match(line))
    text = re.sub(r"^\s*(?:[-*+]|\d+\.)\s+", "\n", text, flags=re.MULTILINE)
    text = re.sub(r"`[^`]*`", "X", re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", text)).replace("**", "")
    for paragraph in re.split(r"\n\s*\n", text):
        for sentence in re.split(r"(?<=[.!?])\s+(?=[A-Z\"])", " ".join(paragraph.split())):
            if len(sentence.split()) >= LEAST_WORDS:
                yield sentence.rstrip(".:")


def passive_share(found: Sequence[str]) -> float:
    """The share of sentences with a passive."""
    return _share(found, PASSIVE.search)


def reader_share(found: Sequence[str]) -> float:
    """The share of sentences that address the reader."""
    return _share(found, READER.search)


def asides_each(found: Sequence[str]) -> float:
    """Brackets, semicolons, dashes and inner colons for each sentence."""
    return sum(len(ASIDE.findall(sentence)) for sentence in found) / len(found)


def longest_of_nine_in_ten(found: Sequence[str]) -> int:
    """The 90th percentile of words in a sentence."""
    return sorted(len(sentence.split()) for sentence in found)[int(0.9 * (len(found) - 1))]


def _share(found: Sequence[str], holds: Callable[[str], object]) -> float:
    return sum(map(bool, map(holds, found))) / len(found)
