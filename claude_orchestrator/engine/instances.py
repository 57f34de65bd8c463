"""The instances of a run: by name, by group, and in the order in which they may start. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from functools import partial
from typing import TYPE_CHECKING

from claude_orchestrator.config.config import InstanceConfig
from claude_orchestrator.config.launch_spec import LaunchSpec
from claude_orchestrator.engine.scheduler import GraphNode, Scheduler
from claude_orchestrator.engine.state import InstanceStatus, State

if TYPE_CHECKING:
    from claude_orchestrator.engine.ports import Answers
    from claude_orchestrator.engine.results.upstream import FinishedInstance, Group

FAILURES = {
    State.FAILED: "failed",
    State.TIMED_OUT: "timed out",
    State.BLOCKED: "was blocked",
    State.STOPPED: "was stopped",
    State.CANCELLED: "was cancelled",
}


class Instances:
    """Knows which instances are ready, what the end of one means for the others, and whose results they use.

    `all` has every instance, in the order of the plan. It is shared with whatever shows the run.
    """

    def __init__(self, statuses: list[InstanceStatus]) -> None:
        self.all = statuses
        self.undecided = {status.name for status in statuses}  # those without any decision on their launch
        self._by_name = {status.name: status for status in statuses}
        self._groups: dict[str, list[InstanceStatus]] = {}
        for status in statuses:
            if status.planned.group is not None and status.planned.grows is None:
                self._groups.setdefault(status.planned.group, []).append(status)
        needed = {need for status in statuses for need in status.planned.depends_on}
        relays = (
            GraphNode(name, tuple(one.name for one in group), relay=True)
            for name, group in self._groups.items()
            if name in needed
        )
        self._scheduler = Scheduler([*map(_node, statuses), *relays])

    @property
    def active(self) -> bool:
        """Whether an instance has not ended yet."""
        return self._scheduler.active

    def take(self) -> InstanceStatus | None:
        """Take out the first instance that is ready, or None."""
        name = self._scheduler.pop()
        return None if name is None else self._by_name[name]

    def put_back(self, statuses: Iterable[InstanceStatus]) -> None:
        """These are still ready, or ready again, unless they run or have ended."""
        for status in statuses:
            if status.state in (State.PENDING, State.WAITING):
                self._scheduler.push(status.name)

    def end(self, status: InstanceStatus) -> Iterator[tuple[InstanceStatus, str, bool]]:
        """An instance has ended. Yields what is skipped because of it, why, and whether it is not needed."""
        self.undecided.discard(status.name)
        for name, reason, unneeded in self._scheduler.end(status.name, self.failure_of(status)):
            if not self._by_name[name].ended:
                yield self._by_name[name], reason, unneeded

    def reopen(self, status: InstanceStatus) -> list[InstanceStatus]:
        """An instance that was not launched may start after all. Returns it, and those that were skipped with it."""
        names = self._scheduler.reopen(status.name)
        self.undecided.update(names)
        return [self._by_name[name] for name in names]

    def failure_of(self, status: InstanceStatus) -> str:
        """How an instance failed; empty if it did not, or if another attempt at the same work can win or has won."""
        others = [one for one in self.race_of(status.name) if one is not status]
        hopes = any(not one.ended or one.state is State.COMPLETED for one in others)
        return "" if hopes else FAILURES.get(status.state, "")

    def race_of(self, name: str) -> list[InstanceStatus]:
        """The attempts of the race that an instance takes part in; empty if it is in no race."""
        race = self._by_name[name].planned.race_of
        return [] if race is None else [status for status in self.all if status.planned.race_of == race]

    def filled(self, spec: LaunchSpec, answers: Answers) -> LaunchSpec:
        """The launch of an instance whose upstream has ended. Raises BadValue where a text cannot be filled."""
        from claude_orchestrator.engine.results.upstream import fill

        return fill(spec, partial(self._upstream, answers))

    def members(self, group: LaunchSpec, answers: Answers) -> tuple[tuple[InstanceConfig, ...], int]:
        """The instances that a group has, now that its upstream has ended, and the number of repeated items. Raises
        BadValue where the result is no list of items."""
        from claude_orchestrator.engine.results.upstream_list import grown

        assert group.grows is not None
        return grown(group, self._upstream(answers, group.grows.name))

    def grow(self, group: InstanceStatus, members: list[InstanceStatus]) -> None:
        """Replace a group by its instances."""
        place = self.all.index(group)
        self.all[place : place + 1] = members
        del self._by_name[group.name]
        self.undecided.discard(group.name)
        self.undecided.update(status.name for status in members)
        self._by_name.update((status.name, status) for status in members)
        self._groups[group.name] = members
        self._scheduler.grow(group.name, [_node(status)._replace(needs=()) for status in members])

    def _upstream(self, answers: Answers, name: str) -> FinishedInstance | Group:
        from claude_orchestrator.engine.results.upstream import FinishedInstance, Group

        def of(status: InstanceStatus) -> FinishedInstance:
            answer = answers.answer(status.name)
            return FinishedInstance(
                status.name, str(status.state), status.reason, answer, status.planned.item, status.branch
            )

        if name in self._groups and name not in self._by_name:
            return Group([of(status) for status in self._groups[name]], partial(answers.keep_list, name))
        return of(self._by_name[name])


def _node(status: InstanceStatus) -> GraphNode:
    spec = status.planned
    return GraphNode(spec.name, spec.depends_on, spec.run_if, max(1, spec.estimate.tokens), spec.position)
