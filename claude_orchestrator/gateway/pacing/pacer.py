"""When the next request may be sent, so that the API's rate limits are used and no request comes back as 429. Pure.

Each limit is a bucket that refills continuously, as the API's own are. What is sent is drawn from it at once, by an
estimate that the answer corrects. The API's own figures can lower a bucket, because others may use the same key. They
may be older than what was sent since, so they raise it only if no other request is on its way.

The API may also let through fewer requests at once than a bucket holds: 60 a minute can be one each second. So the
first requests are a little apart. If one is refused for which all limits have room, all are sent evenly from then on,
and further apart after each further one: some reach the API late, and the next ones seem to come too soon.

Time is injected, in seconds of any steady clock.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from claude_orchestrator.gateway.pacing.estimate import Draw
from claude_orchestrator.gateway.pacing.limits import Reading, Resource

PERIOD_S = 60.0
PROBE_S = 10.0  # the first request shows the limits; the others wait for its answer no longer than that
LONGEST_BLOCK_S = 120.0  # a longer `retry-after` is that of a quota, which claude handles itself
REMEMBERED = 1_000  # requests
FULL_SPEED, LEAST_SPEED = 1.0, 0.25  # shares of the limit's rate
SLOWER, FASTER = 0.8, 0.005  # after a request that was refused, and after one that was not
ROUNDING_TOKENS = 500  # the API rounds what remains to thousands
FIRST_REMAINS = 0.1  # of a request, for clocks that differ
SLOW_RESET = 1.25  # times the usual time to refill: then the API's own figure counts
ELSEWHERE_S = 10.0  # so long a request of another run may be on its way
FIRST_REQUESTS, FIRST_APART_S = 20, 0.1
EVENLY = 1.1  # times the seconds in which the API lets one request through
WIDER, NARROWER = 0.1, 0.0005  # after a request that was refused nevertheless, and after one that was not
WIDEST = 2.0
ENOUGH_MISSING = 0.2  # of a limit, to compute a rate from the time of its reset


@dataclass(slots=True)
class Bucket:
    """A limit: what is left of it, and the rate at which it refills.

    The API's own figure includes what was sent until `told_until`: that needs no correction.
    """

    limit: int
    level: float
    at: float
    rate: float
    told_until: float

    def level_at(self, now: float, speed: float) -> float:
        """What is left of it."""
        return min(float(self.limit), self.level + max(0.0, now - self.at) * self.rate * speed)

    def move(self, now: float, speed: float, change: float) -> None:
        """Draw from it, or give back."""
        self.level = min(float(self.limit), self.level_at(now, speed) + change)
        self.at = now


@dataclass(slots=True, eq=False)
class Sent:
    """A request that was sent, and what it draws as far as that is known."""

    at: float
    draw: Draw
    answered: bool = False


@dataclass(slots=True)
class Pacer:
    """The limits of one key for one model, as far as answers have shown them."""

    buckets: dict[Resource, Bucket] = field(default_factory=dict)
    sent: deque[Sent] = field(default_factory=lambda: deque(maxlen=REMEMBERED))
    speed: float = FULL_SPEED
    blocked_until: float = float("-inf")
    refusals: int = 0
    known: bool = False
    probe_at: float | None = None
    on_way: int = 0
    elsewhere_at: float = float("-inf")  # when another run sent its last request
    sent_at: float = float("-inf")  # when the last one was sent, here or elsewhere
    learned_at: float = float("-inf")  # from a refusal
    is_even: bool = False  # requests are sent one by one, at the rate of their limit
    evenly: float = EVENLY

    def wait_s(self, draw: Draw, now: float) -> float:
        """Seconds until a request that draws so much may be sent; 0: now."""
        wait_s = max(0.0, self.blocked_until - now)
        if not self.known and self.probe_at is not None:
            wait_s = max(wait_s, self.probe_at + PROBE_S - now)
        wait_s = max(wait_s, self.sent_at + self._apart_s() - now)
        for resource, bucket in self.buckets.items():
            lacking = _needed(resource, draw, bucket) - bucket.level_at(now, self.speed)
            if lacking > 0:
                wait_s = max(wait_s, lacking / (bucket.rate * self.speed))
        return wait_s

    def tightest(self, now: float) -> Resource | None:
        """The limit of which the smallest share is left."""
        shares = {
            resource: bucket.level_at(now, self.speed) / bucket.limit for resource, bucket in self.buckets.items()
        }
        return min(shares, key=lambda resource: shares[resource], default=None)

    def send(self, draw: Draw, now: float) -> Sent:
        """A request is sent."""
        if not self.known and self.probe_at is None:
            self.probe_at = now
        for resource, bucket in self.buckets.items():
            bucket.move(now, self.speed, -draw.get(resource, 0.0))
        sent = Sent(now, draw)
        self.sent.append(sent)
        self.sent_at = now
        self.on_way += 1
        return sent

    def left(self, now: float) -> None:
        """A request has left, which may be later than it was sent: the next ones keep their distance from that."""
        self.sent_at = max(self.sent_at, now)

    def _apart_s(self) -> float:
        """The seconds between two requests."""
        bucket = self.buckets.get(Resource.REQUESTS)
        if bucket is None:
            return 0.0
        if self.is_even:
            return self.evenly / (bucket.rate * self.speed)
        return min(FIRST_APART_S, 1 / bucket.rate) if len(self.sent) < FIRST_REQUESTS else 0.0

    def answered(self, sent: Sent, readings: Iterable[Reading], now: float) -> None:
        """The headers of an answer have come."""
        self._arrived(sent)
        self.known = True
        self.speed = min(FULL_SPEED, self.speed + FASTER)
        self.evenly = max(EVENLY, self.evenly - NARROWER)
        for reading in readings:
            self._read(reading, sent, now)

    def refused(self, sent: Sent, readings: Iterable[Reading], retry_after_s: float | None, now: float) -> None:
        """The API has refused a request by a rate limit."""
        self._arrived(sent)
        self.known = True
        self.refusals += 1
        readings = [*readings]
        if sent.at >= self.learned_at:  # one refusal counts for all that were on their way
            self.learned_at = now
            if not readings or not all(_has_room(reading, sent.draw) for reading in readings):
                self.speed = max(LEAST_SPEED, self.speed * SLOWER)
            elif self.is_even:
                self.evenly = min(WIDEST, self.evenly + WIDER)
            else:
                self.is_even = True
        for reading in readings:
            self._read(reading, sent, now)
        if retry_after_s is not None and retry_after_s <= LONGEST_BLOCK_S:
            self.blocked_until = max(self.blocked_until, now + retry_after_s)

    def lost(self, sent: Sent) -> None:
        """A request has ended without an answer."""
        if not sent.answered:
            self._arrived(sent)
            self.probe_at = None

    def adopt(self, buckets: Mapping[Resource, Bucket]) -> None:
        """Another run knows the limits: no request need show them."""
        self.buckets.update(buckets)
        self.known = True

    def drawn_elsewhere(self, draw: Draw, at: float, now: float) -> None:
        """Another run has sent a request at that time, or it has drawn so much more than that run had told."""
        for resource, bucket in self.buckets.items():
            if at > bucket.told_until:
                bucket.move(now, self.speed, -draw.get(resource, 0.0))
        self.elsewhere_at = max(self.elsewhere_at, at)
        self.sent_at = max(self.sent_at, at)

    def block(self, until: float, now: float) -> None:
        """Nothing is sent until then."""
        self.blocked_until = max(self.blocked_until, min(until, now + LONGEST_BLOCK_S))

    def correct(self, sent: Sent, draw: Draw, now: float) -> None:
        """What a request has really drawn is known."""
        for resource, bucket in self.buckets.items():
            if sent.at > bucket.told_until:
                bucket.move(now, self.speed, sent.draw.get(resource, 0.0) - draw.get(resource, 0.0))
        sent.draw = draw

    def _arrived(self, sent: Sent) -> None:
        if not sent.answered:
            sent.answered = True
            self.on_way -= 1

    def _read(self, reading: Reading, sent: Sent, now: float) -> None:
        resource, rate = reading.resource, _rate(reading)
        bucket = self.buckets.get(resource)
        # the figure may be of this moment, or as old as its request: then this was drawn since, and as much came back
        is_now = float(reading.remaining)
        was_then = is_now + (now - sent.at) * rate * self.speed - self._sent_after(sent, resource)
        least, most = sorted((is_now, was_then))
        if bucket is None or bucket.limit != reading.limit:
            self.buckets[resource] = Bucket(reading.limit, least, now, rate, sent.at)
            return
        own, bucket.rate, bucket.at = bucket.level_at(now, self.speed), rate, now
        seen = min(float(reading.limit), most + _rounding(resource))
        bucket.level = min(seen, own if self._may_be_on_way(now) else max(own, least))
        if bucket.level != own:
            bucket.told_until = now if is_now > was_then else max(bucket.told_until, sent.at)

    def _may_be_on_way(self, now: float) -> bool:
        """Whether a request may have been sent that no figure includes."""
        return self.on_way > 0 or now - self.elsewhere_at < ELSEWHERE_S

    def _sent_after(self, sent: Sent, resource: Resource) -> float:
        drawn = 0.0
        for other in reversed(self.sent):
            if other is sent or other.at < sent.at:
                break
            drawn += other.draw.get(resource, 0.0)
        return drawn


def _needed(resource: Resource, draw: Draw, bucket: Bucket) -> float:
    """What must be left for a request; one that is larger than the limit needs nearly all of it."""
    if resource is Resource.REQUESTS:
        return min(draw.get(resource, 0.0) + FIRST_REMAINS, float(bucket.limit))
    return min(draw.get(resource, 0.0) + ROUNDING_TOKENS, 0.95 * bucket.limit)


def _has_room(reading: Reading, draw: Draw) -> bool:
    """Whether a limit has room for a request, also if the estimate is half of what it draws."""
    return reading.remaining >= 2 * draw.get(reading.resource, 0.0)


def _rounding(resource: Resource) -> float:
    """How much more may be left than a reading says."""
    return 1.0 if resource is Resource.REQUESTS else ROUNDING_TOKENS


def _rate(reading: Reading) -> float:
    """How much of a limit comes back in a second."""
    usual, missing = reading.limit / PERIOD_S, reading.limit - reading.remaining
    if reading.reset_in_s and missing > ENOUGH_MISSING * reading.limit:
        stated = missing / reading.reset_in_s
        if stated * SLOW_RESET < usual:
            return max(stated, usual / PERIOD_S)
    return usual
