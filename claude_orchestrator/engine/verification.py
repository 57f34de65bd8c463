"""How far an instance's check has come, over all attempts: rounds, verdicts, what is to be fixed. Pure."""

from __future__ import annotations

from claude_orchestrator.config.config import Check
from token_budget.named_tuples import NamedTuple
from token_budget.text import counted

MAX_OUTPUT_CHARS = 4_000
NOT_FOUND, NOT_EXECUTABLE = 127, 126  # the exit codes of a shell that cannot start a command


class CheckVerdict(NamedTuple):
    """How one round ended; `fault` says why it did not pass. `hopeless`: no further turn can change that."""

    passed: bool
    fault: str = ""
    output: str = ""
    hopeless: bool = False


def verdict_of(exit_code: int | None, output: str, timed_out_after_s: float | None = None) -> CheckVerdict:
    """The verdict on a command that has ended."""
    if timed_out_after_s is not None:
        return CheckVerdict(False, f"timed out after {timed_out_after_s:g} s", output)
    if exit_code == 0:
        return CheckVerdict(True)
    if exit_code in (NOT_FOUND, NOT_EXECUTABLE):
        return CheckVerdict(False, last_line(output) or f"exit code {exit_code}", output, hopeless=True)
    how = f"ended by signal {-exit_code}" if exit_code is not None and exit_code < 0 else f"exit code {exit_code}"
    return CheckVerdict(False, how, output)


def last_line(text: str) -> str:
    """The last line of a text that is not empty."""
    return next((line.strip() for line in reversed(text.splitlines()) if line.strip()), "")


class Verification:
    """The check of one instance. `fix_due`: the last round failed, and the turn that answers it has not ended."""

    def __init__(self, check: Check) -> None:
        self.check = check
        self.rounds = 0
        self.verified: bool | None = None
        self.output = ""
        self.fault = ""
        self.fix_due = False
        self.running = False
        self._hopeless = False

    @property
    def pending(self) -> bool:
        """Whether the check has not passed, and can still be tried."""
        return not self.verified and self.rounds < self.check.rounds and not self._hopeless

    def fill(self, check: Check) -> None:
        """The check with the results of others in its command."""
        self.check = check

    def begin(self) -> None:
        """A round begins."""
        self.running = True

    def end(self, verdict: CheckVerdict) -> None:
        """A round has ended."""
        self.running, self.fix_due = False, not verdict.passed
        self.rounds += 1
        self.verified, self.fault, self.output = verdict.passed, verdict.fault, verdict.output
        self._hopeless = verdict.hopeless

    def interrupt(self) -> None:
        """The round in progress was stopped: it does not count."""
        self.running = False

    def turn_ended(self) -> None:
        """Claude has answered the last failure: the next round is due."""
        self.fix_due = False

    def start_again(self) -> None:
        """A new session begins, in which nothing is to be fixed yet."""
        self.fix_due = False

    def restore(self, rounds: int, verdict: CheckVerdict, *, fix_due: bool) -> None:
        """Take over what an earlier orchestrator saw. Rounds that were used up, or hopeless, are allowed again."""
        self.rounds, self.verified = rounds, verdict.passed
        self.fault, self.output, self.fix_due = verdict.fault, verdict.output, fix_due and not verdict.hopeless
        if not self.pending and not self.verified:
            self.rounds = 0

    @property
    def failure(self) -> str:
        """Why the instance fails, once no round is left."""
        if self._hopeless:
            return f"check cannot be started: {self.fault}"
        return f"check failed after {counted(self.rounds, 'round')}: {self.fault}"

    @property
    def prompt(self) -> str:
        """The turn that follows a failed round."""
        said = f"The end of its output:\n\n{self.output}" if self.output.strip() else "It printed nothing."
        head = f"The check of your work failed ({self.fault}, round {self.rounds} of {self.check.rounds}). "
        return f"{head}Fix the cause; the check then runs again. Its command:\n\n{self.check.command}\n\n{said}"
