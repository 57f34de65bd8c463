"""Where alerts go: a command, a webhook, an ntfy topic, the desktop. Each sink makes one delivery at a time."""

from __future__ import annotations

import base64
import html
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol
from urllib.parse import unquote_to_bytes, urlsplit, urlunsplit

from token_budget.alerts import AlertTargets
from token_budget.named_tuples import NamedTuple

COMMAND_LIMIT_S = 10.0
WEBHOOK_TIMEOUT_S = 5.0
BACKOFF_S = (0.5, 1.0)
RETRIED_4XX = (408, 429)
TITLE = "claude-orchestrator"
URGENT_PERCENT = 95
_SLICE_S = 0.05
_LAST_WAIT_S = 1.0
Alert = Mapping[str, object]


@dataclass(frozen=True, slots=True)
class DeliveryLimits:
    """How long a delivery may take, and the pauses between tries of an address."""

    command_s: float = COMMAND_LIMIT_S
    webhook_s: float = WEBHOOK_TIMEOUT_S
    backoff_s: tuple[float, ...] = BACKOFF_S


class AlertSink(Protocol):
    """Receives alerts, one delivery at a time. `name` is for messages and has no secret in it."""

    @property
    def name(self) -> str:
        """The option that gave the sink, and what may be shown of it."""

    def deliver(self, alert: Alert, abandoned: threading.Event) -> str | None:
        """Deliver one alert, as JSON data; returns why that failed, or None. `abandoned` ends it early."""


def sinks_of(targets: AlertTargets, limits: DeliveryLimits) -> tuple[AlertSink, ...]:
    """The sinks for what the user has given."""
    sinks: list[AlertSink] = []
    if targets.command is not None:
        sinks.append(CommandSink(targets.command, limits))
    if targets.webhook is not None:
        sinks.append(WebhookSink(targets.webhook, limits))
    if targets.ntfy is not None:
        sinks.append(NtfySink(targets.ntfy, limits))
    if targets.desktop:
        sinks.append(DesktopSink(targets.desktop, limits))
    return tuple(sinks)


class CommandSink:
    """A command that gets the alert as JSON on its standard input."""

    def __init__(self, command: tuple[str, ...], limits: DeliveryLimits) -> None:
        self.name = f"--alert-command: {command[0]!r}"
        self._command = command
        self._limits = limits

    def deliver(self, alert: Alert, abandoned: threading.Event) -> str | None:
        """Run the command."""
        return _run(self._command, as_json(alert), self._limits.command_s, abandoned)


class WebhookSink:
    """An address that gets the alert as JSON by POST."""

    def __init__(self, url: str, limits: DeliveryLimits) -> None:
        self.name = f"--alert-webhook: {_host(url)}"
        self._url = url
        self._limits = limits

    def deliver(self, alert: Alert, abandoned: threading.Event) -> str | None:
        """Post the alert."""
        headers = {"Content-Type": "application/json", "Idempotency-Key": str(alert.get("id", ""))}
        return _post(_Message(self._url, as_json(alert), headers), self._limits, abandoned)


class NtfySink:
    """A topic of an ntfy server, whose subscribers get the alert as a notification."""

    def __init__(self, url: str, limits: DeliveryLimits) -> None:
        self.name = f"--alert-ntfy: {_host(url)}"
        self._url = url
        self._limits = limits

    def deliver(self, alert: Alert, abandoned: threading.Event) -> str | None:
        """Publish the alert."""
        headers = {
            "Content-Type": "text/plain; charset=utf-8",
            "Title": f"{TITLE}: {alert.get('run', '')}",
            "Priority": "high" if is_urgent(alert) else "default",
            "Tags": "warning",
        }
        return _post(_Message(self._url, text_of(alert).encode(), headers), self._limits, abandoned)


class DesktopSink:
    """The notifications of this desktop, by `program`: notify-send or osascript."""

    def __init__(self, program: str, limits: DeliveryLimits) -> None:
        self.name = f"--alert-desktop: {Path(program).name}"
        self._program = program
        self._limits = limits

    def deliver(self, alert: Alert, abandoned: threading.Event) -> str | None:
        """Show the alert. Its text is an argument, so that nothing in it is taken for an option or for code."""
        words = notification(self._program, text_of(alert), urgent=is_urgent(alert))
        return _run(words, b"", self._limits.command_s, abandoned)


def desktop_program() -> str | None:
    """The program that shows notifications on this machine; None if there is none."""
    return shutil.which("osascript" if sys.platform == "darwin" else "notify-send")


