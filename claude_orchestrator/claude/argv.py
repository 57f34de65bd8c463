"""The argument vector of the claude CLI. Pure."""

from __future__ import annotations

from pathlib import PurePath
from typing import TYPE_CHECKING, Protocol

PERMISSION_MODES = ("default", "acceptEdits", "auto", "bypassPermissions", "dontAsk", "manual", "plan")
STREAM_ARGS = (
    "-p",
    "--input-format",
    "stream-json",
    "--output-format",
    "stream-json",
    "--verbose",
    "--include-partial-messages",
)
# the orchestrator sets these; nobody else may
OWN_OPTIONS = ("-p", "--print", "--input-format", "--output-format", "--resume", "-r", "--continue", "-c")


# claude states in a result why it did not start, if its host asks for it: seen in 2.1.332
HOST_VARIABLES = (("CLAUDE_CODE_STARTUP_FAILURE_RESULTS", "1"),)


if TYPE_CHECKING:

    class ClaudeOptions(Protocol):
        """What can be asked of one claude process."""

        @property
        def permission_mode(self) -> str | None: ...
        @property
        def model(self) -> str | None: ...
        @property
        def session_id(self) -> str | None: ...
        @property
        def session_file(self) -> str | None: ...
        @property
        def new_session_id(self) -> str | None: ...
        @property
        def allowed_tools(self) -> tuple[str, ...]: ...
        @property
        def disallowed_tools(self) -> tuple[str, ...]: ...
        @property
        def append_system_prompt(self) -> str | None: ...
        @property
        def mcp_config(self) -> tuple[str, ...]: ...
        @property
        def json_schema(self) -> str | None: ...
        @property
        def extra_args(self) -> tuple[str, ...]: ...


def launch_argv(claude_bin: str, options: ClaudeOptions, *, asks: bool = False) -> tuple[str, ...]:
    """The arguments of a claude that reads its turns as a stream; `asks`: it asks about tools that need consent.

    Options are written as `--name=value`, so that claude cannot mistake a value for an option.
    """
    single = {
        "permission-mode": options.permission_mode,
        "model": options.model,
        "resume": options.session_file or options.session_id,
        "session-id": options.new_session_id,
        "allowedTools": ",".join(options.allowed_tools) or None,
        "disallowedTools": ",".join(options.disallowed_tools) or None,
        "json-schema": options.json_schema,
        "permission-prompt-tool": "stdio" if asks else None,
    }
    args = [f"--{option}={value}" for option, value in single.items() if value is not None]
    args += [f"--mcp-config={config}" for config in options.mcp_config if not is_json(config)]
    return (claude_bin, *STREAM_ARGS, *args, *options.extra_args)


def private_options(options: ClaudeOptions) -> tuple[tuple[str, str], ...]:
    """Options whose texts may be secret. They go by file: everybody on the machine can read a process's arguments."""
    servers = tuple(("mcp-config", config) for config in options.mcp_config if is_json(config))
    system = options.append_system_prompt
    return (*servers, *((("append-system-prompt", system),) if system is not None else ()))


def resume_argv(argv: tuple[str, ...], session_id: str) -> tuple[str, ...]:
    """The same arguments, with this session resumed. It is resumed from its file, if they already name that."""
    if any(arg.startswith("--resume=") and arg.endswith(f"/{session_id}.jsonl") for arg in argv):
        return argv
    args = [arg for arg in argv if not arg.startswith(("--resume=", "--session-id="))]
    args.insert(1 + len(STREAM_ARGS), f"--resume={session_id}")
    return tuple(args)


def model_of(argv: tuple[str, ...]) -> str | None:
    """The model that these arguments name; None if they leave it to claude."""
    found = None
    for place, arg in enumerate(argv):
        if arg.startswith("--model="):
            found = arg.removeprefix("--model=")
        elif arg == "--model" and place + 1 < len(argv):
            found = argv[place + 1]
    return found


def with_model(argv: tuple[str, ...], model: str) -> tuple[str, ...]:
    """The same arguments with another model: the last one that is named counts."""
    return (*argv, f"--model={model}")


def asks_for_worktree(argv: tuple[str, ...]) -> bool:
    """Whether a claude with these arguments works in a git worktree of its own."""
    return any(map(_is_worktree, argv))


def argv_in_worktree(argv: tuple[str, ...], folder: str) -> tuple[str, ...]:
    """The same arguments for a claude that starts in its worktree instead of `folder`, so that it makes no other
    one."""
    args: list[str] = []
    may_be_name = False  # of the worktree: it can be an argument of its own
    for arg in argv:
        if not (_is_worktree(arg) or (may_be_name and not arg.startswith("-"))):
            option, _, path = arg.partition("=")
            args.append(f"{option}={PurePath(folder) / path}" if option == "--mcp-config" else arg)
        may_be_name = arg in ("--worktree", "-w")
    return tuple(args)


def _is_worktree(arg: str) -> bool:
    return arg in ("--worktree", "-w") or arg.startswith("--worktree=")


def is_json(value: str) -> bool:
    """Whether an `mcp_config` or a `json_schema` is the object itself, as text, and no file."""
    return value.lstrip().startswith("{")
