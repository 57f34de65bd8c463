"""What has to be there before anything starts: the workspace, folders to work in, files to read, places to write.

os.path answers what a path is, because a Path raises OSError where a name is too long or a folder is closed.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator, Mapping
from functools import lru_cache
from pathlib import Path

from claude_orchestrator.claude.argv import is_json
from claude_orchestrator.config.approvals import ASK
from claude_orchestrator.config.config import Config
from claude_orchestrator.config.plan import Plan
from claude_orchestrator.config.settings import MeterChoice, Settings
from claude_orchestrator.engine.shared_folders import some_of
from claude_orchestrator.errors import UserError
from claude_orchestrator.gateway.clouds import half_configured
from claude_orchestrator.launch.fence_kind import fence_kind
from token_budget.fields import BadValue
from token_budget.folders import check_folder
from token_budget.owned import NEW, NotOursError, place_of

MAX_FAULTS = 20
MAX_MCP_BYTES = MAX_SCHEMA_BYTES = 1024 * 1024


def check_workspace(workspace: Path) -> None:
    """Refuse a workspace that is missing or no folder."""
    if not os.path.exists(workspace):
        raise UserError(f"--workspace: {workspace}: no such folder")
    if not os.path.isdir(workspace):
        raise UserError(f"--workspace: {workspace}: not a folder")


def check_keeping(settings: Settings, meter: MeterChoice, *, is_here: bool) -> None:
    """Refuse to keep the prompt cache warm where nothing can do that."""
    why = None
    if settings.share_cache == "off":
        why = "has no effect with --share-cache off"
    elif not is_here:
        why = "does not work on a cluster, whose nodes have gateways of their own"
    elif meter.kind != "api":
        why = f"needs --meter api, which can repeat requests; this run takes the stream ({meter.reason})"
    if why is not None:
        raise UserError(f"--keep-cache-warm: {why}")


def check_plan(plan: Plan, config: Config) -> None:
    """Refuse what claude would refuse at its start: folders and MCP configs that are missing. All faults are reported
    at once."""
    faults: list[str] = []
    known: dict[tuple[str, tuple[str, ...]], list[str]] = {}  # a fan-out has many instances in one folder
    for spec, instance in zip(plan.specs, config.instances, strict=True):
        if spec.grows is not None:  # its folder may depend on its items
            continue
        key = spec.cwd, instance.mcp_config
        if key not in known:
            known[key] = list(_faults(*key))
        faults += [f"{config.source}: {_place(config, spec.position)}.{fault}" for fault in known[key]]
    if len(faults) > MAX_FAULTS:
        faults[MAX_FAULTS:] = [f"{config.source}: {len(faults) - MAX_FAULTS:,} more faults like these"]
    if faults:
        raise UserError(*faults)


def _place(config: Config, index: int) -> str:
    """An instance's place in the config; that of a group's instance is its name."""
    return f"instances[{index}]" if not config.groups else f"instance {config.instances[index].name}"


def _faults(cwd: str, mcp_config: tuple[str, ...]) -> Iterator[str]:
    if not os.path.isdir(cwd):
        yield f"cwd: {cwd}: no such folder"
        return
    for config in mcp_config:
        if not is_json(config):
            fault = _fault_of_mcp_file(Path(cwd, config))
            yield from [f"mcp_config: {config}: {fault}"] if fault else []


def _fault_of_mcp_file(path: Path) -> str | None:
    from claude_orchestrator.config.instance_kinds import MCP
    from token_budget.usage.json_file import JsonFileError, parse_json, read_bytes

    try:
        MCP.read(parse_json(read_bytes(path, MAX_MCP_BYTES), path.name, dict))
    except OSError as error:
        return f"cannot be read: {error.strerror or error}"
    except (JsonFileError, BadValue) as error:
        return str(error)
    return None


def with_schemas(config: Config, workspace: Path) -> Config:
    """The config with each schema's file replaced by what it holds. Raises UserError with all that is wrong."""
    faults: list[str] = []
    instances = []
    read = lru_cache(maxsize=100)(_schema_in)
    for index, instance in enumerate(config.instances):
        schema = instance.json_schema
        if schema is None or is_json(schema):
            instances.append(instance)
            continue
        try:
            instances.append(instance._replace(json_schema=read(workspace / (instance.cwd or "") / schema)))
        except BadValue as error:
            place = f"{config.source}: {_place(config, index)}.json_schema: {schema}: "
            faults += [f"{place}{path.lstrip('.') + ': ' if path else ''}{why}" for path, why in error.faults]
            if len(faults) > MAX_FAULTS:
                break
    if faults:
        raise UserError(*faults)
    return config._replace(instances=tuple(instances))


