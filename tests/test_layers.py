"""Data flows one way: which module may import which, and which are pure."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
TB = "token_budget"
CO = "claude_orchestrator"
BUDGET_FILES = (
    "models budget_manager text visualization alerts entries forecast ledger pricing profiles sinks windows adjust"
)
BUDGET = {TB, *(f"{TB}.{name}" for name in BUDGET_FILES.split())}
# module -> modules of ours that it may import; a file without a rule fails
RULES: dict[str, set[str]] = {
    f"{TB}.__init__": BUDGET,
    f"{TB}.models": set(),
    f"{TB}.text": set(),
    f"{TB}.budget_manager": {f"{TB}.models", f"{TB}.text"},
    f"{TB}.windows": set(),
    f"{TB}.entries": {f"{TB}.models"},
    f"{TB}.schema": set(),
    f"{TB}.ledger": {f"{TB}.entries", f"{TB}.models", f"{TB}.schema"},
    f"{TB}.pricing": {f"{TB}.models"},
    f"{TB}.adjust": set(),
    f"{TB}.observations": {f"{TB}.entries", f"{TB}.forecast", f"{TB}.ledger", f"{TB}.models"},
    f"{TB}.forecast": {f"{TB}.models", f"{TB}.text"},
    f"{TB}.profiles": {f"{TB}.models"},
    f"{TB}.alerts": {f"{TB}.models", f"{TB}.text"},
    f"{TB}.sinks": set(),
    f"{TB}.history": {f"{TB}.entries", f"{TB}.ledger", f"{TB}.models", f"{TB}.text", f"{TB}.windows"},
    f"{TB}.plot": {
        f"{TB}.entries",
        f"{TB}.schema",
        f"{TB}.history",
        f"{TB}.ledger",
        f"{TB}.models",
        f"{TB}.text",
        f"{TB}.windows",
    },
    f"{TB}.transfer": {f"{TB}.entries", f"{TB}.ledger", f"{TB}.models", f"{TB}.text"},
    f"{TB}.transcripts": {f"{TB}.entries", f"{TB}.ledger", f"{TB}.models", f"{TB}.pricing"},
    f"{TB}.cli": {f"{TB}.*"},
    f"{TB}.visualization": {f"{TB}.models", f"{TB}.budget_manager", f"{TB}.text"},
    f"{CO}.__init__": set(),
    f"{CO}.errors": set(),
    f"{CO}.schedule": set(),
    f"{CO}.config": {f"{CO}.errors", *BUDGET},
    f"{CO}.settings": {f"{CO}.config", f"{CO}.errors", *BUDGET},
    f"{CO}.plan": {f"{CO}.config", f"{CO}.settings", *BUDGET},
    f"{CO}.events": BUDGET,
    f"{CO}.stream": {f"{CO}.events", *BUDGET},
    f"{CO}.tally": {f"{CO}.events", *BUDGET},
    f"{CO}.instance": {f"{CO}.events", f"{CO}.plan", f"{CO}.tally", *BUDGET},
    f"{CO}.commands": BUDGET,
    f"{CO}.preflight": {f"{CO}.errors", f"{CO}.plan"},
    f"{CO}.metering": {f"{CO}.errors", f"{CO}.plan"},
    f"{CO}.apistream": {f"{CO}.events", f"{CO}.stream", *BUDGET},
    f"{CO}.admission": BUDGET,
    f"{CO}.gateway": {f"{CO}.admission", f"{CO}.apistream", f"{CO}.events", *BUDGET},
    f"{CO}.threads": set(),
    f"{CO}.journal": {f"{CO}.errors", f"{CO}.threads"},
    f"{CO}.redact": set(),
    f"{CO}.retries": {f"{CO}.instance"},
    f"{CO}.resume": {f"{CO}.instance", f"{CO}.plan", *BUDGET},
    f"{CO}.runfolder": {f"{CO}.{name}" for name in ("errors", "journal", "plan", "resume")},
    f"{CO}.processes": set(),
    f"{CO}.launcher": {f"{CO}.plan", f"{CO}.processes", f"{CO}.stream", f"{CO}.threads"},
    f"{CO}.rehearsal": {f"{CO}.launcher", f"{CO}.plan", f"{CO}.stream"},
    f"{CO}.bookkeeping": {f"{CO}.instance", *BUDGET},
    f"{CO}.across_runs": {f"{CO}.config", f"{CO}.errors", f"{CO}.settings", *BUDGET, f"{TB}.observations"},
    f"{CO}.rehearsed_api": {f"{CO}.gateway", f"{CO}.rehearsal"},
    f"{CO}.session": {
        *(f"{CO}.{name}" for name in ("events", "instance", "launcher", "plan", "settings", "stream")),
        *BUDGET,
    },
    f"{CO}.supervisor": {
        *(f"{CO}.{name}" for name in ("events", "instance", "launcher", "plan", "retries", "session", "settings")),
        *BUDGET,
    },
    f"{CO}.report": {f"{CO}.instance", f"{CO}.metering", f"{CO}.plan", f"{CO}.resume", *BUDGET},
    f"{CO}.dryrun": {f"{CO}.metering", f"{CO}.plan", f"{CO}.settings", *BUDGET},
    f"{CO}.terminal": BUDGET,
    f"{CO}.runner": BUDGET
    | {
        f"{CO}.{name}"
        for name in (
            "bookkeeping commands errors events gateway instance journal launcher metering plan processes redact"
            " rehearsal rehearsed_api report resume runfolder schedule session settings supervisor terminal __init__"
        ).split()
    },
    f"{CO}.cli": {f"{CO}.*", *BUDGET},
    f"{CO}.__main__": {f"{CO}.cli"},
}
PURE_HERE = """
    plan settings metering admission apistream events stream tally instance report dryrun redact resume retries schedule
    errors
"""
PURE = {f"{CO}.{name}" for name in PURE_HERE.split()}
NOT_PURE = {f"{TB}.{name}" for name in ("cli", "ledger", "profiles", "sinks", "transcripts", "transfer")}
PURE |= {name for name in RULES if name.startswith(TB)} - NOT_PURE
IMPURE = {"asyncio", "os", "time", "click", "subprocess", "socket", "threading"}


def imports(path: Path) -> set[str]:
    names: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            names.add(node.module)
            if node.module in (TB, CO):  # `from package import module`
                names.discard(node.module)
                names |= {f"{node.module}.{alias.name}" for alias in node.names}
    return names


FILES = {f"{path.parent.name}.{path.stem}": path for package in (TB, CO) for path in (ROOT / package).glob("*.py")}


@pytest.mark.parametrize("module", sorted(FILES))
def test_imports_go_one_way(module: str) -> None:
    assert module in RULES, f"{module} has no rule: say here what it may import"
    ours = {name for name in imports(FILES[module]) if name.split(".")[0] in (TB, CO)}
    allowed = RULES[module]
    if not {f"{CO}.*", f"{TB}.*"} & allowed:
        assert {name for name in ours if name not in allowed and name != f"{CO}.__version__"} == set()


@pytest.mark.parametrize("module", sorted(PURE))
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
