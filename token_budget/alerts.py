"""Alerts on budgets: which thresholds are reached and not yet reported, and the text of an alert. Pure."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable

from token_budget.models import Budget, Unit
from token_budget.named_tuples import NamedTuple
from token_budget.text import NANO, printable

SCHEMA_VERSION = 1


class AlertTargets(NamedTuple):
    """Who receives alerts besides the log: a command, addresses, the program that shows notifications here."""

    command: tuple[str, ...] | None = None
    webhook: str | None = None
    ntfy: str | None = None
    desktop: str | None = None


def parse_webhook(url: str, option: str = "--alert-webhook") -> str:
    """Check an http or https URL with a host, and return it.

    Raises ValueError with one line that begins with the option and shows nothing of the URL: it is a secret.
    """
    from urllib.parse import urlsplit

    url = url.strip()
    # urlsplit drops line ends and tabs in silence, and a request line takes ASCII only
    if not url.isascii() or not url.isprintable() or " " in url:
        raise ValueError(f"{option}: expected a URL of ASCII characters without spaces; write others as %XX")
    try:
        parts = urlsplit(url)
        is_good = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:  # a port or an IPv6 address that is none
        is_good = False
    if not is_good:
        raise ValueError(f"{option}: expected a URL such as https://host/path: http or https, with a valid host")
    return url


def parse_command(text: str) -> tuple[str, ...]:
    """Split a command into its words as a POSIX shell would; raises ValueError (`--alert-command: …`) if none."""
    import shlex

    try:
        words = tuple(shlex.split(text))
    except ValueError as error:
        raise ValueError(f"--alert-command: expected a command such as 'notify --urgent': {error}") from None
    if not words or not words[0]:
        raise ValueError("--alert-command: expected a command such as 'notify --urgent', got nothing to run")
    if "\0" in text:
        raise ValueError("--alert-command: expected a command without NUL characters")
    return words


def parse_ntfy(url: str) -> str:
    """Check the address of a topic of an ntfy server. Raises ValueError as `parse_webhook` does."""
    url = parse_webhook(url, "--alert-ntfy")
    if not url.partition("://")[2].partition("/")[2].strip("/"):
        raise ValueError("--alert-ntfy: expected the address of a topic, such as https://ntfy.sh/TOPIC")
    return url


class Alert(NamedTuple):
    """A budget that has reached a threshold, in percent; None: a budget that is forecast to pass its limit.

    `used` and `limit` are tokens, or nano-dollars where `unit` is USD. `window` is the period of the budget, e.g. `day
    2026-11-24`. The next window has its own alerts.
    """

    budget: str
    unit: Unit
    threshold: int | None
    used: int
    limit: int
    window: str
    run: str
    text: str

    @property
    def key(self) -> str:
        """The alert's identity as text: budget, unit, limit, window and threshold."""
        return json.dumps([self.budget, self.unit, self.limit, self.window, self.threshold])

    @property
    def id(self) -> str:
        """The key as 32 hexadecimal digits, by which a receiver recognises a repeated delivery."""
        import hashlib  # not needed by a program that only reads thresholds

        return hashlib.sha256(self.key.encode()).hexdigest()[:32]

    def payload(self, at_iso: str) -> dict[str, object]:
        """The alert as JSON. `used` and `limit` are in `unit`: dollars for USD. `at_iso` is when it was raised."""
        used, limit = (self.used / NANO, self.limit / NANO) if self.unit is Unit.USD else (self.used, self.limit)
        return {
            "schema_version": SCHEMA_VERSION,
            "id": self.id,
            "kind": "forecast_overrun" if self.threshold is None else "threshold",
            "at": at_iso,
            "run": self.run,
            "budget": self.budget,
            "window": self.window,
            "threshold": self.threshold,
            "unit": self.unit,
            "used": used,
            "limit": limit,
            "text": self.text,
        }


class AlertBook:
    """Gives each alert once for its budget, window and threshold.

    `sent` has the keys that earlier processes have sent. `on_sent` receives each key that counts as sent from now on,
    so that it can be stored. That includes the keys of lower thresholds that were passed with a higher one.
    """

    def __init__(
        self, thresholds: Iterable[int], sent: Iterable[str] = (), on_sent: Callable[[str], None] = lambda key: None
    ) -> None:
        self.on_sent = on_sent
        self.thresholds = tuple(sorted(set(thresholds)))
        self._sent = set(sent)

    def due(self, budgets: Iterable[Budget], window_of: Callable[[Budget], str], run: str) -> list[Alert]:
        """The alerts to send now, at most one for each budget: the highest of the thresholds that it has passed."""
        found: list[Alert] = []
        for budget in budgets:
            # in integers: a rounded percentage would be early or late
            reached = [t for t in self.thresholds if 0 < t * budget.limit <= 100 * budget.used]
            if reached:
                text, window = _used_text(budget), window_of(budget)
                alerts = [_alert(budget, threshold, window, run, text) for threshold in reached]
                found += [alert for alert in alerts if self._mark(alert)][-1:]
        return found

    def overrun(self, budget: Budget, forecast_tokens: int, window: str, run: str) -> Alert | None:
        """The alert that the budget will be passed by the forecast, once; None if not, or if it is passed already.

        `forecast_tokens` is the budget's use at the end of the run, in nano-dollars for a budget in money.
        """
        if forecast_tokens <= budget.limit or budget.exceeded:
            return None
        alert = _alert(budget, None, window, run, _overrun_text(budget, forecast_tokens))
        return alert if self._mark(alert) else None

    def _mark(self, alert: Alert) -> bool:
        """Mark the alert as sent; returns whether it is new."""
        if alert.key in self._sent:
            return False
        self._sent.add(alert.key)
        self.on_sent(alert.key)
        return True


def _alert(budget: Budget, threshold: int | None, window: str, run: str, text: str) -> Alert:
    return Alert(budget.label, budget.unit, threshold, budget.used, budget.limit, window, run, text)


def _used_text(budget: Budget) -> str:
    percent = 100 * budget.used // budget.limit
    return f"{percent} % of the {printable(budget.label)} budget is used ({budget.figures()})"


def _overrun_text(budget: Budget, forecast: int) -> str:
    percent = 100 * budget.used // budget.limit if budget.limit > 0 else 0
    amounts = budget.figures(forecast)
    return f"the {printable(budget.label)} budget will probably be passed ({amounts}; {percent} % is used now)"
