"""Warns once in a run if claude's login ends before the run can end. Pure."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime

UNKNOWN_LEFT_S = 86_400.0  # a run that does not know how long it will take
LEAST_LEFT_S = 3_600.0


class SignIn:
    """Reports to `warn`. `left_s` is how long the run will still take, if that is known; `wall` is Unix time."""

    def __init__(
        self, warn: Callable[[str], None], left_s: Callable[[], float | None], wall: Callable[[], float]
    ) -> None:
        self._warn = warn
        self._left_s = left_s
        self._wall = wall
        self._warned = False

    def ends_at(self, at: float) -> None:
        """The login ends at this time, as claude states it. The real end can be up to three days earlier."""
        if self._warned:
            return
        now, left_s = self._wall(), self._left_s()
        if at > now + (UNKNOWN_LEFT_S if left_s is None else max(left_s, LEAST_LEFT_S)):
            return
        self._warned = True
        try:
            when = f"{datetime.fromtimestamp(at):%Y-%m-%d %H:%M}"
        except (ValueError, OverflowError, OSError):
            when = "a time in the past"
        verb = "ended" if at <= now else "ends"
        self._warn(f"the login of claude {verb} at {when}: instances may fail from then on; claude /login renews it")
