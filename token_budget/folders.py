"""Folders that only this user and root can change, and the files in them."""

from __future__ import annotations

import contextlib
import errno
import os
import stat
from collections.abc import Iterable
from pathlib import Path

from token_budget.owned import BINARY, NOFOLLOW, POSIX, WALK, NotOursError, check, check_target, place_of


class Folder:
    """A folder that only this user and root can change, open until `close`. All methods raise OSError."""

    def __init__(self, path: Path, descriptor: int | None) -> None:
        self.path = path
        self._descriptor = descriptor

    @classmethod
    def open(cls, path: Path, *, create: bool = False, may_be_shared: bool = False) -> Folder:
        """Open a folder. `may_be_shared`: others may write to it if it has the sticky bit, as /tmp has."""
        if not POSIX:
            if create:
                path.mkdir(mode=0o700, parents=True, exist_ok=True)
            return cls(path, None)
        with place_of(path, check_folders=True, create=create) as place:
            if create:
                with contextlib.suppress(FileExistsError):
                    os.mkdir(place.name, 0o700, dir_fd=place.folder)
            return cls._opened(path, place.name, place.folder, may_be_shared=may_be_shared)

    @classmethod
    def _opened(cls, path: Path, name: str, parent: int | None, *, may_be_shared: bool = False) -> Folder:
        descriptor = os.open(name, WALK, dir_fd=parent)
        try:
            check(os.fstat(descriptor), path, may_be_shared=may_be_shared)
        except BaseException:
            os.close(descriptor)
            raise
        return cls(path, descriptor)

    def folder(self, name: str, *, new: bool = False) -> Folder:
        """Open a folder in this one; `new`: make it, with mode 0700."""
        path = self.path / name
        if self._descriptor is None:
            if new:
                path.mkdir()
            return Folder(path, None)
        if new:
            os.mkdir(name, 0o700, dir_fd=self._descriptor)
        return Folder._opened(path, name, self._descriptor)

    def file(self, name: str, flags: int) -> int:
        """Open a file in this folder, with mode 0600 if it is new; no link is followed."""
        if self._descriptor is None:
            return os.open(self.path / name, flags | BINARY, 0o600)
        descriptor = os.open(name, flags | NOFOLLOW | os.O_NONBLOCK, 0o600, dir_fd=self._descriptor)
        try:
            status = os.fstat(descriptor)
            if not stat.S_ISREG(status.st_mode):
                raise OSError(errno.EINVAL, f"{self.path / name} is no regular file")
            check(status, self.path / name)
            if status.st_nlink > 1:
                raise NotOursError(f"{self.path / name} is a hard link: remove it")
        except BaseException:
            os.close(descriptor)
            raise
        return descriptor

    def short_path(self, name: str, max_bytes: int) -> str:
        """A path to a name in this folder for functions that take short paths only, such as those of sockets."""
        path = str(self.path / name)
        if self._descriptor is not None and Path("/proc/self/fd").is_dir():
            return f"/proc/self/fd/{self._descriptor}/{name}"  # the folder itself, whatever stands at its path
        if len(os.fsencode(path)) > max_bytes:
            raise OSError(errno.ENAMETOOLONG, f"{path}: the path is too long for a socket")
        return path

    def remove_socket(self, name: str) -> None:
        """Remove a socket of this folder, if it is there."""
        with contextlib.suppress(FileNotFoundError):
            where = name if self._descriptor is not None else self.path / name
            if stat.S_ISSOCK(os.stat(where, dir_fd=self._descriptor, follow_symlinks=False).st_mode):
                os.unlink(where, dir_fd=self._descriptor)

    def names(self) -> list[str]:
        """What is in this folder."""
        if self._descriptor is None:
            return [path.name for path in self.path.iterdir()]
        readable = os.open(".", os.O_RDONLY | getattr(os, "O_DIRECTORY", 0), dir_fd=self._descriptor)
        try:
            return os.listdir(readable)  # noqa: PTH208 - a Path has no descriptor
        finally:
            os.close(readable)

    def close(self) -> None:
        """Close it; nothing more can be opened in it."""
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None

    def __enter__(self) -> Folder:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()


def check_folder(path: Path, *, may_be_shared: bool = False) -> None:
    """Refuse a folder that another user made or can change; one that is not there yet is judged by those above it."""
    if POSIX:
        with contextlib.suppress(FileNotFoundError):
            Folder.open(path, may_be_shared=may_be_shared).close()


def check_file(path: Path, beside: Iterable[str] = ()) -> None:
    """Refuse a file that another user made or can change, or a place where another user could replace it.

    `beside` are endings: files with the same name and one of them are checked too.
    """
    if not POSIX:
        return
    with contextlib.suppress(FileNotFoundError), place_of(path, check_folders=True) as place:
        for ending in ("", *beside):
            file = place._replace(name=f"{place.name}{ending}", path=Path(f"{place.path}{ending}"))
            with contextlib.suppress(FileNotFoundError):
                status = os.stat(file.name, dir_fd=file.folder, follow_symlinks=False)
                check(status, file.path)
                check_target(status, file)


def make_folder(path: Path, *, may_be_shared: bool = False) -> None:
    """Make a folder and those above it, with mode 0700, where they are missing. Raises OSError."""
    Folder.open(path, create=True, may_be_shared=may_be_shared).close()
