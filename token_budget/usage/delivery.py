"""Delivers alerts to a command and a webhook, in a thread of its own. A delivery never slows or fails a run."""

from __future__ import annotations

import base64
import json
import os
import signal
import subprocess
import tempfile
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from queue import SimpleQueue
from types import TracebackType
from typing import Self
from urllib.parse import unquote_to_bytes, urlsplit, urlunsplit

MAX_QUEUED = 1_000
COMMAND_LIMIT_S = 10.0
WEBHOOK_TIMEOUT_S = 5.0
BACKOFF_S = (0.5, 1.0)
CLOSE_TIMEOUT_S = 5.0
RETRIED_4XX = (408, 429)
_SLICE_S = 0.05
_LAST_WAIT_S = 1.0
# takes an alert's JSON and its idempotency key; returns why the delivery failed, or None
_Send = Callable[[bytes, str], str | None]


@dataclass(frozen=True, slots=True)
class DeliveryLimits:
    """How long a delivery may take, the pauses between tries of a webhook, and how many payloads may wait."""

    command_s: float = COMMAND_LIMIT_S
    webhook_s: float = WEBHOOK_TIMEOUT_S
    backoff_s: tuple[float, ...] = BACKOFF_S
    max_queued: int = MAX_QUEUED


class DeliveryThread:
    """Gives payloads to a command (on its standard input) and a webhook (POSTed) from one daemon thread.

    `complain` gets one line for each kind of failure, once. The thread may call it. A webhook's URL is secret except
    for its host, so no line contains the rest.
    """

    def __init__(
        self,
        command: tuple[str, ...] | None,
        webhook: str | None,
        complain: Callable[[str], None],
        limits: DeliveryLimits | None = None,
    ) -> None:
        self._targets: list[tuple[str, str, _Send]] = []
        if command is not None:
            self._targets.append(("--alert-command", repr(command[0]), partial(self._run, command)))
        if webhook is not None:
            self._targets.append(("--alert-webhook", _host(webhook), partial(self._post, webhook)))
        self._complain = complain
        self._limits = limits or DeliveryLimits()
        self._complained: set[str] = set()
        self._queue: SimpleQueue[dict[str, object] | None] = SimpleQueue()
        self._closed = False
        self._abandoned = threading.Event()
        self._thread: threading.Thread | None = None
        if self._targets:
            thread = threading.Thread(target=self._work, name="alert-delivery", daemon=True)
            try:
                thread.start()
            except RuntimeError as error:
                complain(f"alerts: {error}: they go to the log alone")
            else:
                self._thread = thread

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def put(self, payload: Mapping[str, object]) -> None:
        """Queue one alert and return at once. A full queue drops it. Its `id` is the idempotency key."""
        if self._thread is None or self._closed:
            return
        if self._queue.qsize() >= self._limits.max_queued:
            self._complain_once(
                "queue", f"alerts: more than {self._limits.max_queued:,} are waiting for their sinks: some are lost"
            )
            return
        self._queue.put(dict(payload))

    def close(self, timeout_s: float = CLOSE_TIMEOUT_S) -> None:
        """Wait at most so long for queued alerts, then drop the rest and end the running delivery (within 1 s more)."""
        if self._thread is None or self._closed:
            return
        self._closed = True
        self._queue.put(None)
        try:
            self._thread.join(timeout_s)
            if self._thread.is_alive():
                self._complain_once("close", f"alerts: not all were delivered within {timeout_s:g} s of the end")
        finally:  # a Ctrl-C while waiting must not leave a command behind
            self._abandoned.set()
        self._thread.join(_LAST_WAIT_S)

    def _work(self) -> None:
        while (payload := self._queue.get()) is not None and not self._abandoned.is_set():
            for option, name, send in self._targets:
                if not self._abandoned.is_set():
                    self._try(option, name, send, payload)

    def _try(self, option: str, name: str, send: _Send, payload: dict[str, object]) -> None:
        """Send it, and report the first failure of each target."""
        try:
            failure = send(json.dumps(payload).encode() + b"\n", str(payload.get("id", "")))
        except Exception as error:  # the thread must survive for the next alert
            failure = _reason(error)
        if failure is not None and not self._abandoned.is_set():
            self._complain_once(option, f"{option}: {name}: {failure}: an alert was not delivered (reported once)")

    def _run(self, command: tuple[str, ...], text: bytes, key: str) -> str | None:
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
        until = time.monotonic() + self._limits.command_s
        while not self._abandoned.is_set() and (left_s := until - time.monotonic()) > 0:
            # in slices, so that closing does not wait for the limit
            with suppress(subprocess.TimeoutExpired):
                code = process.wait(min(_SLICE_S, left_s))
                return f"ended with {code}" if code else None
        _kill(process)
        return f"killed after {self._limits.command_s:g} s"

    def _post(self, url: str, text: bytes, key: str) -> str | None:
        """POST the text, several times where that can help; returns why it failed."""
        failure = None
        for pause_s in (*self._limits.backoff_s, None):
            failure, is_final = _post_once(url, text, key, self._limits.webhook_s)
            if is_final or pause_s is None or self._abandoned.wait(pause_s):
                break
        return failure

    def _complain_once(self, what: str, line: str) -> None:
        if what not in self._complained:
            self._complained.add(what)
            with suppress(Exception):  # to complain must not fail the run either
                self._complain(line)


