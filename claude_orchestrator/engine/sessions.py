"""Sessions that a config names instead of giving their ids: the first run begins them, later runs continue them."""

from __future__ import annotations

import uuid
from collections.abc import Iterator, Mapping
from pathlib import Path

from claude_orchestrator.config.config import Config, InstanceConfig
from claude_orchestrator.config.kinds import is_session_id
from claude_orchestrator.errors import UserError
from token_budget.fields import show_json


def with_sessions(config: Config, workspace: Path, environ: Mapping[str, str]) -> Config:
    """The config with the id of each session that it names. Raises UserError if two instances name the same one.

    Each run makes its own worktrees. Older versions of claude look for a session only in the folder where it began
    (measured with 2.1.197). So an instance with a worktree continues from the file of its session.
    """
    if all(_is_ready(entry) for entry in config.instances):
        return config
    faults = list(_shared(config))
    if faults:
        raise UserError(*faults)
    instances, warnings = [], list(config.warnings)
    for entry in config.instances:
        named = _named(entry, workspace, environ)
        if named.new_session_id is not None and entry.new_session_id is None:
            warnings.append(
                f"{entry.name}: the session {show_json(entry.session_id)} does not exist yet: this run begins it as "
                f"{named.new_session_id}"
            )
        instances.append(named)
    return config._replace(instances=tuple(instances), warnings=tuple(warnings))


def _is_ready(entry: InstanceConfig) -> bool:
    return entry.session_id is None or (is_session_id(entry.session_id) and not entry.worktree)


def _shared(config: Config) -> Iterator[str]:
    first: dict[str, int] = {}
    for index, entry in enumerate(config.instances):
        name = entry.session_id
        if name is not None and first.setdefault(name, index) != index:
            place = f"{config.source}: instances[{index}].session_id"
            yield f"{place}: instances[{first[name]}] uses the session {show_json(name)} too: give it another name"


def _named(entry: InstanceConfig, workspace: Path, environ: Mapping[str, str]) -> InstanceConfig:
    """Claude keeps a session in `projects/FOLDER/ID.jsonl` below its config folder. It refuses to begin it again."""
    if entry.session_id is None or _is_ready(entry):
        return entry
    folder = (workspace / (entry.cwd or "")).resolve()  # one session by whatever way
    is_id = is_session_id(entry.session_id)
    session_id = entry.session_id if is_id else str(uuid.uuid5(uuid.NAMESPACE_URL, f"{folder}\0{entry.session_id}"))
    place = config_folder(folder, {**environ, **dict(entry.env)})
    found = sorted(place.glob(f"projects/*/{session_id}.jsonl"), key=lambda path: path.stat().st_mtime)
    if found:
        file = str(found[-1]) if entry.worktree else None
        return entry._replace(session_id=session_id, session_file=file)
    return entry if is_id else entry._replace(session_id=None, new_session_id=session_id)


def config_folder(folder: Path, environ: Mapping[str, str]) -> Path:
    """The folder where a claude with this environment keeps its sessions; it takes a relative path from `folder`."""
    return folder / (environ.get("CLAUDE_CONFIG_DIR") or Path(environ.get("HOME") or Path.home(), ".claude"))
