"""How a user writes commands about a run in another terminal."""

from __future__ import annotations

import shlex
from pathlib import Path


def runs_command(output_dir: Path) -> str:
    """`claude-runs`, with the option for the folder of the runs if it is not the default one."""
    return f"claude-runs{output_dir_option(output_dir)}"


def output_dir_option(output_dir: Path) -> str:
    """The option for the folder of the runs, with a space before it; empty for the default folder."""
    from token_budget import places

    given = output_dir.absolute()
    if given == places.runs_dir(lambda line: None, move=False).absolute():
        return ""
    return f" --output-dir {shlex.quote(str(given))}"