def _kill(process: subprocess.Popen[bytes]) -> None:
    """Kill a process that nobody has waited for, and its group."""
    with suppress(OSError):
        os.killpg(process.pid, signal.SIGKILL)
    with suppress(subprocess.TimeoutExpired):
        process.wait(_LAST_WAIT_S)


def _opener() -> urllib.request.OpenerDirector:
    """Opens http and https, through the environment's proxies. It follows no redirect and opens no file."""
    opener = urllib.request.OpenerDirector()
    for handler in (
        urllib.request.ProxyHandler(),
        urllib.request.HTTPHandler(),
        urllib.request.HTTPSHandler(),
        urllib.request.HTTPDefaultErrorHandler(),
        urllib.request.HTTPErrorProcessor(),
    ):
        opener.add_handler(handler)
    return opener


def _post_once(url: str, text: bytes, key: str, timeout_s: float) -> tuple[str | None, bool]:
    """Post once. Returns why that failed, or None, and whether another try is pointless."""
    request = _request(url, text, key)
    try:
        with _opener().open(request, timeout=timeout_s):
            return None, True  # an HTTPErrorProcessor lets only 2xx through
    except urllib.error.HTTPError as error:
        error.close()
        return f"answered {error.code}", error.code < 500 and error.code not in RETRIED_4XX
    except Exception as error:  # OSError, HTTPException, and UnicodeError of a host's name
        return _reason(error), False


def _request(url: str, text: bytes, key: str) -> urllib.request.Request:
    parts = urlsplit(url)
    userinfo, at, host = parts.netloc.rpartition("@")
    headers = {"Content-Type": "application/json", "User-Agent": "claude-orchestrator", "Idempotency-Key": key}
    if at:  # urllib would take it for part of the host
        user, _, password = userinfo.partition(":")
        both = unquote_to_bytes(user) + b":" + unquote_to_bytes(password)
        headers["Authorization"] = "Basic " + base64.b64encode(both).decode()
    return urllib.request.Request(urlunsplit(parts._replace(netloc=host)), text, headers, method="POST")


def _host(url: str) -> str:
    """The host alone: the rest of a webhook's URL is a secret."""
    try:
        return urlsplit(url).hostname or "no host"
    except ValueError:
        return "no host"


def _reason(error: Exception) -> str:
    """An error in a few words, without its own text, which can contain the URL."""
    cause = error.reason if isinstance(error, urllib.error.URLError) else error
    if isinstance(cause, TimeoutError):
        return "timed out"
    words = cause.strerror if isinstance(cause, OSError) else None
    return words or type(cause).__name__