def _schema_in(path: Path) -> str:
    from claude_orchestrator.config.json_schema import as_argument
    from token_budget.usage.json_file import JsonFileError, parse_json, read_bytes

    try:
        return as_argument(parse_json(read_bytes(path, MAX_SCHEMA_BYTES), path.name, dict))
    except OSError as error:
        raise BadValue(("", f"cannot be read: {error.strerror or error}")) from None
    except JsonFileError as error:
        raise BadValue(("", str(error))) from None


def doubts(plan: Plan, config: Config, environ: Mapping[str, str]) -> Iterator[str]:
    """Warnings of what claude refuses at its start on most machines."""
    root = hasattr(os, "geteuid") and os.geteuid() == 0
    for spec, instance in zip(plan.specs, config.instances, strict=True):
        name = spec.group or spec.name
        own = {**environ, **dict(spec.env)}
        lacks = half_configured(own)
        if lacks is not None:
            yield f"{name} {lacks}"
        bypasses = root and instance.permission_mode == "bypassPermissions"
        if bypasses and not own.get("IS_SANDBOX"):
            yield f"{name}: claude refuses permission_mode bypassPermissions as root, unless IS_SANDBOX=1 is set"


def without_permissions(config: Config) -> Iterator[str]:
    """A warning for the instances that name neither a permission mode nor tools."""
    names = [entry.name for entry in config.instances if not entry.permission_mode and not entry.allowed_tools]
    if names:
        yield (
            f"{some_of(names)}: without permission_mode and allowed_tools, Claude denies every tool that its settings "
            "do not allow"
        )


def check_nobody_asks(plan: Plan) -> None:
    """Without a control socket nobody can approve a tool. Raises UserError."""
    asking = next((spec.name for spec in plan.specs if spec.approvals.default == ASK), None)
    if asking is not None:
        raise UserError(f"--no-control: {asking} asks for approvals, which need the control socket: leave it out")


def check_output_dir(path: Path) -> None:
    """Refuse a folder that cannot be created or written to. Creates nothing."""
    fault = fault_of_place(path)
    if fault is not None:
        raise UserError(f"--output-dir: {path}: cannot be written: {fault}")
    try:
        check_folder(path, may_be_shared=True)
    except NotOursError as error:
        raise UserError(f"--output-dir: {error.strerror}") from None
    except OSError as error:
        raise UserError(f"--output-dir: {path}: cannot be written: {error.strerror or error}") from None


def fault_of_place(path: Path) -> str | None:
    """Why nothing can be created in or at that path; None if it can. Creates nothing."""
    existing = next(folder for folder in (path, *path.absolute().parents) if os.path.exists(folder))
    if not os.path.isdir(existing):
        return f"{existing} is not a folder"
    return None if os.access(existing, os.W_OK | os.X_OK) else "Permission denied"


def check_writable(option: str, path: Path) -> None:
    """Refuse a file that cannot be written at the end of the run. This tries it now, by writing beside it."""
    try:
        with place_of(path) as place:
            status = place.status()
            if status is not None and stat.S_ISDIR(status.st_mode):
                raise UserError(f"{option}: {path}: is a folder")
            if status is not None and not stat.S_ISREG(status.st_mode):  # a device or a pipe
                return
            name = f".claude-orchestrator-{os.urandom(8).hex()}"
            os.close(place.open(os.O_WRONLY | NEW, name=name))
            place.unlink(name)
        if status is not None and not os.access(path, os.W_OK):
            raise PermissionError(13, "Permission denied")
    except NotOursError as error:
        raise UserError(f"{option}: {error.strerror}") from None
    except OSError as error:
        raise UserError(f"{option}: {path}: cannot be written: {error.strerror or error}") from None


def fence() -> str:
    """How a run on this system finds what instances leave: `mark`, `subreaper` or `namespace`."""
    return fence_kind()
