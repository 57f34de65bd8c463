"""The option `--html`: a finished run as one file, without a browser."""

from __future__ import annotations

import json
import re

from tests.harness import Workplace
from tests.ui.web.rehearsal import rehearsal_config


def test_a_finished_run_is_one_small_file_with_its_conversations(place: Workplace) -> None:
    path = place.root / "page.html"
    config = rehearsal_config(4, rehearsal={"turns": 2, "tokens": 2_000, "seconds": 0.1, "seed": 1})
    done = place.run("--config", place.config(config), "--rehearse", "--html", str(path), "--quiet", claude=None)
    assert done.returncode == 0, done.stderr
    found = re.search(r'<script type="application/json" id="run-data">(.*?)</script>', path.read_text(), re.DOTALL)
    assert found
    data = json.loads(found[1])
    assert data["snapshot"]["run"]["state"] == "ended" and len(data["snapshot"]["instances"]) == 4
    assert len(data["snapshot"]["edges"]) == 3 and data["snapshot"]["timeline"]["series"]["tokens"][-1] > 0
    assert all(part["answer"].startswith("Rehearsed") and part["conversation"] for part in data["parts"].values())


def test_a_file_that_cannot_be_written_is_refused_before_anything_starts(place: Workplace) -> None:
    done = place.run("/x", "--rehearse", "--html", str(place.root / "no" / "page.html"), claude=None)
    assert done.returncode == 2 and "--html: " in done.stderr and not (place.root / "out").exists()
