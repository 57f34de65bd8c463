"""A run that has ended, as the API returns it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from claude_orchestrator.engine.results.answers import report_fields
from claude_orchestrator.engine.results.report_json import json_report
from claude_orchestrator.engine.run_request import RunResult
from token_budget.models import Usage
from token_budget.text import counted


@dataclass(frozen=True, slots=True)
class InstanceResult:
    """One instance of a run that has ended. `result` is its whole answer; `report` is its entry in the JSON report."""

    name: str
    status: str
    reason: str
    result: str | None
    structured_output: Any
    usage: Usage
    exact: bool
    cost_usd: float | None
    session_id: str | None
    report: Mapping[str, Any]

    @property
    def completed(self) -> bool:
        """Whether the instance did its work."""
        return self.status == "completed"


@dataclass(frozen=True, slots=True)
class Run:
    """A run that has ended. `report` is what `--report` writes; `exact`: every token that was billed is counted."""

    id: str
    directory: Path
    exit_code: int
    instances: tuple[InstanceResult, ...]
    usage: Usage
    exact: bool
    cost_usd: float | None
    report: Mapping[str, Any]

    def __getitem__(self, name: str) -> InstanceResult:
        for instance in self.instances:
            if instance.name == name:
                return instance
        raise KeyError(name)

    @property
    def completed(self) -> bool:
        """Whether every instance did its work."""
        return self.exit_code == 0

    @property
    def result(self) -> str | None:
        """The answer of a run of one instance. Raises ValueError if there are several."""
        if len(self.instances) != 1:
            raise ValueError(f"the run has {counted(len(self.instances), 'instance')}: choose one by its name")
        return self.instances[0].result


def run_of(result: RunResult) -> Run:
    """The run and its answers."""
    files = result.view.answers
    assert files is not None
    view = result.view
    found = {status.name: files.answer(status.name) for status in view.instances}
    report = json_report(view, result.ended_at, result.exit_code, lambda name: report_fields(found[name]))
    instances = tuple(
        InstanceResult(
            status.name,
            str(status.state),
            status.reason,
            found[status.name].text,
            found[status.name].structured_output,
            status.usage,
            status.exact,
            status.cost_usd,
            status.session_id,
            entry,
        )
        for status, entry in zip(view.instances, report["instances"], strict=True)
    )
    usage, exact = view.total_usage()
    assert view.directory is not None
    directory = Path(view.directory)
    return Run(view.run_id, directory, result.exit_code, instances, usage, exact, view.total_cost_usd(), report)
