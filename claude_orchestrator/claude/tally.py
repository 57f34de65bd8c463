"""From events to tokens: every token that the API bills, counted once, while it happens. Pure.

Two sources are reconciled. The stream shows the main thread's responses as they happen, but neither the calls of
subagents nor side calls (web pages, compaction). The CLI's own count (`modelUsage`, in every result and in the
answers to `get_usage`) has all finished calls, but none that was cut off. So:

    total = the CLI's latest count + what the stream showed since + what was cut off and the CLI never counts

Nothing is added on a guess. If the stream cannot tell whether the CLI's count has a response already, the response is
assumed to be in it, and the next count settles that. A total never falls.
"""

from __future__ import annotations

import math

from claude_orchestrator.claude.attribution import Attribution
from claude_orchestrator.claude.baseline import Baseline
from claude_orchestrator.claude.events import (
    ApiUsage,
    Assistant,
    BadLine,
    Event,
    Init,
    MessageDelta,
    MessageStart,
    MessageStop,
    ModelUsage,
    Requesting,
    Result,
    SessionReset,
    SideCall,
    Streamed,
    Task,
    UsageAnswer,
    User,
)
from claude_orchestrator.claude.responses import REMEMBERED_IDS, MeterCount, OpenResponse
from token_budget.api_usage import ApiUsageObject
from token_budget.models import Usage
from token_budget.portions import MAIN, SIDE_CALLS, TOOLS, Portion, Spent


def plain_model(model: str) -> str:
    """A model's name without the mark that the CLI adds for a longer context: `[1m]`."""
    return model.partition("[")[0]


