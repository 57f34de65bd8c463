"""Models that the CLI has no price for, as it says on standard error and beside its costs. Pure."""

from __future__ import annotations

import json
import re

# 2.1.233 and later: https://code.claude.com/docs/en/headless, seen in 2.1.332
_SIGNAL = "[claude-code:unrecognized_model]"
MAX_MODELS = 100


def unrecognized_models(stderr: str) -> list[str]:
    """The models that the CLI has named on standard error as unknown to it, each once."""
    found: dict[str, None] = {}
    if _SIGNAL not in stderr:
        return []
    for text in re.findall(rf"{re.escape(_SIGNAL)} (\{{.*\}})", stderr)[:MAX_MODELS]:
        try:
            model = json.loads(text).get("model")
        except (ValueError, RecursionError):
            continue
        if isinstance(model, str) and model:
            found[model[:200]] = None
    return list(found)