def notification(program: str, text: str, *, urgent: bool) -> tuple[str, ...]:
    """The command that shows a notification."""
    if program.endswith("osascript"):
        script = ("on run argv", "display notification (item 1 of argv) with title (item 2 of argv)", "end run")
        return (program, *(word for line in script for word in ("-e", line)), text, TITLE)
    urgency = "critical" if urgent else "normal"
    # a server of notifications may read markup
    return (program, f"--app-name={TITLE}", f"--urgency={urgency}", "--", TITLE, html.escape(text, quote=False))


def as_json(alert: Alert) -> bytes:
    """The alert as a line of JSON."""
    return json.dumps(alert).encode() + b"\n"


def text_of(alert: Alert) -> str:
    """The alert in words."""
    return str(alert.get("text", ""))


def is_urgent(alert: Alert) -> bool:
    """Whether a budget is nearly used, or will be passed."""
    threshold = alert.get("threshold")
    return threshold is None or (isinstance(threshold, int) and threshold >= URGENT_PERCENT)


# -- commands --


def _run(command: tuple[str, ...], text: bytes, limit_s: float, abandoned: threading.Event) -> str | None:
    """Run the command with the text as its input; returns why it failed."""
    # a file takes all of the text at once, whether the command reads it or not
    with tempfile.TemporaryFile() as given:
        given.write(text)
        given.seek(0)
        # a session of its own: a Ctrl-C for the run does not end it, and its children can be killed with it
        process = subprocess.Popen(
            command,
            stdin=given,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
    until = time.monotonic() + limit_s
    while not abandoned.is_set() and (left_s := until - time.monotonic()) > 0:
        # in slices, so that closing does not wait for the limit
        with suppress(subprocess.TimeoutExpired):
            code = process.wait(min(_SLICE_S, left_s))
            return f"ended with {code}" if code else None
    _kill(process)
    return f"killed after {limit_s:g} s"


def _kill(process: subprocess.Popen[bytes]) -> None:
    """Kill a process that nobody has waited for, and its group."""
    with suppress(OSError):
        os.killpg(process.pid, signal.SIGKILL)
    with suppress(subprocess.TimeoutExpired):
        process.wait(_LAST_WAIT_S)


# -- addresses --


class _Message(NamedTuple):
    """What to POST, and where."""

    url: str
    body: bytes
    headers: Mapping[str, str]


def _post(message: _Message, limits: DeliveryLimits, abandoned: threading.Event) -> str | None:
    """POST the message, several times where that can help; returns why it failed."""
    failure = None
    for pause_s in (*limits.backoff_s, None):
        failure, is_final = _post_once(message, limits.webhook_s)
        if is_final or pause_s is None or abandoned.wait(pause_s):
            break
    return failure


def opener() -> urllib.request.OpenerDirector:
    """Opens http and https, through the environment's proxies. It follows no redirect and opens no file."""
    director = urllib.request.OpenerDirector()
    for handler in (
        urllib.request.ProxyHandler(),
        urllib.request.HTTPHandler(),
        urllib.request.HTTPSHandler(),
        urllib.request.HTTPDefaultErrorHandler(),
        urllib.request.HTTPErrorProcessor(),
    ):
        director.add_handler(handler)
    return director


def _post_once(message: _Message, timeout_s: float) -> tuple[str | None, bool]:
    """Post once. Returns why that failed, or None, and whether another try is pointless."""
    request = _request(message)
    try:
        with opener().open(request, timeout=timeout_s):
            return None, True  # an HTTPErrorProcessor lets only 2xx through
    except urllib.error.HTTPError as error:
        error.close()
        return f"answered {error.code}", error.code < 500 and error.code not in RETRIED_4XX
    except Exception as error:  # OSError, HTTPException, and UnicodeError of a host's name
        return reason_of(error), False


def _request(message: _Message) -> urllib.request.Request:
    parts = urlsplit(message.url)
    userinfo, at, host = parts.netloc.rpartition("@")
    headers = {"User-Agent": TITLE, **message.headers}
    if at:  # urllib would take it for part of the host
        user, _, password = userinfo.partition(":")
        both = unquote_to_bytes(user) + b":" + unquote_to_bytes(password)
        headers["Authorization"] = "Basic " + base64.b64encode(both).decode()
    return urllib.request.Request(urlunsplit(parts._replace(netloc=host)), message.body, headers, method="POST")


def _host(url: str) -> str:
    """The host alone: the rest of a webhook's URL is a secret."""
    try:
        return urlsplit(url).hostname or "no host"
    except ValueError:
        return "no host"


def reason_of(error: Exception) -> str:
    """An error in a few words, without its own text, which can contain the URL."""
    cause = error.reason if isinstance(error, urllib.error.URLError) else error
    if isinstance(cause, TimeoutError):
        return "timed out"
    words = cause.strerror if isinstance(cause, OSError) else None
    return words or type(cause).__name__
