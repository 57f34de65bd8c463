"""How many instances may run at once, and whether launches are paused. Pure."""

from __future__ import annotations


class Slots:
    """The places for instances. A pause leaves those that run alone."""

    def __init__(self, most: int) -> None:
        self.most = most
        self.paused = False

    def free(self, running: int) -> int:
        """How many more instances may start while so many run."""
        return 0 if self.paused else self.most - running

    def pause(self, paused: bool = True) -> None:
        """Pause launches, or allow them again."""
        self.paused = paused

    def allow(self, most: int) -> None:
        """From now on so many instances may run at once. Those that run already continue."""
        self.most = most
