"""A PostgreSQL server of the tests' own, on a Unix socket, and a way to stop and start it again."""

from __future__ import annotations

import itertools
import os
import shutil
import signal
import subprocess
import tempfile
import time
from pathlib import Path
from typing import Any
from urllib.parse import quote

USERS = ("postgres", "nobody")  # as whom a server runs where root runs the tests, which it refuses
START_S = 60.0
INITDB = ("-U", "owner", "--auth=trust", "--no-sync", "-E", "UTF8", "--locale=C.UTF-8")


def find_binaries() -> Path | None:
    """The folder with initdb and postgres: of PATH, else of the newest of Debian's packages."""
    found = shutil.which("initdb")
    if found is not None:
        return Path(found).resolve().parent
    packages = Path("/usr/lib/postgresql").glob("*/bin/initdb")
    return max((path.parent for path in packages), key=lambda path: int(path.parent.name.split(".")[0]), default=None)


class Postgres:
    """A server with databases of its own. It ends with this process, whatever becomes of that."""

    def __init__(self, binaries: Path, *, is_durable: bool = False) -> None:
        """Start one. `is_durable`: it waits for the disk, as servers do that are no test's."""
        self._binaries = binaries
        self._fsync = "on" if is_durable else "off"
        self._user: dict[str, Any] = {}
        self.folder = Path(tempfile.mkdtemp(prefix="pg-", dir="/tmp"))
        self._data = self.folder / "data"
        if os.geteuid() == 0:
            import pwd  # Windows has none

            known = {one.pw_name: one for one in pwd.getpwall()}
            user = next(known[name] for name in USERS if name in known)
            self._user = {"user": user.pw_uid, "group": user.pw_gid, "extra_groups": []}
            os.chown(self.folder, user.pw_uid, user.pw_gid)
        subprocess.run(
            [str(binaries / "initdb"), "-D", str(self._data), *INITDB],
            check=True,
            capture_output=True,
            cwd=self.folder,
            env={"PATH": os.environ["PATH"]},
            **self._user,
        )
        self._process: subprocess.Popen[Any] | None = None
        self._numbers = itertools.count(1)
        self.start()

    def address(self, database: str, *, user: str = "owner") -> str:
        """The address of a database."""
        return f"postgresql://{user}@/{database}?host={quote(str(self.folder), safe='')}"

    def database(self) -> str:
        """A new database; returns its address."""
        name = f"test{next(self._numbers)}"
        self.sql("postgres", f"CREATE DATABASE {name}")
        return self.address(name)

    def sql(self, database: str, *statements: str, user: str = "owner") -> list[Any]:
        """Run statements in a database given by its name or address; returns the rows of the last."""
        import psycopg

        where = database if "://" in database else self.address(database, user=user)
        with psycopg.connect(where, autocommit=True) as live:
            for statement in statements:
                cursor = live.execute(statement)
            return cursor.fetchall() if cursor.description else []

    def require_password(self, user: str, password: str) -> None:
        """Make a role that needs this password."""
        self.sql("postgres", f"CREATE ROLE {user} LOGIN PASSWORD '{password}'")
        access = self._data / "pg_hba.conf"
        access.write_text(f"local all {user} scram-sha-256\n{access.read_text()}")
        self.sql("postgres", "SELECT pg_reload_conf()")
        self.stop()
        self.start()  # a reload happens at some later moment

    def start(self, *, namespace: str = "", listen: str = "") -> None:
        """Start it, and wait until it answers; in a network namespace, also on this address of it, for everybody."""
        assert self._process is None
        with_parent = ["setpriv", "--pdeathsig", "QUIT"] if shutil.which("setpriv") else []
        if namespace:
            access = self._data / "pg_hba.conf"
            access.write_text(f"host all all {listen}/24 trust\n{access.read_text()}")
            ids = ["--reuid", str(self._user["user"]), "--regid", str(self._user["group"]), "--clear-groups"]
            with_parent = ["ip", "netns", "exec", namespace, *with_parent, *ids]
        settings = (f"listen_addresses={listen}", f"unix_socket_directories={self.folder}", f"fsync={self._fsync}")
        argv = [*with_parent, str(self._binaries / "postgres"), "-D", str(self._data)]
        with (self.folder / "log").open("ab") as log:
            process = self._process = subprocess.Popen(
                [*argv, *(part for one in settings for part in ("-c", one))],
                cwd=self.folder,
                stdout=log,
                stderr=log,
                env={"PATH": os.environ["PATH"]},
                **({} if namespace else self._user),
            )
        until = time.monotonic() + START_S
        while not self._answers():
            assert process.poll() is None and time.monotonic() < until, (self.folder / "log").read_text()
            time.sleep(0.05)

    def _answers(self) -> bool:
        import psycopg

        try:
            psycopg.connect(self.address("postgres")).close()
        except psycopg.OperationalError:
            return False
        return True

    def stop(self, *, crash: bool = False) -> None:
        """Stop it: connections end at once. `crash`: it writes nothing more, and recovers at its next start."""
        if self._process is not None:
            self._process.send_signal(signal.SIGQUIT if crash else signal.SIGINT)
            self._process.wait(START_S)
            self._process = None

    def pause(self, *, on: bool) -> None:
        """Stop all its processes where they are, or let them continue: a machine that does not answer."""
        assert self._process is not None
        children = Path(f"/proc/{self._process.pid}/task/{self._process.pid}/children").read_text().split()
        for pid in (self._process.pid, *map(int, children)):
            os.kill(pid, signal.SIGSTOP if on else signal.SIGCONT)

    def remove(self) -> None:
        """Stop it and remove its files."""
        self.stop(crash=True)
        shutil.rmtree(self.folder, ignore_errors=True)
