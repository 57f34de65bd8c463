"""What an attempt had used when its orchestrator was killed: from its stream and claude's own transcripts. Pure.

The stream was read up to the kill. Claude writes each block of a response to its transcript as soon as it is whole, and
subagents have transcripts too. Neither has side calls, nor requests that had no answer yet.
"""

from __future__ import annotations

from collections.abc import Mapping

from claude_orchestrator.claude.events import ApiUsage, Assistant, Init, MessageStart
from claude_orchestrator.claude.line_events import event_of
from claude_orchestrator.claude.stream import parse
from claude_orchestrator.claude.tally import UsageTally
from token_budget.models import NO_USAGE, Usage
from token_budget.timestamps import unix_s

MAX_SESSIONS = 100


class Recount:
    """Counts an attempt again; `resumed` where it had continued an earlier session.

    `first_input` is what the first request of a session has, as far as that is known.

    First comes its stream, in order, then the transcripts of its `sessions`, and then `close`.
    """

    def __init__(self, *, resumed: bool, first_input: Usage = NO_USAGE) -> None:
        self.tally = UsageTally(resumed=resumed)
        self.sessions: dict[str, None] = {}
        self._responses: dict[str, Usage] = {}  # those of the transcripts, with the largest counts of each
        self._last_input = NO_USAGE  # of the main thread's latest response
        self._before_input = first_input  # of a response in an earlier attempt
        self._answered = False
        self._asked: dict[str, Usage] = {}  # the latest response of each subagent
        self._asking: dict[str, Usage] = {}  # those whose request had no answer, with the latest one before

    def read_stream(self, lines: bytes) -> None:
        """Take whole lines of the stream, each with its end."""
        for event in parse(lines):
            self.tally.feed(event)
            if isinstance(event, MessageStart) and event.parent is None:
                self._last_input = event.usage
            if isinstance(event, Init) and len(self.sessions) < MAX_SESSIONS:
                self.sessions[event.session_id] = None

    def read_transcript(self, line: Mapping[str, object], since_s: float, until_s: float, agent: str = "") -> None:
        """Take a line of a transcript, if it is a response of this time (seconds of the clock on the wall).

        A session's transcript has the lines of other attempts too. The latest one before tells how large a request is.
        `agent` is the subagent whose transcript it is.
        """
        at_s = unix_s(line.get("timestamp")) or 0.0  # before all others where it is none
        if agent and line.get("type") == "user" and since_s <= at_s <= until_s:
            self._asking[agent] = self._asked.get(agent, NO_USAGE)  # a request follows at once
        if line.get("type") != "assistant" or at_s > until_s:
            return
        event = event_of(dict(line))
        if not isinstance(event, Assistant) or event.synthetic or not event.id:
            return
        if at_s < since_s:
            self._before_input = event.usage
            return
        self._responses[event.id] = self._responses.get(event.id, NO_USAGE) | event.usage
        if agent:
            self._asked[agent] = event.usage
            self._asking.pop(agent, None)
        if not (agent or line.get("isSidechain")):
            before = self.tally.usage
            self.tally.feed(event)
            if not before.covers(self.tally.usage):
                self._answered, self._last_input = True, event.usage

    def close(self) -> None:
        """Nothing more follows: what is still open was cut off."""
        self.tally.close()

    @property
    def usage(self) -> Usage:
        """All that is known. It is unknown whether the stream's count includes a subagent's response. So the larger of
        both sums counts, which is never more than was billed."""
        cut_off = [one.usage for one in self.tally.cut_off if one.id not in self._responses]
        return self.tally.usage | sum([*self._responses.values(), *cut_off], NO_USAGE)

    @property
    def by_model(self) -> dict[str, Usage]:
        """`usage` divided by model. Use of an unknown model counts as the main model's."""
        found = self.tally.by_model
        rest = self.usage - self.tally.usage
        if rest.total_tokens:
            found[self._main_model] = found.get(self._main_model, NO_USAGE) + rest
        return found

    @property
    def _main_model(self) -> str:
        return self.tally.models[0] if self.tally.models else ""

    @property
    def unanswered(self) -> Usage:
        """An estimate of the input of requests whose answers had not begun: as much as the ones before had.

        For a subagent that is also the answer in progress, which nobody sees.
        """
        found = sum(self._asking.values(), NO_USAGE)
        if self.tally.requesting and not self._answered:
            found += self._last_input if self._last_input.total_tokens else self._before_input
        return found._replace(output_tokens=0)

    @property
    def exact(self) -> bool:
        """Whether that is everything, if claude did nothing when it was ended."""
        return self.tally.exact and self.usage == self.tally.usage

    @property
    def uncosted(self) -> ApiUsage:
        """What claude has stated no cost for, beside the responses that were cut off and the unanswered request."""
        usage = self.tally.uncosted + (self.usage - self.tally.usage)
        return ApiUsage("interrupted", usage, whole=False, model=self._main_model)
