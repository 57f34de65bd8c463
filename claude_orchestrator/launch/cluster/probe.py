"""What a node has. This module travels to the node as it is, so it needs nothing but the standard library.

So even a node without this package, or with another version of it, can answer.
"""

from __future__ import annotations

import importlib.util
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple  # noqa: TID251 - a node may lack this package

GROUP_LIMIT = Path("/sys/fs/cgroup/memory.max")
GROUP_USED = Path("/sys/fs/cgroup/memory.current")
GROUP_PARTS = Path("/sys/fs/cgroup/memory.stat")
VERSION_S = 20.0


class Question(NamedTuple):
    """What the driver asks of each node. Without a `claude`, instances are simulated.

    Without a `workspace`, the driver sends its own. `variables` are the names of those that hold a key. `marker` is a
    file that the driver has just made in its output folder; empty if no instance needs that folder.
    """

    claude: str
    workspace: str
    variables: tuple[str, ...] = ()
    marker: str = ""


class Facts(NamedTuple):
    """What a node answers. An empty text stands for what is not there; times are Unix times in seconds."""

    package: str
    python: str
    cores: int
    free_bytes: int
    disk_bytes: int
    clock_s: float
    claude: str = ""
    has_login: bool = False
    has_workspace: bool = False
    head: str = ""
    sees_marker: bool = False
    has_gateway: bool = False
    has_git: bool = False


def probe(question: Question) -> tuple[object, ...]:
    """The fields of Facts for this machine."""
    workspace = Path(question.workspace)
    is_there = bool(question.workspace) and workspace.is_dir()
    disk = shutil.disk_usage(workspace if is_there else tempfile.gettempdir()).free
    return (
        package_version(),
        ".".join(map(str, sys.version_info[:3])),
        cores(),
        free_bytes(),
        disk,
        time.time(),
        version_of(question.claude) if question.claude else "",
        has_login(question.variables, os.environ),
        is_there,
        output_of(["git", "-C", str(workspace), "rev-parse", "HEAD"]) if is_there else "",
        bool(question.marker) and Path(question.marker).exists(),
        importlib.util.find_spec("aiohttp") is not None,
        shutil.which("git") is not None,
    )


def package_version() -> str:
    """The version of this package on the node."""
    try:
        import claude_orchestrator
    except ImportError:
        return ""
    return str(claude_orchestrator.__version__)


def cores() -> int:
    """The cores that this process may use."""
    affinity = getattr(os, "sched_getaffinity", None)
    return len(affinity(0)) if affinity is not None else os.cpu_count() or 1


def free_bytes() -> int:
    """The memory that is free, within the limit of a container."""
    free = 0
    try:
        for line in Path("/proc/meminfo").read_text().splitlines():
            if line.startswith("MemAvailable:"):
                free = int(line.split()[1]) * 1024
    except OSError:
        free = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    try:
        left = int(GROUP_LIMIT.read_text()) - int(GROUP_USED.read_text())
        parts = dict(line.split() for line in GROUP_PARTS.read_text().splitlines())
        return max(0, min(free, left + int(parts.get("inactive_file", 0))))  # the kernel takes that back
    except (OSError, ValueError):  # no limit
        return free


def has_login(variables: tuple[str, ...], environ: Mapping[str, str]) -> bool:
    """Whether the node has a key, or claude's own login."""
    folder = Path(environ.get("CLAUDE_CONFIG_DIR") or Path(environ.get("HOME", "/"), ".claude"))
    return any(environ.get(name) for name in variables) or (folder / ".credentials.json").is_file()


def version_of(claude: str) -> str:
    """The version of the claude at this path, or else of the one on PATH."""
    found = claude if Path(claude).exists() else shutil.which(Path(claude).name)
    return output_of([found, "--version"]) if found else ""


def output_of(argv: list[str]) -> str:
    """What a program prints; empty if it fails."""
    try:
        done = subprocess.run(
            argv,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=VERSION_S,
            check=False,
            stdin=subprocess.DEVNULL,
        )
    except (OSError, subprocess.SubprocessError):
        return ""
    return done.stdout.strip() if done.returncode == 0 else ""
