"""A rehearsal with a page, in a process of its own."""

from __future__ import annotations

import re
import subprocess
import time
from pathlib import Path
from typing import Any

from tests.harness import Workplace
from tests.limits import HUNG_S


def rehearsal_config(number: int, *, seconds: float = 20.0, **more: Any) -> dict[str, Any]:
    """A config with instances that analyse, and others that depend on them."""
    analyse = [{"name": f"analyse-{place:02}", "command": f"/analyse part-{place}"} for place in range(number // 4)]
    rest = [
        {
            "name": f"fix-{place:02}",
            "command": f"/fix issue-{place}",
            "depends_on": [analyse[place % len(analyse)]["name"]] if analyse else [],
        }
        for place in range(number - len(analyse))
    ]
    return {
        "instances": [*analyse, *rest],
        "rehearsal": {"turns": 20, "tokens": 8_000, "seconds": seconds, "seed": 7},
        "budget": {"overall_budget": "5M", "command_budgets": {"/fix": "3M"}},
        **more,
    }


class Rehearsal:
    """A running rehearsal; `address` is what it has printed of its page."""

    def __init__(self, place: Workplace, config: dict[str, Any], *arguments: str) -> None:
        self.messages: Path = place.root / "messages"
        path = place.config(config)
        with self.messages.open("w") as file:
            self.process = subprocess.Popen(
                place.argv("--config", path, "--rehearse", *arguments, claude=None),
                env=place.env,
                cwd=place.root,
                stdout=file,
                stderr=file,
            )
        self.address = self._address()

    def _address(self, limit_s: float = HUNG_S) -> str:
        deadline = time.monotonic() + limit_s
        while (found := re.search(r"dashboard: (\S+)", self.messages.read_text())) is None:
            assert self.process.poll() is None and time.monotonic() < deadline, self.messages.read_text()
            time.sleep(0.02)
        return found[1]

    def stop(self) -> None:
        """End it, if it has not ended."""
        if self.process.poll() is None:
            self.process.terminate()
        self.process.wait(timeout=HUNG_S)
