"""What an instance does at the moment, from the events of its stream. Pure."""

from __future__ import annotations

from collections.abc import Callable

from claude_orchestrator.claude.events import Assistant, BlockStart, Event, Init, MessageStart, Requesting, Result, User
from token_budget.named_tuples import NamedTuple
from token_budget.string_enums import StrEnum

MAX_CALLS = 100  # of tools that are open at once


class Doing(StrEnum):
    """What an instance does."""

    STARTING = "starting"
    THINKING = "thinking"  # the model has the word, and nothing of its answer is text yet
    ANSWERING = "answering"
    TOOL = "tool"
    ASKING = "asking"  # it waits until a person approves a tool
    CHECKING = "checking"
    IDLE = "idle"  # a turn has ended, and no other one has begun


class Activity(NamedTuple):
    """What an instance does has changed. `text` names the tool and its input; `since` is on the supervisor's clock."""

    instance: str
    doing: Doing
    text: str = ""
    turn: int = 1
    since: float = 0.0

    @property
    def words(self) -> str:
        """`Bash: pytest -q`, `writing src/a.py`, `thinking`."""
        return self.text or str(self.doing)


class ActivityTracker:
    """Follows one attempt, which works in `folder`. An event that changes nothing costs only a check of its type."""

    def __init__(self, folder: Callable[[], str]) -> None:
        self._folder = folder
        self._calls: dict[str, str] = {}
        self._now: tuple[Doing, str] = (Doing.STARTING, "")

    def take(self, event: Event) -> tuple[Doing, str] | None:
        """What the instance does from this event on; None if that is what it did before."""
        if type(event) not in _TELLING:
            return None
        before = self._now
        self._now = self._after(event)
        return None if self._now == before else self._now

    def set(self, doing: Doing, text: str = "") -> tuple[Doing, str]:
        """What the instance does from now on, known from elsewhere."""
        self._now = doing, text
        return self._now

    def resume(self) -> tuple[Doing, str]:
        """What the instance does once its wait is over."""
        self._now = self._call() or (Doing.THINKING, "")
        return self._now

    def _after(self, event: Event) -> tuple[Doing, str]:
        match event:
            case Init():
                self._calls.clear()
                return Doing.THINKING, ""
            case Requesting() | MessageStart(parent=None):
                return self._call() or (Doing.THINKING, "")
            case BlockStart(kind, name, None):
                return self._block(kind, name)
            case Assistant(parent=None, tools=tools) if tools:
                self._open(event)
                return self._call() or self._now
            case User(parent=None, results=results) if results:
                for tool_id in results:
                    self._calls.pop(tool_id, None)
                return self._call() or (Doing.THINKING, "")
            case Result():
                self._calls.clear()
                return Doing.IDLE, ""
            case _:
                return self._now

    @staticmethod
    def _block(kind: str, name: str) -> tuple[Doing, str]:
        if kind == "tool_use":
            return Doing.THINKING, f"preparing {name}"
        return (Doing.ANSWERING if kind == "text" else Doing.THINKING), ""

    def _open(self, event: Assistant) -> None:
        folder = f"{self._folder()}/"
        for tool_id, text in zip(event.tool_ids, event.calls, strict=False):
            if len(self._calls) < MAX_CALLS:
                self._calls[tool_id] = text.replace(folder, "")

    def _call(self) -> tuple[Doing, str] | None:
        """The tool that was called last and has not ended, and how many others there are."""
        if not self._calls:
            return None
        more = len(self._calls) - 1
        last = next(reversed(self._calls.values()))
        return Doing.TOOL, f"{last} (+{more})" if more else last


_TELLING = frozenset({Init, Requesting, MessageStart, BlockStart, Assistant, User, Result})
