"""Shares the draws on a key's rate limits with other runs, so that together they stay within them."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from dataclasses import dataclass, field

from claude_orchestrator.gateway.board import Board
from claude_orchestrator.gateway.pacing.estimate import Draw
from claude_orchestrator.gateway.pacing.limits import Resource
from claude_orchestrator.gateway.pacing.pacer import PERIOD_S, Bucket, Pacer
from token_budget.named_tuples import NamedTuple

LIFETIME_S = 2 * PERIOD_S


class Told(NamedTuple):
    """What a run tells of a request: its draw, for how long the API refuses the key, and what is left then.

    `left` has limit, rest and rate of each resource, as far as the run knows them.
    """

    draw: Draw
    blocked_s: float = 0.0
    left: dict[Resource, tuple[int, float, float]] = {}  # noqa: RUF012  # never changed

    @property
    def text(self) -> str:
        """As it is posted."""
        amounts = [round(self.draw.get(resource, 0.0), 1) for resource in Resource]
        left = [self.left.get(resource) for resource in Resource]
        return json.dumps([amounts, round(self.blocked_s, 1), left])

    @classmethod
    def read(cls, text: str) -> Told | None:
        """What was posted; None if it cannot be read."""
        try:
            amounts, blocked_s, left = json.loads(text)
            draw = {resource: _number(amount) for resource, amount in zip(Resource, amounts, strict=True)}
            found = {
                resource: (int(_number(one[0])), _number(one[1]), _number(one[2]))
                for resource, one in zip(Resource, left, strict=True)
                if one is not None and _number(one[0]) > 0 and _number(one[2]) > 0
            }
            return cls(draw, _number(blocked_s), found)
        except (ValueError, TypeError, LookupError, RecursionError):
            return None


@dataclass(slots=True)
class Elsewhere:
    """What other runs draw on one key and model, by a topic that names neither. Without a board, nobody shares it."""

    board: Board | None
    topic: str
    clock: Callable[[], float]
    seen: int = 0
    owed: dict[Resource, float] = field(default_factory=dict)  # corrections that the others do not know yet

    async def claim(self, pacer: Pacer, draw: Draw) -> bool:
        """Tell other runs of a request that is about to be sent; False: they have drawn meanwhile, so decide again."""
        if self.board is None:
            return True
        total = {resource: amount + self.owed.get(resource, 0.0) for resource, amount in draw.items()}
        now = self.clock()
        left = {
            resource: (bucket.limit, round(bucket.level_at(now, pacer.speed) - draw.get(resource, 0.0), 1), bucket.rate)
            for resource, bucket in pacer.buckets.items()
        }
        answer = await self.board.post(self.topic, Told(total, left=left).text, LIFETIME_S, self.seen)
        if answer is None:
            return True
        self.seen, others = answer
        if not others:
            self.owed.clear()
        now = self.clock()
        told = [(now - age_s, found) for age_s, text in others if (found := Told.read(text)) is not None]
        self._take(pacer, told)
        return not others

    async def refused(self, for_s: float) -> None:
        """Tell other runs that the API sends requests of this key back for so long."""
        if self.board is not None:
            await self.board.post(self.topic, Told({}, for_s).text, LIFETIME_S, None)

    def correct(self, before: Draw, after: Draw) -> None:
        """A request has drawn something else than was told."""
        if self.board is None:
            return
        for resource, amount in after.items():
            self.owed[resource] = self.owed.get(resource, 0.0) + amount - before.get(resource, 0.0)

    def _take(self, pacer: Pacer, told: list[tuple[float, Told]]) -> None:
        """Draw what others have drawn. A run that knows no limits yet takes them over.

        Whoever posts has seen all posts before, so what the last one has left includes them all.
        """
        now = self.clock()
        known = [place for place, (_, one) in enumerate(told) if one.left]
        first = 0
        if known and not pacer.known:
            first = known[-1] + 1
            at, last = told[known[-1]]
            pacer.adopt(
                {resource: Bucket(limit, left, at, rate, at) for resource, (limit, left, rate) in last.left.items()}
            )
        for place, (at, one) in enumerate(told):
            draw = one.draw if place >= first else {}
            pacer.drawn_elsewhere(draw, at, at + one.blocked_s, now)


def _number(value: object) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value) or abs(value) > 1e12:
        raise ValueError("no number")
    return float(value)
