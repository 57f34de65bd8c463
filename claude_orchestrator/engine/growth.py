"""Groups that grow at run time: their items are a list in the result of an instance that has ended."""

from __future__ import annotations

from collections.abc import Sequence

from claude_orchestrator.config.config import InstanceConfig
from claude_orchestrator.config.launch_spec import LaunchSpec
from claude_orchestrator.config.plan import Plan
from claude_orchestrator.engine.bus import Bus
from claude_orchestrator.engine.journal_history import EarlierInstance, JournalHistory
from claude_orchestrator.engine.journal_records import turns_digest
from claude_orchestrator.engine.results.answer_files import AnswerFiles
from claude_orchestrator.engine.resume import restore_one
from claude_orchestrator.engine.run_events import Expanded, InstanceEnded, Member, RunEvent
from claude_orchestrator.engine.state import InstanceStatus
from token_budget.budget_manager import TokenBudgetManager
from token_budget.fields import BadValue, show_json


class Growth:
    """Enters the instances of a group into the run: their budgets, answers, and what earlier starts did of them."""

    def __init__(
        self,
        plan: Plan,
        run_id: str,
        history: JournalHistory | None,
        manager: TokenBudgetManager,
        answers: AnswerFiles,
        removed: list[EarlierInstance],
    ) -> None:
        self._plan = plan
        self._run_id = run_id
        self._history = history or JournalHistory()
        self._manager = manager
        self._answers = answers
        self._removed = removed
        self._next_index = len(plan.specs)

    def enter(self, group: LaunchSpec, instances: Sequence[InstanceConfig], bus: Bus) -> list[InstanceStatus]:
        """The instances of a group as the run has them. Raises BadValue for a name that another instance has."""
        assert self._plan.grow is not None
        taken = {spec.name for spec in self._plan.specs} & {instance.name for instance in instances}
        if taken:
            raise BadValue(("", f"another instance has the name {show_json(min(taken))}, too"))
        specs, budgets = self._plan.grow(group, instances, self._next_index)
        self._next_index += len(specs)
        for spec in specs:
            self._manager.join(spec.name, group.name)
        for budget in budgets:
            self._manager.set_budget(budget.scope, budget.limit, budget.key, budget.unit)
        self._answers.add({spec.name: len(spec.turns) for spec in specs})
        members = tuple(
            Member(spec.name, spec.base_command, turns_digest(spec, self._run_id), group.name) for spec in specs
        )
        bus.publish(Expanded(group.name, members))
        self._remove(group.name, {spec.name for spec in specs})
        return [restore_one(spec, self._history.instances.get(spec.name), self._run_id) for spec in specs]

    def observe(self, event: RunEvent) -> None:
        """A group that ends without growing has no instances any more."""
        if isinstance(event, InstanceEnded) and event.status.planned.grows is not None:
            self._remove(event.status.name, set())

    def _remove(self, group: str, kept: set[str]) -> None:
        earlier = self._history.instances.values()
        self._removed += [one for one in earlier if one.group == group and one.attempts and one.name not in kept]
