"""Who asked for what: the main thread, each subagent, or neither, as far as the stream shows it. Pure.

Subagents have the same id in the stream's task events and in the headers of their API requests. Measured with 2.1.197
and 2.1.332: `task_started` names the type and the call that started it, and the newer version the parent and the depth.
"""

from __future__ import annotations

from claude_orchestrator.claude.events import (
    AgentReport,
    ApiUsage,
    Assistant,
    Event,
    MessageDelta,
    MessageStart,
    Task,
    User,
)
from claude_orchestrator.claude.responses import REMEMBERED_IDS
from token_budget.models import NO_USAGE, Usage
from token_budget.portions import MAIN, Subagent

MAX_SUBAGENTS = 10_000
MAX_DEPTH = 100


class Attribution:
    """Learns from a process's events who asked for its responses; `subagents` has every one that was seen."""

    def __init__(self) -> None:
        self._types: dict[str, str] = {}
        self._parents: dict[str, str] = {}
        self._call_of: dict[str, str] = {}  # the tool call that started a subagent
        self._agent_of: dict[str, str] = {}  # the subagent that a tool call started
        self._caller_of: dict[str, str | None] = {}  # the thread that made a tool call to start a subagent
        self._current: dict[str | None, str] = {}
        self._seen: dict[str, tuple[str | None, str, Usage]] = {}  # by response: thread, model, counts
        self._shown: dict[tuple[str | None, str], Usage] = {}

    def feed(self, event: Event) -> None:
        """Take one event into account."""
        match event:
            case MessageStart():
                self._current[event.parent] = event.id
                self._count(event.id, event.parent, event.model, event.usage)
            case MessageDelta():
                current = self._current.get(event.parent, "")
                if current in self._seen:
                    self._count(current, event.parent, self._seen[current][1], event.usage)
            case Assistant() if not event.synthetic:
                self._count(event.id, event.parent, event.model, event.usage)
                for name, call in zip(event.tools, event.tool_ids, strict=True):
                    if name in ("Agent", "Task") and len(self._caller_of) < MAX_SUBAGENTS:
                        self._caller_of[call] = event.parent
            case Task():
                if event.subagent_type or event.kind == "local_agent":
                    self.meet(event.id, event.parent_task, event.subagent_type, call=event.tool_use_id)
            case User(report=AgentReport() as report):
                self._report(report)
            case _:
                pass

    def meet(self, agent: str, parent: str = "", type: str = "", *, call: str = "") -> None:
        """A subagent exists. Empty values are unknown for now."""
        if agent not in self._types and len(self._types) >= MAX_SUBAGENTS:
            return
        self._types[agent] = type or self._types.get(agent, "")
        if parent:
            self._parents[agent] = parent
        if call:
            self._call_of[agent], self._agent_of[call] = call, agent

    def meet_sender(self, response: ApiUsage) -> None:
        """Take what an API request says about the subagent that sent it."""
        if response.agent:
            if response.parent_agent:
                self.meet(response.parent_agent)
            self.meet(response.agent, response.parent_agent)

    @property
    def has_subagents(self) -> bool:
        """Whether any was seen."""
        return bool(self._types)

    @property
    def subagents(self) -> dict[str, Subagent]:
        """All that were seen, by id."""
        return {agent: self.subagent(agent) for agent in self._types}

    def subagent(self, agent: str) -> Subagent:
        """What is known of a subagent."""
        parent, depth, above = self._parent(agent), 1, agent
        while depth < MAX_DEPTH and (above := self._parent(above)):
            depth += 1
        return Subagent(agent, self._types.get(agent, ""), parent, depth)

    def _parent(self, agent: str) -> str:
        known = self._parents.get(agent)
        if known is not None:
            return known
        return self._agent_of.get(self._caller_of.get(self._call_of.get(agent, "")) or "", "")

    def knows_type(self, agent: str) -> bool:
        """Whether the stream has named the type of a subagent."""
        return bool(self._types.get(agent))

    def is_main(self, response_id: str) -> bool:
        """Whether the stream has shown this response as the main thread's."""
        return response_id in self._seen and self._seen[response_id][0] is None

    @property
    def shown(self) -> dict[tuple[str, str], Usage]:
        """What the stream has shown, by source and model: exact for the main thread, a lower bound for subagents."""
        found: dict[tuple[str, str], Usage] = {}
        for (thread, model), usage in self._shown.items():
            source = MAIN if thread is None else self._agent_of.get(thread, "")
            if source:
                found[source, model] = found.get((source, model), NO_USAGE) + usage
        return found

    def _count(self, response_id: str, thread: str | None, model: str, usage: Usage) -> None:
        before = self._seen.pop(response_id, (thread, model, NO_USAGE))
        latest = before[0], before[1], before[2] | usage
        self._seen[response_id] = latest
        key = latest[0], latest[1]
        self._shown[key] = self._shown.get(key, NO_USAGE) + (latest[2] - before[2])
        if len(self._seen) > REMEMBERED_IDS:
            del self._seen[next(iter(self._seen))]

    def _report(self, event: AgentReport) -> None:
        """A subagent's last response, which no other event shows where it ran in the foreground."""
        self.meet(event.agent, type=event.type)
        call = self._call_of.get(event.agent)
        if call is None:
            return
        last = next((key for key, (thread, _, _) in reversed(self._seen.items()) if thread == call), None)
        model = event.model.partition("[")[0] or (self._seen[last][1] if last is not None else "")
        if last is not None and self._seen[last][2].covers(event.usage) and event.usage.covers(self._seen[last][2]):
            self._count(last, call, model, event.usage)  # a background one's, shown before
        else:
            self._count(f"last of {event.agent}", call, model, event.usage)
