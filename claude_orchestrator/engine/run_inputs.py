"""What a run needs from outside, checked before its start: ledger, forecasts, profile, prices, receivers of alerts.

Each part is imported only when it is needed.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

from claude_orchestrator.config.fields import WINDOWS
from claude_orchestrator.config.settings import Settings
from claude_orchestrator.errors import UserError
from token_budget.models import PRICE_LISTS, Unit, Usage

if TYPE_CHECKING:
    from claude_orchestrator.claude.events import Price
    from claude_orchestrator.config.given import Options
    from token_budget.alerts import AlertTargets
    from token_budget.forecast import Forecast
    from token_budget.ledger.samples import SampleReader
    from token_budget.ledger.store import LedgerStore
    from token_budget.model_weights import TokenWeights
    from token_budget.pricing import Prices
    from token_budget.trials import Trial
    from token_budget.usage.profiles import Profile


def open_ledger(place: str | Path, warn: Callable[[str], None] | None, *, create: bool = True) -> LedgerStore | None:
    """Open the ledger. With `warn`, a ledger that cannot be written is reported, and the result is None.

    Raises LedgerError.
    """
    from token_budget.ledger.errors import LedgerUnwritableError
    from token_budget.ledger.opening import open_store

    try:
        return open_store(place, create=create)
    except LedgerUnwritableError as error:
        if warn is None:
            raise
        warn(f"the ledger: {error}: this run is not recorded in it")
        return None


def is_ledger_error(error: Exception) -> bool:
    """Whether the error is about the ledger, so that the user can fix it."""
    from token_budget.ledger.errors import LedgerError

    return isinstance(error, LedgerError)


def windows_of(settings: Settings) -> list[str]:
    """The options of those limits across runs that are set."""
    names = [f"{window}_{unit.word}_budget" for window in WINDOWS for unit in Unit]
    account = ["--account"] if settings.account is not None else []
    return account + [f"--{name.replace('_', '-')}" for name in names if getattr(settings, name) is not None]


class Forecasts:
    """Forecasts of what base commands and plain prompts will draw from budgets, from the ledger's history."""

    def __init__(self, ledger: LedgerStore | None, weights: TokenWeights) -> None:
        self._ledger = ledger
        self._weights = weights
        self._reader: SampleReader | None = None
        self._known: dict[tuple[str, str | None, Unit], Forecast] = {}

    def of(self, base_command: str | None, instance: str, model: str | None, unit: Unit) -> Forecast | None:
        """The forecast for a base command, or for the plain prompt of an instance with this name.

        Returns None without a ledger. Raises LedgerError.
        """
        if self._ledger is None:
            return None
        import time

        from token_budget.forecast import forecast
        from token_budget.ledger.samples import SampleReader, subject_of

        self._reader = self._reader or SampleReader(self._ledger, self._weights)
        subject = subject_of(base_command, instance)
        key = subject, model, unit
        if key not in self._known:
            samples = self._reader.of(base_command, instance, unit)
            self._known[key] = forecast(samples, subject, model or "", time.time())
        return self._known[key]


def trials_of(ledger: LedgerStore | None, groups: Iterable[str], weights: TokenWeights) -> dict[str, Trial]:
    """The latest run of each group that has one in the ledger. Raises LedgerError."""
    names = tuple(groups)
    if ledger is None or not names:
        return {}
    from token_budget.ledger.samples import SampleReader

    reader = SampleReader(ledger, weights)
    return {name: trial for name in names if (trial := reader.trial(name)) is not None}


def find_profile(name: str | None, workspace: Path) -> Profile | None:
    """The profile of this name; the project's one comes before the user's. Raises UserError."""
    if name is None:
        return None
    from token_budget import places
    from token_budget.owned import NotOursError, check_found
    from token_budget.usage.profiles import PROJECT_FILE, load

    project = workspace / PROJECT_FILE
    try:
        if project.exists():
            check_found(project, "have it removed, or use another workspace")
        return load(name, (project, places.profiles_file()))
    except NotOursError as error:
        raise UserError(f"--budget-profile: {error.strerror}") from None
    except ValueError as error:
        raise UserError(*(f"--budget-profile: {line}" for line in str(error).splitlines())) from None


def find_prices() -> Prices | None:
    """Prices for what the CLI has no figure for; None if the extra is not installed."""
    if find_spec(PRICE_LISTS) is None:
        return None
    from token_budget.pricing import Prices

    return Prices()


def check_alerts(options: Options) -> AlertTargets:
    """Who receives alerts. Raises UserError."""
    from token_budget import alerts

    if all(
        options[name] in (None, False) for name in ("alert_command", "alert_webhook", "alert_ntfy", "alert_desktop")
    ):
        return alerts.AlertTargets()
    command, webhook, ntfy = options["alert_command"], options["alert_webhook"], options["alert_ntfy"]
    try:
        targets = alerts.AlertTargets(
            None if command is None else alerts.parse_command(command),
            None if webhook is None else alerts.parse_webhook(webhook),
            None if ntfy is None else alerts.parse_ntfy(ntfy),
        )
    except ValueError as error:
        raise UserError(str(error)) from None
    return targets._replace(desktop=_desktop_program()) if options["alert_desktop"] else targets


def _desktop_program() -> str:
    from token_budget.usage.alert_sinks import desktop_program

    program = desktop_program()
    if program is None:
        raise UserError("--alert-desktop: neither notify-send nor osascript is on PATH: install one, or leave it out")
    return program


def price_with(prices: Prices | None, no_price: Callable[[str], None]) -> Price | None:
    """The price of a response in nano-dollars; `no_price` gets the name of a model without one, each time."""
    if prices is None:
        return None

    def price(model: str, usage: Usage, written_for_1h_tokens: int) -> int | None:
        nano_usd = prices.response(model, usage, written_for_1h_tokens=written_for_1h_tokens)
        for unknown in prices.unknown:
            no_price(unknown)
        return nano_usd

    return price


def knows_command(folder: str, command: str) -> bool:
    """Whether the folder, the user or claude itself has this slash command, by name or alias."""
    from claude_orchestrator.claude.commands import discover_here, warning_for

    return warning_for(command, discover_here(Path(folder))) is None
