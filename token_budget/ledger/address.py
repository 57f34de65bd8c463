"""The address of a ledger on a PostgreSQL server, told apart from a file and checked before it goes anywhere. Pure."""

from __future__ import annotations

import re
from pathlib import Path

SCHEME = r"(?i:([a-z][a-z0-9+.-]+)://)"  # compiled where there is one
SCHEMES = frozenset({"postgresql", "postgres"})
SECRETS = frozenset({"password", "sslpassword", "passwd", "oauth_client_secret"})  # keywords of libpq
INSTEAD = (
    "a password in the address can be read by others: leave it out, and set PGPASSWORD, or use a password file "
    "(PGPASSFILE) or a service (postgresql:///?service=NAME)"
)


def is_address(place: str | Path) -> bool:
    """Whether this names a server instead of a file."""
    return "://" in str(place) and re.match(SCHEME, str(place)) is not None


def check_address(address: str) -> None:
    """Raise ValueError if it has a password, which the error does not repeat, or if it is none of PostgreSQL."""
    scheme = re.match(SCHEME, address)
    if scheme is None or scheme[1].lower() not in SCHEMES:
        what = "" if scheme is None else f", got {scheme[0]}..."
        raise ValueError(f"expected a file, or an address that begins with postgresql://{what}")
    from urllib.parse import parse_qsl, unquote  # not needed for files

    _, _, rest = address.partition("://")
    user, at, _ = rest.rpartition("@")  # a password that is not escaped may have any other character in it
    _, _, query = rest.partition("?")
    keys = {unquote(key).strip().lower() for key, _ in parse_qsl(query, keep_blank_values=True)}
    if (at and ":" in user) or keys & SECRETS:
        raise ValueError(INSTEAD)


def whole_name(place: str | Path) -> str:
    """What a ledger is called from any folder: an address as it is, a file by its whole path."""
    return str(place) if is_address(place) else str(Path(place).absolute())
