"""What the lines of the CLI's streaming JSON say, as values. Pure.

Named tuples: a process makes a dozen of these types at its start, and they take a tenth of a dataclass's time.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any

from token_budget.api_usage import MESSAGE, NO_TERMS, NOTHING_STATED, ApiUsageObject, PriceTerms, UsagePart, total
from token_budget.models import Usage
from token_budget.named_tuples import NamedTuple


class ModelFacts(NamedTuple):
    """What the CLI says of a model beside its counts."""

    name: str
    canonical: str = ""
    provider: str = ""
    cost_basis: str = ""


class ModelUsage(NamedTuple):
    """The CLI's own cumulative count for its process: all models together, and the cost that it states (USD).

    `facts` is what it says of each model: the model's own name, who serves it, and what its cost is based on. That is
    `list`, `managed` or `unknown`. Each is empty in versions that do not say it.
    """

    usage: Usage
    cost_usd: float | None
    models: tuple[str, ...]
    malformed: bool = False
    by_model: tuple[tuple[str, Usage, float | None], ...] = ()
    facts: tuple[ModelFacts, ...] = ()

    @property
    def guessed(self) -> tuple[str, ...]:
        """The models whose prices the CLI does not know."""
        return tuple(one.canonical or one.name for one in self.facts if one.cost_basis == "unknown")


class Init(NamedTuple):
    """`system/init`: a turn begins."""

    session_id: str
    model: str
    version: str
    slash_commands: frozenset[str]
    folder: str = ""


class MessageStart(NamedTuple):
    """An API response begins: its id, and its exact input and cache counts.

    `stated` is its whole usage object. That has what the CLI's own count leaves out, and the terms of the price.
    """

    id: str
    model: str
    usage: Usage
    parent: str | None
    malformed: bool = False
    stated: ApiUsageObject = NOTHING_STATED


class BlockStart(NamedTuple):
    """A block of a response begins: its kind (`text`, `thinking`, `tool_use`), and the name of its tool."""

    kind: str
    name: str
    parent: str | None


class Streamed(NamedTuple):
    """Lines of streamed text that follow each other."""

    lines: bytes


class MessageDelta(NamedTuple):
    """Counts of an API response, which may come in several of these; the last one has a `stop_reason`.

    Where none has, the CLI made them up for a dropped connection.
    """

    usage: Usage
    stop_reason: str | None
    parent: str | None
    malformed: bool = False
    stated: ApiUsageObject = NOTHING_STATED


class MessageStop(NamedTuple):
    """An API response has ended."""

    parent: str | None


class Assistant(NamedTuple):
    """One content block (or all) of a response; `usage` is a placeholder unless `stop_reason` is set.

    A `synthetic` one is the CLI's own; `error` then is its kind where it tells of an API error (`rate_limit`, …).
    `calls` says in a few words what each of the `tools` does.
    """

    id: str
    model: str
    usage: Usage
    stop_reason: str | None
    parent: str | None
    tools: tuple[str, ...]
    tool_ids: tuple[str, ...]
    synthetic: bool
    malformed: bool = False
    error: str = ""
    stated: ApiUsageObject = NOTHING_STATED
    calls: tuple[str, ...] = ()


class AgentReport(NamedTuple):
    """A tool result with which a subagent ends: `usage` is that of its last response alone."""

    agent: str
    type: str
    model: str
    usage: Usage


class User(NamedTuple):
    """A message to the model: tool results, or the mark that the turn was interrupted.

    `results` has the ids of the tool calls that have ended.
    """

    parent: str | None
    interrupted: bool
    results: tuple[str, ...] = ()
    report: AgentReport | None = None


class Task(NamedTuple):
    """`system/task_*`: a subagent or background command. `status` is how it ended, and None while it runs.

    `tool_use_id` is the call that started it. `parent_task` is the subagent that made the call, where it is named.
    """

    id: str
    kind: str
    status: str | None
    subagent_type: str = ""
    tool_use_id: str = ""
    parent_task: str = ""

    @property
    def whole(self) -> bool:
        """Whether it ended by itself."""
        return self.status == "completed"


class SessionReset(NamedTuple):
    """`/clear`: a new session begins in the same process."""


class NoBackgroundTasks(NamedTuple):
    """`system/background_tasks_changed` with an empty list."""


class Requesting(NamedTuple):
    """`system/status`: the main thread calls the API; the response has not begun."""


class SideCall(NamedTuple):
    """A sign that the CLI calls the API outside the stream (compaction, a tool that summarises)."""


class Retry(NamedTuple):
    """`system/api_retry`: the API refused a call and the CLI will try again. `error` is its status and kind."""

    attempt: int
    error: str

    @property
    def is_rate_limit(self) -> bool:
        """Whether a rate limit is the reason."""
        return self.error.startswith("429") or "rate_limit" in self.error


class RateLimit(NamedTuple):
    """`rate_limit_event`: whether a subscription's limit refuses requests, and when it resets (Unix time)."""

    refuses: bool
    resets_at: int | None


