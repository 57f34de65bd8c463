"""Keeps secrets out of what is shown and journalled: an instance's last words may repeat its environment. Pure."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping

SECRET_NAME = re.compile(r"KEY|TOKEN|SECRET|PASS|CREDENTIAL|AUTH", re.IGNORECASE)
SHORTEST = 8  # what is shorter is no secret, and hiding it would garble the text
HIDDEN = "***"


def secrets_of(environ: Mapping[str, str], given: Iterable[tuple[str, str]]) -> frozenset[str]:
    """The values to hide: of all variables given to instances, and of those in `environ` whose names speak of one;
    also line by line, and as JSON has them."""
    values = [value for name, value in environ.items() if SECRET_NAME.search(name)]
    values += [value for _, value in given]
    parts = [part for value in values for part in (value, *value.splitlines(), json.dumps(value)[1:-1])]
    return frozenset(part for part in parts if len(part) >= SHORTEST)


def redact(text: str, secrets: frozenset[str]) -> str:
    """`text` with each secret replaced, the longest first."""
    for secret in sorted(secrets, key=len, reverse=True):
        text = text.replace(secret, HIDDEN)
    return text
