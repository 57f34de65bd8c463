"""The steps between loading and a run: plan, check. The program and the Python API share them."""

from __future__ import annotations

import os
from collections.abc import Collection
from pathlib import Path
from typing import TYPE_CHECKING, Any

from claude_orchestrator import __version__
from claude_orchestrator.config.fields import SHIP
from claude_orchestrator.config.given import ENVIRONMENT, OPTIONS, SINGLE_OPTIONS, Options, not_stored
from claude_orchestrator.engine.loading import NO_FILES, Loaded, Warn
from claude_orchestrator.errors import UserError
from token_budget import places
from token_budget.ledger.address import is_address, whole_name
from token_budget.named_tuples import NamedTuple

if TYPE_CHECKING:
    from claude_orchestrator.claude.events import Price
    from claude_orchestrator.config.plan import Plan
    from claude_orchestrator.config.settings import MeterChoice, Settings
    from claude_orchestrator.engine.accounts import Charged
    from claude_orchestrator.engine.on_cluster import OpenCluster
    from claude_orchestrator.engine.run_request import Accounting, RunPlace, RunRequest
    from token_budget.ledger.store import LedgerStore
    from token_budget.pricing import Prices


NO_CLUSTER = "has no effect without --cluster"
OF_CLUSTER = ("instances_per_node", "lease")


class Planned(NamedTuple):
    """What a run would do, and what it uses: the claude, the prices, the ledger.

    `settings` have the limits of the account that the run charges, if it charges one. Worktrees that begin with a base
    in `complete` contain everything of the workspace.
    """

    plan: Plan
    claude: str
    prices: Prices | None
    ledger: LedgerStore | None
    settings: Settings
    charged: Charged
    complete: Collection[str | None] = ()


class Preparation(NamedTuple):
    """How instances will be counted, what deserves a warning, and whether claude can take secrets by file.

    `names_worktree`: its system prompt names the worktree, unless claude is asked to leave that out.
    `cluster` is connected, if instances run on one. Whoever has this closes it.
    """

    meter: MeterChoice
    warnings: list[str]
    private: bool
    names_worktree: bool = True
    cluster: OpenCluster | None = None

    def close(self) -> None:
        """Leave the cluster."""
        if self.cluster is not None:
            self.cluster.close()


# -- plan: what would be launched, by which claude --


def plan(loaded: Loaded, warn: Warn) -> Planned:
    """Plan what would be launched. Raises UserError."""
    from claude_orchestrator.claude import versions
    from claude_orchestrator.config.plan import make_plan
    from claude_orchestrator.engine import run_inputs

    options, settings = loaded.options, loaded.settings
    no_claude = loaded.only_shows or options["rehearse"]
    claude = "claude" if no_claude else versions.find_claude(options["claude_bin"])
    if loaded.earlier is not None and not no_claude:
        _compare_claude(options, loaded.earlier.history.header["claude_bin"], claude, warn)
    ledger = None if loaded.only_shows else _ledger(options, settings, warn)
    settings, charged = _charged(settings, ledger, only_shows=loaded.only_shows)
    prices = run_inputs.find_prices() if settings.in_money or not options["dry_run"] else None
    forecasts = run_inputs.Forecasts(ledger, settings.token_weights)
    workspace = str(loaded.workspace)
    config = loaded.config
    complete: Collection[str | None] = ()
    if settings.cluster_workspace == SHIP:
        from claude_orchestrator.engine.shipped import as_shipped

        config, complete = as_shipped(loaded)
    made = make_plan(config, settings, workspace=workspace, claude_bin=claude, forecast=forecasts.of)
    return Planned(made, claude, prices, ledger, settings, charged, complete)


def _charged(settings: Settings, ledger: LedgerStore | None, *, only_shows: bool) -> tuple[Settings, Charged]:
    """The settings with the limits of the account, and the account. Raises UserError, LedgerError."""
    from claude_orchestrator.engine.accounts import Charged, charge

    name = settings.account
    if name is None or only_shows:
        return settings._replace(account=None), Charged()
    found = ledger.accounts(name) if ledger is not None else []
    if not found:
        raise UserError(f"--account: {name} has no limits in the ledger: token-budget limit set {name} daily=2M")
    return charge(settings, found[0])


def _compare_claude(options: Options, before: object, claude: str, warn: Warn) -> None:
    """Warn where a resumed run has another claude. A path in a journal is never run. Options and PATH decide."""
    if before != claude and "claude_bin" not in options.given:
        warn(f"--resume: that run used {before}, and this one uses {claude}: name another one with --claude-bin")


