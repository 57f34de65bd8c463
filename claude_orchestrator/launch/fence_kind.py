"""How a run on this system finds what instances leave behind. The dry run needs no other module of `launch`."""

from __future__ import annotations

import os
import sys

FENCE_VARIABLE = "CLAUDE_ORCHESTRATOR_FENCE"  # `mark` switches the fence off, `namespace` makes it stronger


def fence_kind() -> str:
    """`mark`, `subreaper` or `namespace`."""
    asked = os.environ.get(FENCE_VARIABLE)
    if sys.platform != "linux" or asked == "mark":
        return "mark"
    return "namespace" if asked == "namespace" else "subreaper"
