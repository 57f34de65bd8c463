"""The house's plan, held by tests: which package may import which, what is pure, and how large things may be."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.harness import ROOT

CO, TB = "claude_orchestrator", "token_budget"
# a part and the parts that it may import; a file of no part fails. Parts are packages, and modules at the top.
STORAGE = (f"{TB}.owned", f"{TB}.folders", f"{TB}.files", f"{TB}.places", f"{TB}.moving")
SERVING = (f"{TB}.serving",)
BUDGETS = (TB, *STORAGE, *SERVING, f"{TB}.ledger", f"{TB}.usage")
BASE = (f"{CO}.errors",)
ALLOWED: dict[str, tuple[str, ...]] = {
    TB: (),
    f"{TB}.owned": (TB,),
    f"{TB}.folders": (f"{TB}.owned",),
    f"{TB}.files": (f"{TB}.owned",),
    f"{TB}.moving": (f"{TB}.files",),
    f"{TB}.places": (f"{TB}.moving",),
    f"{TB}.ledger": (TB, f"{TB}.files", f"{TB}.folders"),
    f"{TB}.serving": (TB,),
    f"{TB}.usage": (TB, *STORAGE, *SERVING, f"{TB}.ledger"),
    f"{TB}.__main__": (f"{TB}.usage",),
    f"{CO}.errors": (),
    f"{CO}.claude": (TB, *BASE),
    f"{CO}.config": (*BUDGETS, *BASE, f"{CO}.claude"),
    f"{CO}.launch": (TB, f"{TB}.files", f"{TB}.places", *BASE, f"{CO}.claude", f"{CO}.config"),
    f"{CO}.gateway": (TB, *SERVING, *BASE, f"{CO}.claude", f"{CO}.config", f"{CO}.launch"),
    f"{CO}.engine": (*BUDGETS, *BASE, f"{CO}.claude", f"{CO}.config", f"{CO}.launch", f"{CO}.gateway"),
}
ALLOWED[f"{CO}.ui"] = (*ALLOWED[f"{CO}.engine"], f"{CO}.engine")
ALLOWED[f"{CO}.api"] = ALLOWED[f"{CO}.cli"] = (*ALLOWED[f"{CO}.ui"], f"{CO}.ui")
ALLOWED[f"{CO}.__main__"] = (f"{CO}.cli",)
ALLOWED[CO] = (f"{CO}.api",)
PURE = """
    claude.attribution
    claude.argv
    claude.baseline
    claude.conversation
    claude.events
    claude.input_messages
    claude.joined_lines
    claude.line_events
    claude.line_values
    claude.permission_rules
    claude.prompt_cache
    claude.recount
    claude.responses
    claude.stream
    claude.tally
    claude.tool_text
    cli.dry_run
    config.approvals
    config.compound_kinds
    config.config
    config.expansion
    config.fields
    config.for_each
    config.given
    config.globs
    config.graph
    cli.graph_view
    engine.instances
    engine.results.upstream
    engine.results.upstream_list
    config.item_sources
    config.instance_kinds
    config.items
    config.kinds
    config.launch_spec
    config.placeholders
    config.plan
    config.racing
    config.schedule
    config.settings
    config.shell_words
    claude.unknown_models
    config.subagent_limits
    engine.accounts
    engine.activity
    engine.control.conversation_json
    engine.control.event_json
    engine.control.methods
    engine.control.past
    engine.control.rpc
    engine.control.snapshot
    engine.attempt
    engine.continuing
    engine.eligibility
    engine.file_names
    engine.groups
    engine.hidden_use
    engine.in_flight
    engine.journal_history
    engine.journal_records
    engine.low_budget
    engine.latencies
    engine.launches
    engine.launch_pace
    engine.ledger_batch
    engine.ledger_book
    engine.ledger_holds
    engine.rate_limits
    engine.redact
    engine.refused_request
    engine.results.answers
    engine.results.report_json
    engine.resume
    engine.retries
    engine.run_events
    engine.scheduler
    engine.snapshot
    engine.source_uses
    engine.time_left
    engine.shared_folders
    engine.sign_in
    engine.slots
    engine.sharing.cache_report
    engine.sharing.cache_use
    engine.sharing.idle_groups
    engine.sharing.keeping_worth
    engine.sharing.start_order
    engine.starts
    engine.state
    engine.unknown_models
    engine.usage_delta
    engine.verification
    engine.worktrees.changes
    errors
    gateway.accounts
    gateway.admission
    gateway.bedrock.event_stream
    gateway.bedrock.paths
    gateway.bounds
    gateway.choice
    gateway.clouds
    gateway.pacing.estimate
    gateway.pacing.limits
    gateway.pacing.pacer
    gateway.pacing.waiting
    gateway.refusals
    gateway.requests
    gateway.sharing.kept
    gateway.sharing.prefixes
    gateway.sender
    gateway.unanswered
    gateway.usage_reader
    launch.cluster.checks
    launch.cluster.fleet
    launch.cluster.instance_memory
    launch.cluster.leases
    launch.cluster.placement
    launch.cluster.wire
    ui.ci.markdown
    ui.ci.workflow_commands
    ui.junit
    ui.messages
    ui.otlp.names
    ui.metrics
    ui.remote
    ui.names
    ui.redraw
    ui.screen
    ui.status
    ui.web.frames
    ui.web.page_file
    ui.web.timeline
    ui.table