def _ledger(options: Options, settings: Settings, warn: Warn) -> LedgerStore | None:
    """The ledger. A rehearsal has one only if an option names it; a dry run creates none."""
    from claude_orchestrator.engine import run_inputs

    named, windows = _ledger_option(options), run_inputs.windows_of(settings)
    if named == "off" or (named is None and options["rehearse"]):
        if windows:
            why = "needs the ledger, which is off" if named else "a rehearsal has no ledger: name one with --ledger"
            raise UserError(f"{windows[0]}: {why}")
        return None
    if named is not None and is_address(named):
        return _on_server(named, shows=options["dry_run"])
    path = Path(named) if named else places.ledger_file(warn, move=options.may_write)
    if options["dry_run"] and not path.exists():
        from claude_orchestrator.engine import start_checks

        fault = start_checks.fault_of_place(path)
        if fault is not None and (named or windows):
            raise UserError(f"--ledger: {path}: cannot be opened: {fault}")
        return None
    return run_inputs.open_ledger(path, None if named or windows else warn)


def _on_server(address: str, *, shows: bool) -> LedgerStore | None:
    """The ledger of a server. A dry run makes none, and shows what a run would do without one."""
    from token_budget.ledger.errors import NoLedgerError
    from token_budget.ledger.opening import open_store

    try:
        return open_store(address, create=not shows)
    except NoLedgerError:
        if not shows:
            raise
        return None


def _ledger_option(options: Options) -> str | None:
    """The ledger that was named; the environment names none for a rehearsal."""
    named: str | None = options["ledger"]
    if named == "":
        raise UserError("--ledger: is empty: expected a file, the address of a server, or off")
    given = options.given.get("ledger")
    return None if options["rehearse"] and given is not None and given.origin == "environment" else named


# -- check: what has to be there before anything starts --


def _folder_warnings(loaded: Loaded, planned: Planned) -> list[str]:
    """Refuse worktrees that git would refuse, with UserError; returns what deserves a warning about folders."""
    from claude_orchestrator.engine.shared_folders import shared_folders

    specs, at_once = planned.plan.specs, planned.settings.max_parallel
    shared = list(shared_folders(specs, loaded.config.instances, at_once))
    if not any(spec.worktree for spec in specs):
        return shared
    from claude_orchestrator.engine.worktrees.start_checks import check_worktrees

    return [*shared, *check_worktrees(specs, loaded.output_dir, os.environ, at_once, planned.complete)]


def _idle_warnings(loaded: Loaded, planned: Planned) -> list[str]:
    """Warnings of settings that let the shared prompt cache expire between starts."""
    settings = loaded.settings
    if not settings.startup_delay_s and settings.max_launches_per_hour is None:
        return []
    from claude_orchestrator.engine.sharing.idle_groups import idle_groups

    return idle_groups(planned.plan.specs, settings, _price(planned))


def _price(planned: Planned) -> Price | None:
    from claude_orchestrator.engine import run_inputs

    return run_inputs.price_with(planned.prices or run_inputs.find_prices(), lambda warning: None)


def keeping_lines(planned: Planned) -> list[str]:
    """What it costs to keep the prompt cache warm, if that is asked for."""
    if not planned.settings.keep_cache_warm:
        return []
    from claude_orchestrator.engine.sharing import idle_groups

    return idle_groups.keeping_lines(planned.plan.specs, planned.settings, _price(planned))


def _limit_warnings(loaded: Loaded, planned: Planned) -> list[str]:
    """Warnings of limits at which block mode would stop an instance before it can do anything."""
    settings = planned.settings
    if settings.budget_enforcement_mode != "block":
        return []
    from claude_orchestrator.config.plan import make_manager
    from claude_orchestrator.engine.least_request import too_small

    manager = make_manager(planned.plan, settings)
    return list(too_small(planned.plan.specs, manager, planned.ledger, settings.token_weights))


def check(loaded: Loaded, planned: Planned, say: Warn = lambda text: None) -> Preparation:
    """Refuse what cannot work, with UserError; collect what deserves a warning. `say` gets what takes a while."""
    _check_cluster_options(loaded.options)
    checked = _check_start(loaded, planned)
    if loaded.options["cluster"] is None:
        needs_node = any(spec.node for spec in planned.plan.specs)
        return checked._replace(warnings=[f"node: {NO_CLUSTER}", *checked.warnings]) if needs_node else checked
    from claude_orchestrator.engine.on_cluster import open_cluster

    cluster = open_cluster(loaded, planned, checked.meter, private=checked.private, say=say)
    return checked._replace(cluster=cluster, warnings=[*cluster.warnings, *checked.warnings])


