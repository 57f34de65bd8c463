"""Where the ledger, the run folders and the user's profiles are, unless an option names another place.

State (the ledger and the run folders) is in the user's state directory, profiles are in the user's configuration
directory, as each platform has them. Earlier versions kept state beside the profiles: what is found there is moved
once. While a run uses it, or where it cannot be moved, it stays in use where it is.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

APP = "claude-orchestrator"
LEDGER, RUNS, PROFILES = "ledger.db", "runs", "profiles.json"


def state_dir() -> Path:
    """The user's folder for this application's state."""
    import platformdirs  # only where no option names a place

    return Path(platformdirs.user_state_dir(APP, appauthor=False))


def config_dir() -> Path:
    """The user's folder for this application's configuration; earlier versions kept state there too."""
    import platformdirs

    return Path(platformdirs.user_config_dir(APP, appauthor=False, roaming=True))


def profiles_file() -> Path:
    """The file with the user's own profiles."""
    return config_dir() / PROFILES


def ledger_file(tell: Callable[[str], None], *, move: bool = True) -> Path:
    """The ledger. One of an earlier version is moved here first, and `tell` gets a line about it.

    Without `move` nothing is changed: an old ledger is used where it is.
    """
    return _place(LEDGER, tell, move)


def runs_dir(tell: Callable[[str], None], *, move: bool = True) -> Path:
    """The folder of run folders; as `ledger_file`."""
    return _place(RUNS, tell, move)


def _place(name: str, tell: Callable[[str], None], move: bool) -> Path:
    new, old = state_dir() / name, config_dir() / name
    if new == old or os.path.lexists(new) or not os.path.lexists(old):
        return new
    if not move:
        return old
    from token_budget.moving import move_state  # needed once in a user's life

    return move_state(old, new, tell)
