"""Finds the limits of days, weeks and months that a plot draws: in a workspace's config, or in the last run."""

from __future__ import annotations

from pathlib import Path

from token_budget.fields import PROFILE_FIELDS, BadValue
from token_budget.ledger.run_budgets import read_budgets
from token_budget.ledger.store import LedgerStore
from token_budget.models import Unit
from token_budget.usage.json_file import JsonFileError, parse_json, read_bytes
from token_budget.usage.plot_data import WindowLimit
from token_budget.windows import Window

CONFIG_FILE = "claude-orchestrator.json"
MAX_CONFIG_BYTES = 64 * 1024 * 1024
KINDS = {field.key: field.kind for field in PROFILE_FIELDS}


def given_limits(windows: dict[str, str | None], unit: Unit) -> dict[Window, int]:
    """The limits that options give, `--daily 5M` or with money `--daily 2.50`.

    Raises ValueError with a line for the user.
    """
    found: dict[Window, int] = {}
    for name, text in windows.items():
        if text is not None:
            try:
                found[Window(name)] = KINDS[f"{name}_{unit.word}_budget"].read(text)
            except BadValue as error:
                raise ValueError(f"--{name}: {error.faults[0][1]}") from None
    return found


def limits_to_draw(ledger: LedgerStore, workspace: Path, unit: Unit, given: dict[Window, int]) -> list[WindowLimit]:
    """The limits in a unit: those that are given, and for other windows those of the config.

    Where the workspace has no config, or the config limits no window, the budgets of the last run count instead. Raises
    ValueError for a config that cannot be read.
    """
    known = _of_config(workspace / CONFIG_FILE, unit) or _of_last_run(ledger, unit)
    limits = {**known, **given}
    return [(f"{window} budget", str(window), limits[window]) for window in Window if window in limits]


def _of_config(file: Path, unit: Unit) -> dict[Window, int]:
    try:
        document = parse_json(read_bytes(file, MAX_CONFIG_BYTES), file.name, dict)
    except FileNotFoundError:
        return {}
    except OSError as error:
        raise ValueError(f"{file}: cannot be read: {error.strerror or error}") from None
    except JsonFileError as error:
        raise ValueError(f"{file}: {error}") from None
    budget = document.get("budget") if isinstance(document, dict) else None
    found: dict[Window, int] = {}
    for window in Window:
        key = f"{window}_{unit.word}_budget"
        value = budget.get(key) if isinstance(budget, dict) else None
        if value is not None:
            try:
                found[window] = KINDS[key].read(value)
            except BadValue as error:
                raise ValueError(f"{file}: budget.{key}: {error.faults[0][1]}") from None
    return found


def _of_last_run(ledger: LedgerStore, unit: Unit) -> dict[Window, int]:
    runs = ledger.runs()
    budgets = read_budgets(runs[-1].budgets).budgets if runs else ()
    windows = set(map(str, Window))
    return {
        Window(budget.scope): budget.limit
        for budget in budgets
        if budget.unit is unit and str(budget.scope) in windows and not budget.key  # no account's
    }
