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
ASK_EVERY_S = 0.5  # while no other run is known
MOST_OWED = 256  # draws
KNOWN_AFTER_S = 1.5  # so long after its first post, every other run has seen it, busy as it may be


class PaceReport(NamedTuple):
    """What a run tells the others: its draws, for how long the API refuses the key, and what is left then.

    Each draw has its age in seconds. A later correction has the age of its request, so that nobody draws what the API's
    own figures include. `left` has limit, rest and rate of each resource, as far as the run knows them. `is_even` is as
    in Pacer.
    """

    draws: list[tuple[float, Draw]]
    blocked_s: float = 0.0
    left: dict[Resource, tuple[int, float, float]] = {}  # noqa: RUF012  # never changed
    is_even: bool = False

    @property
    def text(self) -> str:
        """As it is posted."""
        draws = [[round(age_s, 3), [round(draw.get(one, 0.0), 1) for one in Resource]] for age_s, draw in self.draws]
        left = [self.left.get(resource) for resource in Resource]
        return json.dumps([draws, round(self.blocked_s, 1), left, self.is_even])

    @classmethod
    def read(cls, text: str) -> PaceReport | None:
        """What was posted; None if it cannot be read."""
        try:
            draws, blocked_s, left, is_even = json.loads(text)
            found = {
                resource: (int(_number(one[0])), _number(one[1]), _number(one[2]))
                for resource, one in zip(Resource, left, strict=True)
                if one is not None and _number(one[0]) > 0 and _number(one[2]) > 0
            }
            drawn: list[tuple[float, Draw]] = [
                (_number(age_s), dict(zip(Resource, map(_number, one), strict=True))) for age_s, one in draws
            ]
            return cls(drawn, _number(blocked_s), found, is_even is True)
        except (ValueError, TypeError, LookupError, RecursionError):
            return None


@dataclass(slots=True)
class Elsewhere:
    """What other runs draw on one key and model, by a topic that names neither. Without a board, nobody shares it.

    A run that has met no other asks the board only now and then, and tells what it has drawn since. Whoever begins
    beside it makes itself known first, and waits until the others must have seen that. From then on each request is
    told before it is sent.
    """

    board: Board | None
    topic: str
    clock: Callable[[], float]
    seen: int = 0
    owed: dict[float, Draw] = field(default_factory=dict)  # drawn by requests of that time, and not told yet
    asked_at: float = float("-inf")
    told_at: float = float("-inf")
    met_at: float = float("-inf")  # when another run's post was found last

    async def claim(self, pacer: Pacer, draw: Draw) -> bool:
        """Tell other runs of a request that is about to be sent; False: they have drawn meanwhile, so decide again."""
        if self.board is None:
            return True
        now = self.clock()
        if now - self.met_at > LIFETIME_S and now < self.asked_at + ASK_EVERY_S:
            self._owe(now, draw)
            return True
        return await self._ask(self.board, pacer, draw)

    @property
    def is_behind(self) -> bool:
        """Whether the others do not know yet of all that was drawn."""
        return bool(self.owed)

    async def catch_up(self, pacer: Pacer) -> None:
        """Tell what was drawn without that."""
        if self.board is not None and self.is_behind and not await self._ask(self.board, pacer, {}):
            await self._tell(self.board, pacer)

    async def refused(self, pacer: Pacer, for_s: float) -> None:
        """Tell other runs that the API sends requests of this key back for so long."""
        if self.board is not None:
            await self._tell(self.board, pacer, for_s)

    def correct(self, at: float, before: Draw, after: Draw) -> None:
        """A request of that time has drawn something else than was told."""
        more = {resource: amount - before.get(resource, 0.0) for resource, amount in after.items()}
        if self.board is not None and any(more.values()):
            self._owe(at, more)

    def _owe(self, at: float, draw: Draw) -> None:
        if at not in self.owed and len(self.owed) >= MOST_OWED:
            at = next(reversed(self.owed))
        before = self.owed.get(at, {})
        self.owed[at] = {one: before.get(one, 0.0) + draw.get(one, 0.0) for one in Resource}

    def _owe_again(self, owed: dict[float, Draw]) -> None:
        """They could not be told."""
        for at, draw in owed.items():
            self._owe(at, draw)

    def _draws(self, now: float) -> list[tuple[float, Draw]]:
        """Return the draws that were not posted yet, each with its age in seconds."""
        return [(now - at, draw) for at, draw in self.owed.items()]

    async def _ask(self, board: Board, pacer: Pacer, draw: Draw) -> bool:
        """Post a draw with all that is owed, unless others have posted meanwhile."""
        now = self.asked_at = self.clock()
        left = {
            resource: (bucket.limit, round(bucket.level_at(now, pacer.speed) - draw.get(resource, 0.0), 1), bucket.rate)
            for resource, bucket in pacer.buckets.items()
        }
        draws = [*self._draws(now), *([(0.0, draw)] if draw else [])]
        owed, self.owed = self.owed, {}
        answer = await board.post(
            self.topic, PaceReport(draws, left=left, is_even=pacer.is_even).text, LIFETIME_S, self.seen
        )
        if answer is None:
            self._owe_again(owed)
            return True
        self.seen, others = answer
        now = self.clock()
        if not others:
            self.told_at = now
            return True
        self._owe_again(owed)
        self.met_at = now
        told = [(now - age_s, found) for age_s, text in others if (found := PaceReport.read(text)) is not None]
        self._take(pacer, told)
        if now - self.told_at > LIFETIME_S:
            await self._tell(board, pacer)
            pacer.block(now + KNOWN_AFTER_S, now)
        return False

    async def _tell(self, board: Board, pacer: Pacer, blocked_s: float = 0.0) -> None:
        """Post what is owed, whatever others have posted."""
        told = PaceReport(self._draws(self.clock()), blocked_s, is_even=pacer.is_even)
        owed, self.owed = self.owed, {}
        if await board.post(self.topic, told.text, LIFETIME_S, None) is None:
            self._owe_again(owed)
        else:
            self.told_at = self.clock()

    def _take(self, pacer: Pacer, told: list[tuple[float, PaceReport]]) -> None:
        """Draw what others have drawn. A run that knows no limits yet takes them over.

        Whoever posts has seen all posts before, so what the last one has left includes them all. It does not include
        the corrections that follow.
        """
        now = self.clock()
        known = [place for place, (_, one) in enumerate(told) if one.left]
        first = 0
        if known and not pacer.known:
            first = known[-1] + 1
            at, last = told[known[-1]]
            pacer.adopt(
                {
                    resource: Bucket(limit, left, at, rate, float("-inf"))
                    for resource, (limit, left, rate) in last.left.items()
                }
            )
        for place, (at, one) in enumerate(told):
            for age_s, draw in one.draws if place >= first else ():
                pacer.drawn_elsewhere(draw, at - age_s, now)
            pacer.block(at + one.blocked_s, now)
            pacer.is_even = pacer.is_even or one.is_even


def _number(value: object) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value) or abs(value) > 1e12:
        raise ValueError("no number")
    return float(value)
