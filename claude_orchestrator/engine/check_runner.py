"""Runs the check of one attempt, a round at a time."""

from __future__ import annotations

import asyncio

from claude_orchestrator.engine.run_context import RunContext
from claude_orchestrator.engine.run_events import Checked
from claude_orchestrator.engine.state import InstanceStatus
from claude_orchestrator.engine.verification import MAX_OUTPUT_CHARS, CheckVerdict, Verification, verdict_of
from claude_orchestrator.launch.base import Running

READ_BACK_BYTES = 64 * 1024  # longer than what is kept, so that no secret is cut before it is hidden


class CheckRunner:
    """Runs the check of an instance, and stops it."""

    def __init__(self, context: RunContext, status: InstanceStatus, verification: Verification) -> None:
        self._context = context
        self._status = status
        self._verification = verification
        self._running: Running | None = None
        self._stop_grace_s: float | None = None
        self._timed_out = False

    async def round(self) -> CheckVerdict | None:
        """Run the command once, and record its verdict; None if it was stopped."""
        verification, status = self._verification, self._status
        verification.begin()
        try:
            verdict = await self._verdict()
        except BaseException:
            verification.interrupt()
            raise
        if verdict is None or status.ending:
            verification.interrupt()
            return None
        verification.end(verdict)
        simulated = self._context.launcher.capabilities.simulated
        self._context.bus.publish(Checked(status.name, verification.rounds, verdict, simulated))
        return verdict

    async def _verdict(self) -> CheckVerdict | None:
        spec = self._status.spec
        check = spec.check or self._verification.check
        folder = self._status.attempt.folder or spec.cwd
        try:
            running = await self._context.launcher.check(spec, check.command, folder)
        except (OSError, ValueError) as error:
            why = (error.strerror if isinstance(error, OSError) else None) or str(error)
            return CheckVerdict(False, f"{folder}: {why}", hopeless=True)
        self._running, self._timed_out = running, False
        if self._stop_grace_s is not None:
            running.stop(self._stop_grace_s)
        timer = asyncio.get_running_loop().call_later(check.timeout_s, self._time_out)
        try:
            output = await self._tail(running)
            exit = await running.wait()
        except BaseException:
            running.stop(0.0)
            await running.wait()
            raise
        finally:
            timer.cancel()
            self._running = None
        if self._stop_grace_s is not None:
            return None
        return verdict_of(exit.code, output, check.timeout_s if self._timed_out else None)

    async def _tail(self, running: Running) -> str:
        """Read all of the output; returns its end, without secrets."""
        kept = bytearray()
        async for batch in running.output():
            kept += batch.raw
            del kept[:-READ_BACK_BYTES]
        text = self._context.services.redact(bytes(kept).decode("utf-8", "replace").replace("\0", ""))
        return text.rstrip()[-MAX_OUTPUT_CHARS:]

    def _time_out(self) -> None:
        self._timed_out = True
        if self._running is not None:
            self._running.stop(self._context.settings.grace_s)

    def stop(self, grace_s: float) -> None:
        """Stop the command if it runs; no verdict is recorded then. A second call with no grace ends it at once."""
        self._stop_grace_s = grace_s
        if self._running is not None:
            self._running.stop(grace_s)
