"""Suggests what somebody may have meant."""

from __future__ import annotations

import difflib
from collections.abc import Iterable

MOST = 3
LEAST_LIKENESS = 0.6
SPREAD = 0.25  # how much less alike than the nearest a suggestion may be


def nearest(word: str, known: Iterable[str]) -> list[str]:
    """The few known names that are near to a word, the nearest first; none where nothing is near."""
    found = difflib.get_close_matches(word, list(known), MOST, LEAST_LIKENESS)
    likeness = {name: difflib.SequenceMatcher(None, name, word).ratio() for name in found}
    return [name for name in found if likeness[name] >= likeness[found[0]] - SPREAD]
