"""Which instances wait for another one to write their shared prompt cache. Pure.

The API can read a prefix as soon as the response begins whose request writes it. So the first instance with a prefix
starts, and the others follow when its first response begins.
"""

from __future__ import annotations

from claude_orchestrator.claude.prompt_cache import LIFETIME_S, CachePrefix, cache_prefix
from claude_orchestrator.config.launch_spec import LaunchSpec
from token_budget.named_tuples import NamedTuple

MAX_PREFIXES = 10_000
WITH_START = 4  # times the wait for a response: the wait for a claude that starts and responds


class _Writer(NamedTuple):
    """The instance whose response the others wait for, until a time at most."""

    name: str
    until: float


class _Wait(NamedTuple):
    """What an instance waits for, until a time at most."""

    parts: tuple[CachePrefix, ...]
    until: float


def prefix_of(spec: LaunchSpec) -> CachePrefix:
    """The cacheable beginning of an instance's requests."""
    folder = f"{spec.cwd} {spec.name}" if spec.worktree and not spec.origin else spec.cwd
    return cache_prefix(spec.argv, spec.private, spec.env, folder, folder_free=spec.folder_free)


class StartOrder:
    """Knows who writes a prefix now, and which prefixes can be read. Times are seconds of the supervisor's clock.

    `wait_s` is how long an instance waits at most once the claude of the writer has started. Until then its own claude
    starts, too. So it waits for WITH_START times as long in all.
    """

    def __init__(self, wait_s: float) -> None:
        self._wait_s = wait_s
        self._writers: dict[CachePrefix, _Writer] = {}
        self._used_at: dict[CachePrefix, float] = {}
        self._prefixes: dict[str, tuple[CachePrefix, ...]] = {}  # of those that run
        self._waiting: dict[str, _Wait] = {}

    def wait_s(self, spec: LaunchSpec, now: float) -> float:
        """How long the instance still waits at most for what another one writes; 0 if it can start."""
        if not self._writers:
            return 0.0
        until = self._all_written_until(_parts(spec), spec.name, now)
        wait = self._waiting.get(spec.name)
        return (until if wait is None else min(until, wait.until)) - now

    def waits(self, spec: LaunchSpec, now: float) -> None:
        """The instance waits."""
        if spec.name not in self._waiting:
            parts = _parts(spec)
            until = max(now + self._wait_s, self._all_written_until(parts, spec.name, now))
            self._waiting[spec.name] = _Wait(parts, until)

    def launched(self, spec: LaunchSpec, now: float) -> None:
        """The instance starts: others with the same prefix wait for it, unless the prefix can be read already."""
        self._waiting.pop(spec.name, None)
        parts = self._prefixes[spec.name] = _parts(spec)
        for prefix in parts:
            if not self._is_warm(prefix, now) and self._written_until(prefix, "", now) <= now:
                self._writers[prefix] = _Writer(spec.name, now + WITH_START * self._wait_s)

    def started(self, name: str, now: float) -> bool:
        """The claude of the instance has started: its response comes soon; returns whether others may wait less."""
        until, found = now + self._wait_s, False
        for prefix in self._prefixes.get(name, ()):
            writer = self._writers.get(prefix)
            if writer is not None and writer.name == name and writer.until > until:
                self._writers[prefix], found = writer._replace(until=until), True
                for waiter, wait in self._waiting.items():
                    if prefix in wait.parts:
                        self._waiting[waiter] = wait._replace(until=min(wait.until, until))
        return found

    def responded(self, name: str, now: float) -> bool:
        """A response of the instance has begun; returns whether others may have waited for it."""
        opened = False
        for prefix in self._prefixes.get(name, ()):
            self._used_at.pop(prefix, None)
            self._used_at[prefix] = now
            opened = self._writers.pop(prefix, None) is not None or opened
        while len(self._used_at) > MAX_PREFIXES:
            del self._used_at[next(iter(self._used_at))]
        return opened

    def ended(self, name: str) -> None:
        """The instance has ended: nobody waits for what it has not begun to write."""
        for prefix in self._prefixes.pop(name, ()):
            writer = self._writers.get(prefix)
            if writer is not None and writer.name == name:
                del self._writers[prefix]

    def _is_warm(self, prefix: CachePrefix, now: float) -> bool:
        used_at = self._used_at.get(prefix)
        return used_at is not None and now - used_at < LIFETIME_S

    def _all_written_until(self, parts: tuple[CachePrefix, ...], name: str, now: float) -> float:
        return max((self._written_until(prefix, name, now) for prefix in parts), default=now)

    def _written_until(self, prefix: CachePrefix, name: str, now: float) -> float:
        writer = self._writers.get(prefix)
        return now if writer is None or writer.name == name else max(now, writer.until)


def _parts(spec: LaunchSpec) -> tuple[CachePrefix, ...]:
    prefix = prefix_of(spec)
    return tuple(dict.fromkeys((prefix.of_tools, prefix)))
