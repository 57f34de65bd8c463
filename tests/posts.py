"""What runs post for each other, in memory, as a ledger keeps it. Time is a number here."""

from __future__ import annotations

from claude_orchestrator.gateway.board import Posts


class Clock:
    """A clock for all runs: seconds since the test began."""

    now = 0.0

    def __call__(self) -> float:
        return self.now


class Wall:
    """Posts in memory, as a ledger keeps them."""

    def __init__(self, clock: Clock) -> None:
        self.clock = clock
        self.posts: list[tuple[str, str, float, str, float]] = []

    def of(self, run: str) -> Side:
        return Side(self, run)


class Side:
    """A run's side of it."""

    def __init__(self, wall: Wall, run: str) -> None:
        self.wall, self.run = wall, run

    async def post(self, topic: str, text: str, lifetime_s: float, seen: int | None) -> tuple[int, Posts] | None:
        posts = self.wall.posts
        others = [
            (number, at, said)
            for number, (where, run, at, said, until) in enumerate(posts, 1)
            if where == topic and run != self.run and seen is not None and number > seen
            if until > self.wall.clock.now
        ]
        if others:
            return others[-1][0], [(self.wall.clock.now - at, said) for _, at, said in others]
        now = self.wall.clock.now
        posts.append((topic, self.run, now, text, now + lifetime_s))
        return len(posts), []
