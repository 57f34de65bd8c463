"""What a run is built from, and what comes out of it."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Mapping
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from claude_orchestrator.config.plan import Plan
from claude_orchestrator.config.settings import MeterChoice, Settings
from claude_orchestrator.engine.accounts import Charged
from claude_orchestrator.engine.interrupts import StopSwitch
from claude_orchestrator.engine.run_view import RunView
from token_budget.alerts import AlertTargets
from token_budget.folders import Folder
from token_budget.named_tuples import NamedTuple

if TYPE_CHECKING:
    from claude_orchestrator.engine.control.run_control import RunControl
    from claude_orchestrator.engine.earlier_runs import EarlierRun
    from claude_orchestrator.launch.cluster.launcher import ClusterLauncher
    from token_budget.ledger.store import LedgerStore
    from token_budget.pricing import Prices

    MakeLauncher = Callable[[str, Callable[[str], None], Callable[[], None]], ClusterLauncher]
    Door = Callable[[RunControl, Folder], contextlib.AbstractAsyncContextManager[object]]


class RunRequest(NamedTuple):
    """What to run and how. `header` tells the journal how the run was started.

    `switch` stops the run; without one, the signals of this process do. `listens`: it has a control socket.
    `on_cluster` makes the launcher if instances run on a cluster: from the mark of their processes, what takes
    warnings, and what is called when there may be more places.
    `names_worktree`: claude's system prompt names the worktree, unless claude is asked to leave that out.
    """

    plan: Plan
    settings: Settings
    meter: MeterChoice
    header: Mapping[str, Any]
    rehearse: bool = False
    start_in_s: float = 0.0
    switch: StopSwitch | None = None
    listens: bool = True
    doors: tuple[Door, ...] = ()
    names_worktree: bool = True
    on_cluster: MakeLauncher | None = None


class RunPlace(NamedTuple):
    """Where a run keeps its files. `private`: claude can read private options from a file."""

    output_dir: Path
    earlier: EarlierRun | None = None
    private: bool = True


class Accounting(NamedTuple):
    """The ledger of all runs, the prices, who receives alerts besides the terminal, and whom the run charges."""

    ledger: LedgerStore | None = None
    prices: Prices | None = None
    alerts: AlertTargets = AlertTargets()
    charged: Charged = Charged()


class RunResult(NamedTuple):
    """A run that has ended."""

    view: RunView
    ended_at: datetime
    seconds: float
    exit_code: int
