"""What the directory of a run records of its page: the address, and the secrets with which its owner signs in."""

from __future__ import annotations

import json
import os
import secrets

from token_budget.folders import Folder
from token_budget.named_tuples import NamedTuple
from token_budget.serving.keys import SECRET_BYTES, Keys

NAME = "dashboard.json"
MAX_FILE_BYTES = 4_096


class PageDoor(NamedTuple):
    """What the run's directory records of its page: where it is, and the secrets with which its owner signs in."""

    address: str
    pid: int
    secret: str
    boot: str

    def ticket(self) -> str:
        """A new ticket for the page."""
        return Keys(bytes.fromhex(self.secret), self.boot).ticket()


def read_door(folder: Folder) -> PageDoor | None:
    """What a run's directory records of its page; None if that is nothing."""
    try:
        with os.fdopen(folder.file(NAME, os.O_RDONLY), "rb") as file:
            data = json.loads(file.read(MAX_FILE_BYTES))
        door = PageDoor(str(data["address"]), int(data["pid"]), str(data["secret"]), str(data["boot"]))
        bytes.fromhex(door.secret)
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return door


def write_door(folder: Folder, door: PageDoor) -> None:
    """Record it, readable by the owner alone. Raises OSError."""
    with os.fdopen(folder.file(NAME, os.O_WRONLY | os.O_CREAT | os.O_TRUNC), "wb") as file:
        file.write(json.dumps(door._asdict()).encode())


def make_keys(folder: Folder, password: str = "") -> tuple[Keys, str]:
    """The keys of a run's page, and their secret. A page that is started again lets in whom it had let in."""
    earlier = read_door(folder)
    secret = earlier.secret if earlier is not None else secrets.token_hex(SECRET_BYTES)
    return Keys(bytes.fromhex(secret), secrets.token_urlsafe(12), password), secret