"""
MOST_PARAMETERS = 6
# what Ray offers no other way to set
SET_FROM_OUTSIDE = {"worker.ray_constants.NUM_REDIS_GET_RETRIES"}
IMPURE = {"asyncio", "os", "time", "click", "subprocess", "socket", "threading", "sqlite3"}


def module_of(path: Path) -> str:
    """`claude_orchestrator.engine.state` for its file; a package for its `__init__.py`."""
    return ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")


FILES = {module_of(path): path for top in (TB, CO) for path in sorted((ROOT / top).rglob("*.py"))}


def part_of(module: str) -> str:
    """The part that a module belongs to: its package, or the module itself at the top of claude_orchestrator."""
    parts = module.split(".")
    if parts[0] == TB:
        return module if module in ALLOWED else ".".join(parts[:2]) if len(parts) > 2 else TB
    return ".".join(parts[:2])


def imports(path: Path) -> Iterator[str]:
    """The modules that a file imports, as they are called; of ours, those that are files."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            submodules = [name for alias in node.names if (name := f"{node.module}.{alias.name}") in FILES]
            yield from submodules or [node.module]


def edges() -> set[tuple[str, str]]:
    """The imports between different parts."""
    found = set()
    for module, path in FILES.items():
        for name in imports(path):
            if name in FILES and part_of(name) != part_of(module):
                found.add((module, part_of(name)))
    return found


def test_every_file_belongs_to_a_part() -> None:
    assert sorted({part_of(module) for module in FILES} - set(ALLOWED)) == []


def test_imports_go_one_way() -> None:
    back = {(module, part) for module, part in edges() if part not in ALLOWED[part_of(module)] and part != CO}
    assert back == set()


def test_the_top_of_the_house_is_small() -> None:
    tops = {part for part in ALLOWED if part.startswith(f"{CO}.") and part != f"{CO}.__main__"}
    between = {(part_of(module), part) for module, part in edges() if module.startswith(CO) and part in tops}
    assert len({part_of(module) for module in FILES} & tops) <= 9
    assert len(between) <= 25


PURE_MODULES = sorted(
    {f"{CO}.{name}" for name in PURE.split()}
    | {name for name in FILES if part_of(name) == TB}
    | {f"{TB}.serving.checks", f"{TB}.usage.page.projection"}
)


@pytest.mark.parametrize("module", PURE_MODULES)
def test_pure_modules_do_no_input_or_output(module: str) -> None:
    assert {name.split(".")[0] for name in imports(FILES[module])} & IMPURE == set()


def test_functions_fit_a_screen() -> None:
    long = [
        f"{module}.{node.name}: {node.end_lineno - node.lineno + 1} lines"
        for module, path in FILES.items()
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
        and node.end_lineno is not None
        and node.end_lineno - node.lineno + 1 > 75
    ]
    assert long == []


def functions() -> Iterator[tuple[str, ast.FunctionDef | ast.AsyncFunctionDef]]:
    """Every function of the product, with its module."""
    for module, path in FILES.items():
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                yield module, node


def test_no_object_sets_the_attributes_of_its_parts() -> None:
    """Each is built complete, and changes by its own methods."""
    found = {
        ast.unparse(target)
        for path in FILES.values()
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Assign | ast.AugAssign | ast.AnnAssign)
        for target in (node.targets if isinstance(node, ast.Assign) else [node.target])
        if isinstance(target, ast.Attribute) and isinstance(target.value, ast.Attribute)
    }
    assert found - SET_FROM_OUTSIDE == set()


def test_functions_have_at_most_six_parameters() -> None:
    many = set()
    for module, function in functions():
        given = [arg.arg for arg in (*function.args.posonlyargs, *function.args.args, *function.args.kwonlyargs)]
        if len([name for name in given if name not in ("self", "cls")]) > MOST_PARAMETERS:
            many.add(f"{module}.{function.name}")
    assert many == set()
