"""Where a page listens: checked and bound before anything else starts, so that a mistake ends with one line."""

from __future__ import annotations

import importlib.util
import os
import socket
from pathlib import Path

from token_budget.named_tuples import NamedTuple
from token_budget.serving.checks import is_loopback

EXTRA = "the extra web (pip install 'claude-orchestrator[web]')"
LOOPBACK = "127.0.0.1"
LEAST_PASSWORD_CHARS = 12
MAX_PASSWORD_BYTES = 4_096
BACKLOG = 256


class OptionNames(NamedTuple):
    """What the user calls the options of a page, and what asks for the page, if that is not the option of its port."""

    port: str
    host: str = "--host"
    token_file: str = "--token-file"
    page: str = ""


class PageOptions(NamedTuple):
    """Where the page is, and who may do what. Port 0 is any free one."""

    port: int
    host: str = LOOPBACK
    token_file: Path | None = None
    read_only: bool = False


class BoundPage(NamedTuple):
    """A page that has its address, and nobody to serve it yet."""

    options: PageOptions
    listening: socket.socket
    password: str

    @property
    def address(self) -> str:
        """The page's address, without a ticket."""
        host, port = self.options.host, self.listening.getsockname()[1]
        return f"http://{f'[{host}]' if ':' in host else host}:{port}/"


def bind(options: PageOptions, names: OptionNames) -> BoundPage:
    """Check the options and take the address. Raises ValueError with one line."""
    if importlib.util.find_spec("aiohttp") is None:
        raise ValueError(f"{names.page or names.port}: needs {EXTRA}")
    password = "" if options.token_file is None else _password(options.token_file, names.token_file)
    if not is_loopback(options.host) and not password:
        raise ValueError(
            f"{names.host} {options.host}: other machines could reach the page: add {names.token_file} FILE, a file "
            "with a password"
        )
    try:
        family = socket.AF_INET6 if ":" in options.host else socket.AF_INET
        listening = socket.create_server((options.host, options.port), family=family, backlog=BACKLOG)
    except OSError as error:
        why = error.strerror if isinstance(error, socket.gaierror) else os.strerror(error.errno or 0)
        raise ValueError(f"{names.port}: {options.host}:{options.port}: {why}: choose another port") from None
    return BoundPage(options, listening, password)


def _password(path: Path, option: str) -> str:
    """The password in a file. Raises ValueError."""
    try:
        with path.open("rb") as file:
            text = file.read(MAX_PASSWORD_BYTES + 1).decode().strip()
            mode = os.fstat(file.fileno()).st_mode
    except (OSError, UnicodeDecodeError) as error:
        why = getattr(error, "strerror", None) or "is not UTF-8 text"
        raise ValueError(f"{option}: {path}: {why}") from None
    if os.name == "posix" and mode & 0o077:
        raise ValueError(f"{option}: {path}: other users can read it: chmod 600 {path}")
    if len(text) < LEAST_PASSWORD_CHARS:
        raise ValueError(f"{option}: {path}: expected at least {LEAST_PASSWORD_CHARS} characters")
    return text
