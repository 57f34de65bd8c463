"""Where the ledger, the run directories and the user's profiles are, unless an option names another place.

State (the ledger and the run directories) is in the user's state directory, profiles are in the user's configuration
directory, as each platform has them. Earlier versions kept state beside the profiles: the program moves it
once. While a run uses it, or if it cannot be moved, it is used where it is.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

APP = "claude-orchestrator"
LEDGER, RUNS, PROFILES = "ledger.db", "runs", "profiles.json"


def state_dir() -> Path:
    """The user's folder for this application's state."""
    return _user_dir("XDG_STATE_HOME", ".local/state") or Path(_platformdirs().user_state_dir(APP, appauthor=False))


def config_dir() -> Path:
    """The user's folder for this application's configuration; earlier versions kept state there too."""
    return _user_dir("XDG_CONFIG_HOME", ".config") or Path(
        _platformdirs().user_config_dir(APP, appauthor=False, roaming=True)
    )


def _user_dir(variable: str, below_home: str) -> Path | None:
    """On Linux, what platformdirs says too, whose import takes a twentieth of a dry run; None elsewhere.

    Source: the XDG Base Directory Specification, with the reading of it in platformdirs.
    """
    if sys.platform != "linux":
        return None
    base = Path(os.environ.get(variable, ""))
    return (base if base.is_absolute() else Path.home() / below_home) / APP


def _platformdirs() -> ModuleType:
    import platformdirs  # only where no option names a place

    return platformdirs


def profiles_file() -> Path:
    """The file with the user's own profiles."""
    return config_dir() / PROFILES


def ledger_file(notify: Callable[[str], None], *, move: bool = True) -> Path:
    """The ledger. The one of an earlier version is moved here first, and `notify` receives a line about it.

    Without `move` nothing is changed: an old ledger is used where it is.
    """
    return _place(LEDGER, notify, move)


def runs_dir(notify: Callable[[str], None], *, move: bool = True) -> Path:
    """The directory of the run directories; see `ledger_file`."""
    return _place(RUNS, notify, move)


def _place(name: str, notify: Callable[[str], None], move: bool) -> Path:
    new, old = state_dir() / name, config_dir() / name
    if new == old or os.path.lexists(new) or not os.path.lexists(old):
        return new
    if not move:
        return old
    from token_budget.moving import move_state  # needed once per user

    return move_state(old, new, notify)
