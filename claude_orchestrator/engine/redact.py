"""Keeps secrets out of messages and journals: an instance's last lines may repeat its environment. Pure."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping

SECRET_WORDS = ("KEY", "TOKEN", "SECRET", "PASS", "CREDENTIAL", "AUTH")
SHORTEST = 8  # a shorter value is no secret, and hiding it would garble the text
HIDDEN = "***"


def secrets_of(environ: Mapping[str, str], given: Iterable[tuple[str, str]]) -> frozenset[str]:
    """The values to hide: those `given` to instances, and those in `environ` whose names suggest a secret.

    Each value is hidden as a whole, line by line, and in its JSON form.
    """
    values = [value for name, value in environ.items() if any(word in name.upper() for word in SECRET_WORDS)]
    values += [value for _, value in given]
    parts = [part for value in values for part in (value, *value.splitlines(), json.dumps(value)[1:-1])]
    return frozenset(part for part in parts if len(part) >= SHORTEST)


def redact(text: str, secrets: frozenset[str]) -> str:
    """`text` with each secret replaced, longest first."""
    for secret in sorted(secrets, key=len, reverse=True):
        text = text.replace(secret, HIDDEN)
    return text