class UsageTally:
    """Counts one process's tokens from its events. `resumed`: the process continues an earlier session. `metered`: the
    API meter reports each response. Its count is used as long as the stream shows no response that it missed.

    `usage` is the total so far and never falls; `exact` is False where it is a lower bound. `cut_off` has what the CLI
    has no cost for: each response that was cut off, and compaction. `attribution` has who asked.
    """

    def __init__(self, *, resumed: bool = False, metered: bool = False) -> None:
        self.resumed = resumed
        self.metered = metered
        self.usage = Usage()
        self.cost_usd: float | None = None
        self.models: tuple[str, ...] = ()
        self.agents: set[str] = set()
        self.cut_off: list[ApiUsage] = []
        self.attribution = Attribution()
        self._api = MeterCount()
        self._read = self._finished = self._lost = self._unread_at_reset = Usage()
        self._baseline = Baseline()
        self._may_restart = False
        self._open: dict[str, OpenResponse] = {}
        self._current: dict[str | None, str] = {}
        self._ended: dict[str | None, OpenResponse] = {}
        self._streaming = ""
        self._settled: dict[str, None] = {}
        self._version = ""
        self._began = self._closed = self._has_reading = False
        self._lower_bound = self._doubt = self._unseen = self._requesting = False
        self._reading_by_model: tuple[tuple[str, Usage, float | None], ...] = ()

    @property
    def by_model(self) -> dict[str, Usage]:
        """`usage` divided by model, as far as that is known; the rest is the main model's."""
        if self.metered:
            return self._api.by_model
        main = self.models[0] if self.models else ""
        parts = {name: usage for name, usage, _ in self._reading_by_model}
        known = sum(parts.values(), Usage())
        if self.usage | known != self.usage:  # it has what earlier processes of the session used
            return {main: self.usage}
        parts[main] = parts.get(main, Usage()) + (self.usage - known)
        return {name: usage for name, usage in parts.items() if usage.total_tokens}

    @property
    def by_portion(self) -> dict[Portion, Spent]:
        """`usage` divided by model, by who asked, and by the terms of the price; what is not known stays undivided."""
        if self.metered:
            return self._api.by_portion
        found: dict[Portion, Spent] = {}
        shown = self.attribution.shown
        for model, usage in self.by_model.items():
            rest = usage
            for (source, name), part in shown.items():
                if name == plain_model(model):
                    own = Usage(*map(min, part, rest))  # the CLI's own count decides
                    rest -= own
                    if own.total_tokens:
                        found[Portion(model, source)] = Spent(own)
            if rest.total_tokens:
                found[Portion(model)] = Spent(rest)
        return found

    def settle_sources(self) -> list[ApiUsage]:
        """A turn is over: what no subagent asked for and the stream has not shown are side calls, from now on.

        Returns the responses that count as another source than before.
        """
        changed = []
        for response in self._api.responses.values():
            source = self._source(response)
            if source != response.source:
                changed.append(response._replace(source=source))
        for response in changed:
            self._api.count(response)
        return changed

    def _source(self, response: ApiUsage) -> str:
        if response.source not in (MAIN, TOOLS):
            return response.source
        if self.attribution.is_main(response.id.partition("#")[0]):
            return MAIN
        return SIDE_CALLS if response.source == MAIN and response.whole else response.source

    @property
    def cost_by_model(self) -> dict[str, float]:
        """`cost_usd` divided by model where the CLI does so; else it is the main model's."""
        if self.cost_usd is None:
            return {}
        parts = {name: cost for name, _, cost in self._reading_by_model if cost is not None}
        if math.isclose(sum(parts.values()), self.cost_usd, rel_tol=1e-9):
            return parts
        return {self.models[0] if self.models else "": self.cost_usd}

    @property
    def exact(self) -> bool:
        """Whether `usage` is all that was billed; while the process runs, whether nothing is known to be missing."""
        if self.metered:
            return not self._api.lower_bound
        if self._lower_bound or self._doubt:
            return False
        if not self._closed or not self._began:
            return True
        return self._has_reading and not (self._open or self._unseen or self.agents or self._finished.total_tokens)

    @property
    def unseen_calls(self) -> bool:
        """Whether calls may be running that the stream does not show: the CLI's own count should be asked for."""
        return bool(self.agents) or self._unseen

    @property
    def requesting(self) -> bool:
        """Whether the main thread has sent a request whose answer has not begun."""
        return self._requesting

    @property
    def uncosted(self) -> Usage:
        """The part of `usage` that is neither in the CLI's latest count, which has a cost, nor in `cut_off`."""
        return self.usage - self._read - self._lost

    def feed(self, event: Event) -> None:
        """Take one event into account."""
        if not isinstance(event, Streamed):
            self.attribution.feed(event)
        match event:
            case Streamed():
                self._stream_piece(event)
                return
            case MessageStart():
                self._start(event)
            case MessageDelta():
                self._count_delta(event)
            case MessageStop():
                self._stop(event)
            case Assistant():
                self._assistant(event)
            case User(parent=None, interrupted=True):
                self._interrupted()
            case Result():
                self._result(event)
            case UsageAnswer():
                self._answer(event)
            case ApiUsage():
                self.attribution.meet_sender(event)
                self._api.count(event)
            case Task():
                self._task(event)
            case _:
                if not self._note(event):
                    return
        self._update()

    def _note(self, event: Event) -> bool:
        """Remember what an event without counts says about later ones; whether it says anything."""
        match event:
            case SideCall():
                self._unseen = True
            case Requesting():
                self._requesting = True
            case SessionReset():
                self._may_restart, self._unread_at_reset = True, self._finished
            case Init():
                self._began = True
                self._version = event.version
                self.models = self.models or ((event.model,) if event.model else ())
            case BadLine():
                self._began = True
                self._doubt = self._doubt or event.lossy
            case _:
                return False
        return True

    def lost_line(self) -> None:
        """A line was too long to be read. Its content is unknown until the CLI's next count."""
        self._doubt = True

    def close(self) -> None:
        """The stream has ended: what is still open was cut off."""
        for response in list(self._open.values()):
            if response.streamed and not response.in_reading:
                self._lose(response)
        self._lower_bound = self._lower_bound or self._requesting
        self._closed = True
        self._update()

    def _update(self) -> None:
        if self.metered:
            self.usage |= self._api.total
            return
        total = self._read + self._finished + self._lost
        for response in self._open.values():
            if not response.in_reading:
                total += response.usage
        self.usage |= total

    # -- what the API meter sees --

    def meter(self) -> None:
        """From now on the API meter reports each response."""
        self.metered = True

    def _compare(self, response_id: str) -> None:
        """If a response has bypassed the meter, the stream is the count from now on."""
        if self.metered and response_id not in self._api.responses:
            self.metered = False
            self._lower_bound = self._lower_bound or self._api.lower_bound

    # -- what the stream shows --

    def _stream_piece(self, event: Streamed) -> None:
        response = self._open.get(self._streaming)
        if response is not None:
            response.keep(event.lines)

    def _start(self, event: MessageStart) -> None:
        self._compare(event.id)
        self._began = True
        self._doubt = self._doubt or event.malformed
        if event.parent is None:
            self._requesting = False
        if event.id in self._settled:
            return
        if event.id in self._open:
            self._open[event.id].usage |= event.usage
            self._count_beside(self._open[event.id], event.stated)
            return
        self._cut_current(event.parent)
        self._ended.pop(event.parent, None)
        response = self._open[event.id] = OpenResponse(event.id, event.usage, streamed=True, model=event.model)
        self._count_beside(response, event.stated)
        self._current[event.parent] = self._streaming = event.id

    def _count_delta(self, event: MessageDelta) -> None:
        self._doubt = self._doubt or event.malformed
        response = self._open.get(self._current.get(event.parent, ""))
        if response is None:
            self._count_late_delta(event)
            return
        response.has_delta = True
        response.usage |= event.usage
        self._count_beside(response, event.stated)
        if event.stop_reason is not None:
            del self._current[event.parent]
            self._ended[event.parent] = response
            self._finish(response, whole=True)

    def _count_late_delta(self, event: MessageDelta) -> None:
        """Counts that come between a response's stop reason and its end."""
        response = self._ended.get(event.parent)
        if response is not None:
            more = event.usage - response.usage
            response.usage |= event.usage
            if not response.in_reading:
                self._finished += more

    def _stop(self, event: MessageStop) -> None:
        """The response has ended; without a stop reason its connection was dropped."""
        self._ended.pop(event.parent, None)
        response = self._open.get(self._current.get(event.parent, ""))
        if response is not None and response.has_delta:
            del self._current[event.parent]
            self._finish(response, whole=False)

    def _finish(self, response: OpenResponse, *, whole: bool) -> None:
        if not whole:
            self._lost += response.with_estimate() - response.usage
            self._lower_bound = True
        if not response.in_reading:
            self._finished += response.usage
        self._settle(response)

    def _count_beside(self, response: OpenResponse, stated: ApiUsageObject) -> None:
        """Count what the response bills beside its own counts: the CLI never does."""
        before = response.beside
        response.stated |= stated
        self._lost += response.beside - before

    def _settle(self, response: OpenResponse) -> None:
        if response.beside.total_tokens:
            self.cut_off.append(response.compaction())
        del self._open[response.id]
        self._settled[response.id] = None
        if len(self._settled) > REMEMBERED_IDS:
            del self._settled[next(iter(self._settled))]

    def _assistant(self, event: Assistant) -> None:
        self._began = True
        if event.synthetic:
            current = self._open.get(self._current.get(event.parent, ""))
            if current is not None:
                current.cut = True
            return
        self._compare(event.id)
        self._doubt = self._doubt or event.malformed
        if event.id in self._settled:
            return
        response = self._open.get(event.id)
        if response is None:
            self._cut_current(event.parent)
            response = OpenResponse(event.id, event.usage, streamed=False, model=event.model)
            self._open[event.id] = response
            self._current[event.parent] = event.id
        response.usage |= event.usage
        self._count_beside(response, event.stated)
        if event.stop_reason is not None:
            self._current.pop(event.parent, None)
            self._finish(response, whole=True)

    # -- what was cut off --

    def _cut_current(self, parent: str | None) -> None:
        """Another response begins on this thread. The one before was dropped, if it was being streamed.

        Whether the CLI counts it differs (2.1.197: only one with a whole block; 2.1.330: each, with an estimate of
        its output): its next count tells.
        """
        response = self._open.get(self._current.pop(parent, ""))
        if response is not None and response.streamed:
            response.cut = True

    def _interrupted(self) -> None:
        """The turn was interrupted, and with it the response in progress and the calls that the stream does not
        show."""
        if self._requesting or self.agents:
            self._lower_bound = True
        self._requesting = False
        response = self._open.get(self._current.pop(None, ""))
        if response is not None:
            response.cut = True

    def _lose(self, response: OpenResponse) -> None:
        self._lost += response.with_estimate()
        self.cut_off.append(response.lost())
        self._lower_bound = True
        self._settle(response)

    # -- what the CLI counts --

    def _result(self, event: Result) -> None:
        self._began = True
        self._requesting = False
        self._cut_current(None)
        if event.model_usage is not None:
            self._reading(event.model_usage)
        else:
            # without the CLI's count there is the turn's: main thread only, as the stream shows it
            self._doubt = self._doubt or event.malformed
            self._finished |= event.usage

    def _answer(self, event: UsageAnswer) -> None:
        if not self._began and not self._baseline.is_known:
            self._baseline.state(event.model_usage)
        else:
            self._reading(event.model_usage)

    def _reading(self, reading: ModelUsage) -> None:
        """Take over the CLI's count, and settle what it has."""
        if not self._baseline.is_known:
            self._guess_baseline(reading)
        if self._may_restart and reading.usage | self._read != reading.usage:
            self._restart()
        usage = self._baseline.usage_in(reading)
        new = usage - self._read
        growth = new - self._finished
        self._finished -= new
        self._unread_at_reset -= new
        self._read |= usage
        for response in list(self._open.values()):
            if response.in_reading:
                continue
            if growth.covers(response.usage):
                self._found_in_reading(response, growth.output_tokens)
                growth -= response.usage
            elif response.cut:
                self._lose(response)
        self._has_reading = True
        self._doubt = reading.malformed
        self._unseen = False
        self.models = reading.models or self.models
        self._reading_by_model = reading.by_model
        if reading.cost_usd is not None:
            self.cost_usd = max(self.cost_usd or 0.0, self._baseline.cost_in(reading.cost_usd))

    def _restart(self) -> None:
        """After `/clear` the CLI may count from zero again (2.1.330 does, 2.1.197 does not).

        What the stream has shown since then is in the count that begins.
        """
        self._read += self._unread_at_reset
        self._finished -= self._unread_at_reset
        self._unread_at_reset = Usage()
        self._baseline.restart(self._read, self.cost_usd or 0.0)
        self._may_restart = False

    def _found_in_reading(self, response: OpenResponse, counted_output: int) -> None:
        if response.streamed and not response.cut:
            response.in_reading = True
            return
        if response.streamed:
            estimate = response.with_estimate().output_tokens
            self._lost += Usage(output_tokens=max(0, estimate - counted_output))
            self._lower_bound = True
        self._settle(response)

    def _guess_baseline(self, reading: ModelUsage) -> None:
        """Guess what an earlier process of this session had counted, if the CLI was not asked before the first turn."""
        seen = self._finished
        for response in self._open.values():
            seen += response.usage
        if self._baseline.guess(reading, seen, self._version, resumed=self.resumed):
            self._lower_bound = self._lower_bound or self.unseen_calls

    def _task(self, event: Task) -> None:
        self._began = True
        if event.status is not None:
            if event.id in self.agents and not event.whole:
                self._lower_bound = True  # the response that it was in the middle of was never shown
            self.agents.discard(event.id)
            self._unseen = True
        elif event.kind and event.kind != "local_bash":
            self.agents.add(event.id)
