"""The one door to files that other users of the machine could have put in the way.

A path is walked from its root, folder by folder, each one opened relative to the one before. A link is followed only
where this user or root made it. A `Folder` is one that nobody else can change, and all that is opened in it is checked
on its descriptor. Windows has neither owners nor descriptors of this kind: there paths are used as they are.
"""

from __future__ import annotations

import contextlib
import errno
import os
import stat
import sys
from collections.abc import Iterator
from pathlib import Path

from token_budget.named_tuples import NamedTuple

MAX_LINKS = 40
POSIX = sys.platform != "win32"
NOFOLLOW = getattr(os, "O_NOFOLLOW", 0)
WALK = getattr(os, "O_PATH", 0) | getattr(os, "O_DIRECTORY", 0) | NOFOLLOW  # without O_PATH it is opened for reading
BINARY = getattr(os, "O_BINARY", 0)
NEW = os.O_CREAT | os.O_EXCL


class NotOursError(PermissionError):
    """Another user made a file or folder, or can change it."""

    def __init__(self, why: str) -> None:
        super().__init__(errno.EPERM, why)


class Location(NamedTuple):
    """A name in a folder that is open. `follows`: it is a link to a pipe or device, made by this user or root."""

    folder: int | None
    name: str
    path: Path
    follows: bool = False

    def status(self) -> os.stat_result | None:
        """What is there; None if nothing is. Refuses another user's pipe or device."""
        try:
            status = os.stat(self.name, dir_fd=self.folder, follow_symlinks=self.follows)
        except FileNotFoundError:
            return None
        is_file = stat.S_ISREG(status.st_mode) or stat.S_ISDIR(status.st_mode)
        if not (is_file or self.follows or is_trusted(status.st_uid)):
            raise NotOursError(f"{self.path} belongs to {owner_of(status)} and is no file: name another place")
        return status

    def open(self, flags: int, mode: int = 0o600, *, name: str | None = None) -> int:
        """Open it, or another file beside it."""
        nofollow = 0 if self.follows and name is None else NOFOLLOW
        return os.open(self.beside(name or self.path.name), flags | nofollow | BINARY, mode, dir_fd=self.folder)

    def beside(self, name: str) -> str:
        """What a function with `dir_fd` takes for another name in the same folder."""
        return name if self.folder is not None else str(self.path.with_name(name))

    def replace_by(self, name: str) -> None:
        """Put another file of the folder here."""
        os.replace(self.beside(name), self.name, src_dir_fd=self.folder, dst_dir_fd=self.folder)

    def unlink(self, name: str) -> None:
        """Remove another file of the folder."""
        with contextlib.suppress(OSError):
            os.unlink(self.beside(name), dir_fd=self.folder)


# -- who owns what --


def is_trusted(uid: int) -> bool:
    """Whether an owner is this user or root."""
    if uid in (0, os.geteuid()):
        return True
    return uid == os.stat("/").st_uid  # noqa: PTH116 - in a user namespace, root's files have another owner


def writers_of(status: os.stat_result) -> str:
    """Who besides the owner can write; empty if nobody can."""
    if status.st_mode & stat.S_IWOTH:
        return "every user"
    if status.st_mode & stat.S_IWGRP and not _is_private(status.st_gid, status.st_uid):
        return f"group {_name_of_group(status.st_gid)}"
    return ""


def _is_private(gid: int, uid: int) -> bool:
    """Whether a group is the one that many systems make for each user, with nobody else in it."""
    import grp
    import pwd

    if gid == 0:
        return True
    with contextlib.suppress(KeyError):
        user, group = pwd.getpwuid(uid), grp.getgrgid(gid)
        return user.pw_gid == gid and user.pw_name == group.gr_name and set(group.gr_mem) <= {user.pw_name}
    return False


def _name_of_group(gid: int) -> str:
    import grp

    with contextlib.suppress(KeyError):
        return grp.getgrgid(gid).gr_name
    return str(gid)


def owner_of(status: os.stat_result) -> str:
    """The owner as a person reads it: `user bob`, or `user 1001` where that has no name."""
    import pwd

    with contextlib.suppress(KeyError):
        return f"user {pwd.getpwuid(status.st_uid).pw_name}"
    return f"user {status.st_uid}"


def check(status: os.stat_result, path: Path | str, *, may_be_shared: bool = False) -> None:
    """Refuse what another user owns or can write. In a folder with the sticky bit nobody can replace what is ours."""
    if not is_trusted(status.st_uid):
        raise NotOursError(f"{path} belongs to {owner_of(status)}: name another place, or have it removed")
    writers = writers_of(status)
    if writers and not (may_be_shared and status.st_mode & stat.S_ISVTX and stat.S_ISDIR(status.st_mode)):
        remedy = "name another place, or take the permission away with chmod go-w"
        raise NotOursError(f"{path} belongs to {owner_of(status)} and {writers} can write to it: {remedy}")