def _check_cluster_options(options: Options) -> None:
    """Refuse what only a cluster needs, without one. A variable may be there for other runs."""
    given = [param for param in OF_CLUSTER if param in options.given and options.given[param].origin != ENVIRONMENT]
    if given and options["cluster"] is None:
        raise UserError(f"{' and '.join(f'--{OPTIONS[param].option}' for param in given)}: only with --cluster")


def _check_start(loaded: Loaded, planned: Planned) -> Preparation:
    """The checks of every run, wherever its instances work."""
    from claude_orchestrator.claude import versions
    from claude_orchestrator.engine import start_checks
    from claude_orchestrator.gateway.choice import choose_meter, not_as_it_is

    options, settings = loaded.options, planned.settings
    start_checks.check_plan(planned.plan, loaded.config)
    if options["no_control"]:
        start_checks.check_nobody_asks(planned.plan)
    start_checks.check_output_dir(loaded.output_dir)
    for option in ("report", "junit", "summary", "results", "html"):
        if options[option] not in (None, Path("-")):
            start_checks.check_writable(f"--{option}", options[option])
    version = versions.Version() if options["rehearse"] else versions.check_version(planned.claude)
    meter = choose_meter(
        settings.meter, planned.plan, os.environ, rehearse=options["rehearse"], leaves_out=version.leaves_out
    )
    if settings.keep_cache_warm and not options["rehearse"]:
        start_checks.check_keeping(settings, meter, is_here=options["cluster"] is None)
    doubts = () if options["rehearse"] else start_checks.doubts(planned.plan, loaded.config, os.environ)
    warnings = [*planned.plan.warnings, *([version.lacks] if version.lacks else []), *dict.fromkeys(doubts)]
    if not options["rehearse"]:
        warnings += _folder_warnings(loaded, planned)
        warnings += _limit_warnings(loaded, planned)
        warnings += _idle_warnings(loaded, planned)
    if meter.reason == not_as_it_is(version.leaves_out):
        warnings.append(f"--meter auto takes the stream: {meter.reason}")
    if meter.kind == "stream" and any(spec.subagent_limits for spec in planned.plan.specs):
        warnings.append(
            f"the subagent budgets have no effect, because only the API meter knows subagents: {meter.reason}"
        )
    if settings.in_money and planned.prices is None:
        from token_budget.pricing import EXTRA

        warnings.append(f"budgets in money without {EXTRA}: use for which claude states no cost is not counted")
    return Preparation(meter, warnings, private=version.lacks is None, names_worktree=version.names_worktree)


# -- what a run is built from --


def run_parts(loaded: Loaded, planned: Planned, checked: Preparation) -> tuple[RunRequest, RunPlace, Accounting]:
    """What `controller.run` needs."""
    from claude_orchestrator.engine.run_request import Accounting, RunPlace, RunRequest

    cluster = checked.cluster
    request = RunRequest(
        planned.plan,
        planned.settings if cluster is None else cluster.settings,
        checked.meter,
        _header(loaded, planned.claude),
        loaded.options["rehearse"],
        loaded.start_in_s,
        listens=not loaded.options["no_control"],
        names_worktree=checked.names_worktree,
        on_cluster=None if cluster is None else cluster.launcher,
    )
    place = RunPlace(loaded.output_dir, loaded.earlier, private=checked.private)
    accounting = Accounting(planned.ledger, planned.prices, loaded.alerts, planned.charged)
    return request, place, accounting


def _header(loaded: Loaded, claude: str) -> dict[str, Any]:
    """What a journal stores about the start of its run: enough to continue it, without prompts and environments."""
    options, source = loaded.options, loaded.config.source
    ledger, for_each = options["ledger"], options["for_each"]
    if for_each is not None and for_each.startswith("@") and for_each != "@-":
        for_each = f"@{Path(for_each[1:]).absolute()}"
    return {
        "version": __version__,
        "workspace": str(loaded.workspace),
        "source": source,
        "config": None if source in NO_FILES else str(Path(source).absolute()),
        "claude_bin": claude,
        "ledger": ledger if ledger in (None, "off") else whole_name(ledger),
        "budget_profile": options["budget_profile"],
        "not_stored": not_stored(options),
        "settings": {name: given.value for name, given in options.settings.items()},
        "single": {param: options[param] for param in SINGLE_OPTIONS if options[param]},
        "selection": {param: options[param] for param in ("limit", "shuffle") if options[param] is not None}
        | ({} if for_each is None else {"for_each": for_each}),
    }