class Result(NamedTuple):
    """A turn's end. `text` is the beginning of `answer`; both are the error's text where it is an error.

    `number` is how many results this process has written before. `startup_failure` is the CLI's name for the
    reason if it refused to start. `signed_in_until` is when the login ends, in Unix time. None or empty: not stated.
    """

    subtype: str
    is_error: bool
    terminal_reason: str | None
    session_id: str
    usage: Usage
    model_usage: ModelUsage | None
    num_turns: int
    text: str
    errors: tuple[str, ...]
    permission_denials: tuple[str, ...]
    api_error_status: int | None
    follows_task: bool
    malformed: bool = False
    answer: str = ""
    structured_output: object = None
    number: int | None = None
    startup_failure: str = ""
    signed_in_until: float | None = None


class UsageAnswer(NamedTuple):
    """The answer to a `get_usage` request."""

    request_id: str
    model_usage: ModelUsage
    rate_limits: dict[str, Any] | None = None


COMMANDS_REQUEST = "commands"  # the id of an `initialize` request


class CommandsAnswer(NamedTuple):
    """The answer to an `initialize` request: the names and aliases of the session's slash commands."""

    names: frozenset[str]


# model, usage, cache writes for an hour: nano-dollars, None where there is no price
Price = Callable[[str, Usage, int], int | None]


class ApiUsage(NamedTuple):
    """What the gateway has read of one response so far: `usage` is the sum of all that is billed for it.

    `whole`: the response ended by itself; `cut`: it was cut off; `exact`: `usage` is not just a lower bound; `told`:
    the response stated all of its counts; `failed`: it has an error in it. `parts` divide `usage` by model and kind.
    `session_id`: the session that sent the request, which may be that of a claude that a tool has started.
    `agent`: the subagent that sent it, and `parent_agent` the subagent that started that one.
    `source`: who asked, as `token_budget.portions` has it.
    """

    id: str
    usage: Usage
    whole: bool
    cut: bool = False
    exact: bool = True
    stop_reason: str | None = None
    model: str = ""
    told: bool = True
    failed: bool = False
    parts: tuple[UsagePart, ...] = ()
    terms: PriceTerms = NO_TERMS
    session_id: str | None = None
    agent: str = ""
    parent_agent: str = ""
    source: str = ""

    def billed(self) -> tuple[UsagePart, ...]:
        """`usage` divided into parts, each with its model."""
        rest = self.usage - total(self.parts)
        more = (UsagePart(MESSAGE, self.model, rest),) if rest.total_tokens else ()
        return (*(part._replace(model=part.model or self.model) for part in self.parts), *more)


class ControlRequest(NamedTuple):
    """A request of the CLI (a permission, a hook), which waits for its answer.

    About a tool, it names the tool and its input. `description` is the CLI's own.
    """

    request_id: str
    subtype: str
    tool: str = ""
    given: Mapping[str, Any] = MappingProxyType({})
    description: str = ""


class ControlCancelled(NamedTuple):
    """The CLI needs no answer to its request any more."""

    request_id: str


class BadLine(NamedTuple):
    """A line that is no JSON object. `lossy`: it may be a damaged one, and may have carried usage."""

    reason: str
    lossy: bool


Event = (
    Init
    | MessageStart
    | BlockStart
    | Streamed
    | MessageDelta
    | MessageStop
    | Assistant
    | User
    | Task
    | SessionReset
    | NoBackgroundTasks
    | Requesting
    | SideCall
    | Retry
    | RateLimit
    | Result
    | UsageAnswer
    | CommandsAnswer
    | ApiUsage
    | ControlRequest
    | ControlCancelled
    | BadLine
)
