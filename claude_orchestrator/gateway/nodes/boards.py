"""The board of a run on a cluster: its nodes tell each other by the driver what they draw and write."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import time
from collections import OrderedDict, deque
from collections.abc import Callable
from dataclasses import dataclass, field

from claude_orchestrator.gateway.board import Board, Posts
from claude_orchestrator.gateway.nodes.messages import Post, Posted
from token_budget.named_tuples import NamedTuple

ANSWER_S = 1.0  # whoever waits for it waits for a request: without an answer, nothing is shared
MOST_TOPICS, MOST_POSTS = 4_096, 2_048


class NodeBoard:
    """A node's side. A Board. `say` sends a message to the driver."""

    def __init__(self, say: Callable[[object], None]) -> None:
        self._say = say
        self._numbers = itertools.count(1)
        self._answers: dict[int, asyncio.Future[Posted]] = {}

    async def post(self, topic: str, text: str, lifetime_s: float, seen: int | None) -> tuple[int, Posts] | None:
        """Post a text, unless others have posted on the topic since number `seen`."""
        number = next(self._numbers)
        answer = self._answers[number] = asyncio.get_running_loop().create_future()
        self._say(Post(number, topic, text, lifetime_s, seen))
        try:
            async with asyncio.timeout(ANSWER_S):
                posted = await answer
        except TimeoutError:
            return None
        finally:
            del self._answers[number]
        return posted.seen, posted.others

    def answered(self, posted: Posted) -> None:
        """The driver has entered a post, or has others first."""
        answer = self._answers.get(posted.request)
        if answer is not None and not answer.done():
            answer.set_result(posted)


class Note(NamedTuple):
    """What a node has posted; without a node, another run."""

    number: int
    node: object
    at: float
    until: float
    text: str


@dataclass(slots=True)
class Topic:
    """The posts on a topic, and the number of the last one of other runs that is among them."""

    notes: deque[Note] = field(default_factory=lambda: deque(maxlen=MOST_POSTS))
    seen: int = 0
    entering: asyncio.Lock = field(default_factory=asyncio.Lock)


class DriverBoard:
    """The driver's side: the posts of all nodes, and by `wider` those of other runs."""

    def __init__(self, wider: Board | None = None, clock: Callable[[], float] = time.monotonic) -> None:
        self._wider = wider
        self._clock = clock
        self._numbers = itertools.count(1)
        self._topics: OrderedDict[str, Topic] = OrderedDict()

    async def enter(self, node: object, post: Post) -> Posted:
        """Take a node's post, unless others have posted since what it has seen."""
        topic = self._topics.setdefault(post.topic, Topic())
        self._topics.move_to_end(post.topic)
        if len(self._topics) > MOST_TOPICS:
            self._topics.popitem(last=False)
        async with topic.entering:
            others = self._others(topic, node, post)
            if not others and self._wider is not None:
                await self._widen(topic, self._wider, post)
                others = self._others(topic, node, post)
            if others:
                now = self._clock()
                return Posted(post.request, others[-1].number, [(now - note.at, note.text) for note in others])
            return Posted(post.request, self._add(topic, node, 0.0, post.lifetime_s, post.text), [])

    def _others(self, topic: Topic, node: object, post: Post) -> list[Note]:
        now = self._clock()
        while topic.notes and topic.notes[0].until <= now:
            topic.notes.popleft()
        seen = post.seen
        if seen is None:
            return []
        newer = itertools.takewhile(lambda note: note.number > seen, reversed(topic.notes))
        return [note for note in newer if note.node != node and note.until > now][::-1]

    async def _widen(self, topic: Topic, wider: Board, post: Post) -> None:
        """Post it for other runs, too, and take what they have posted."""
        with contextlib.suppress(OSError):
            seen = None if post.seen is None else topic.seen
            answer = await wider.post(post.topic, post.text, post.lifetime_s, seen)
            if answer is not None and seen is not None:
                topic.seen, others = answer
                for age_s, text in others:
                    self._add(topic, None, age_s, post.lifetime_s, text)

    def _add(self, topic: Topic, node: object, age_s: float, lifetime_s: float, text: str) -> int:
        now, number = self._clock(), next(self._numbers)
        topic.notes.append(Note(number, node, now - age_s, now - age_s + lifetime_s, text))
        return number