def check_found(path: Path, remedy: str) -> None:
    """Refuse a file that nobody named and that another user put there, as anybody can in /tmp. Raises OSError.

    Root trusts the owner of the folder, because containers often run as root in a user's folder.
    """
    if not POSIX:
        return
    folder_owner = path.parent.stat().st_uid if os.geteuid() == 0 else None
    for status in (path.lstat(), path.stat()):
        if not is_trusted(status.st_uid) and status.st_uid != folder_owner:
            raise NotOursError(f"{path} belongs to {owner_of(status)}: {remedy}")


def _check_above(status: os.stat_result, path: str) -> None:
    """Refuse a folder in which another user could replace what is ours; root trusts the owners of such folders."""
    if os.geteuid() != 0 or writers_of(status):
        check(status, path, may_be_shared=True)


# -- paths --


@contextlib.contextmanager
def place_of(path: Path, *, check_folders: bool = False, create: bool = False) -> Iterator[Location]:
    """The last name of a path in its open folder, with no link left to follow. Raises OSError.

    `check_folders`: refuse a path in whose folders another user could replace something. `create`: make those that are
    missing, with mode 0700.
    """
    if not POSIX:
        target = Path(os.path.realpath(path))
        yield Location(None, str(target), target)
        return
    place = _walk(path, check_folders=check_folders, create=create)
    try:
        yield place
    finally:
        assert place.folder is not None
        os.close(place.folder)


def _walk(path: Path, *, check_folders: bool, create: bool) -> Location:
    names, reached, links = _names(path.absolute()), "", 0  # a Path for each folder would take half of the time
    folder = os.open("/", WALK)
    try:
        while True:
            name = names.pop()
            here = f"{reached}/{name}"
            target = _target(folder, name, here, is_last=not names)
            if target is not None:
                links += 1
                if links > MAX_LINKS:
                    raise OSError(errno.ELOOP, os.strerror(errno.ELOOP))
                names += _names(target)
                if target.is_absolute():
                    folder, reached = _enter(folder, "/"), ""
                continue
            if not names:
                is_link = _is_link(folder, name)
                return Location(folder, name, Path(here), follows=is_link)
            if create:
                with contextlib.suppress(FileExistsError):
                    os.mkdir(name, 0o700, dir_fd=folder)
            folder, reached = _enter(folder, name), here
            if check_folders:
                _check_above(os.fstat(folder), reached)
    except BaseException:
        os.close(folder)
        raise


def _names(path: Path) -> list[str]:
    names = list(path.parts)[path.is_absolute() :]
    return names[::-1] or ["."]


def _enter(folder: int, name: str) -> int:
    entered = os.open(name, WALK, dir_fd=folder)
    os.close(folder)
    return entered


def _is_link(folder: int, name: str) -> bool:
    with contextlib.suppress(FileNotFoundError):
        return stat.S_ISLNK(os.stat(name, dir_fd=folder, follow_symlinks=False).st_mode)
    return False


def _target(folder: int, name: str, path: str, *, is_last: bool) -> Path | None:
    """Where a link leads; None for what is none, and for a last one that leads to a pipe or a device."""
    try:
        status = os.stat(name, dir_fd=folder, follow_symlinks=False)
    except FileNotFoundError:
        return None
    if not stat.S_ISLNK(status.st_mode):
        return None
    if not is_trusted(status.st_uid):
        raise NotOursError(f"{path} is a link of {owner_of(status)}: name another place, or have it removed")
    if is_last:
        with contextlib.suppress(FileNotFoundError):
            mode = os.stat(name, dir_fd=folder).st_mode
            if not (stat.S_ISREG(mode) or stat.S_ISDIR(mode)):
                return None
    return Path(os.readlink(name, dir_fd=folder))


# -- files outside of such a folder, such as reports --


def open_to_write(path: Path, flags: int, mode: int = 0o600) -> int:
    """Open a file to write into it, and create it where it is missing. Raises OSError.

    What is written into a file of another user, or through a hard link that somebody made of another file, would go
    where the user did not say.
    """
    with place_of(path) as place:
        place.status()
        descriptor = place.open(flags & ~os.O_TRUNC | os.O_WRONLY | os.O_CREAT, mode)
        try:
            status = os.fstat(descriptor)
            if stat.S_ISREG(status.st_mode):
                if POSIX:
                    check_target(status, place)
                if flags & os.O_TRUNC:
                    os.ftruncate(descriptor, 0)
        except BaseException:
            os.close(descriptor)
            raise
    return descriptor


def check_target(status: os.stat_result, place: Location) -> None:
    """Refuse to write into a file of another user, and into a hard link that another user may have made."""
    assert place.folder is not None
    if not is_trusted(status.st_uid):
        raise NotOursError(f"{place.path} belongs to {owner_of(status)}: name another place, or have it removed")
    if status.st_nlink > 1 and writers_of(os.fstat(place.folder)):
        raise NotOursError(f"{place.path} is a hard link in a folder that others can write to: name another place")


def keeps_mode(status: os.stat_result) -> bool:
    """Whether a file that replaces this one gets its mode: not that of another user's."""
    return not POSIX or is_trusted(status.st_uid)
