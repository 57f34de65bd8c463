"""The part of an instance's first request that the API can read from its prompt cache, as far as it is known. Pure.

A request is cached in the order tools, system prompt, messages. Measured with 2.1.197 and 2.1.332.
"""

from __future__ import annotations

from collections.abc import Iterable

from claude_orchestrator.claude.argv import STREAM_ARGS
from token_budget.named_tuples import NamedTuple

LIFETIME_S = 300.0  # of what Claude Code writes; reading it starts the time again
FOLDER_FREE = "--exclude-dynamic-system-prompt-sections"
# what moves the folder out of the system prompt, as the flag does; an older claude ignores it
FOLDER_FREE_REQUEST = {"excludeDynamicSections": True}
CUSTOM_PROMPT = ("--system-prompt", "--system-prompt-file")
APPENDED = ("--append-system-prompt", "--append-system-prompt-file")
# they change no tool and no text of the system prompt
WITHOUT_EFFECT = ("--allowedTools", "--session-id", "--resume")
SAME_AS_DEFAULT = ("--permission-mode=acceptEdits", "--permission-mode=default", "--permission-mode=dontAsk")
# of the environment, what leads to another account, home or set of tools
VARIABLES = ("ANTHROPIC_", "AWS_", "CLAUDE_", "DISABLE_", "ENABLE_", "HOME", "USERPROFILE", "_CLAUDE_")

Pairs = tuple[tuple[str, str], ...]


class CachePrefix(NamedTuple):
    """What two instances need in common so that one reads what the other writes.

    `options` decide the tools. `system` has the texts of the system prompt, `folder` the folder that it names.
    """

    model: str
    account: Pairs
    options: tuple[str, ...]
    appends: bool
    system: Pairs = ()
    folder: str = ""

    @property
    def of_tools(self) -> CachePrefix:
        """The part that ends with the tools and the line on who Claude is. Other texts do not change it."""
        return self._replace(system=(), folder="")


def cache_prefix(argv: tuple[str, ...], private: Pairs, env: Pairs, folder: str, *, folder_free: bool) -> CachePrefix:
    """The prefix of an instance with these arguments, options by file, environment and folder.

    `folder_free`: its claude is asked to leave the folder out of the system prompt.
    """
    options: list[str] = []
    system: list[tuple[str, str]] = []
    model = ""
    rest = iter(argv[1 + len(STREAM_ARGS) :])
    for arg in rest:
        name, equals, value = arg.partition("=")
        if name == "--model":
            model = value if equals else next(rest, "")  # the last one counts
        elif name in (*CUSTOM_PROMPT, *APPENDED):
            system.append((name, value if equals else next(rest, "")))
        elif name not in WITHOUT_EFFECT and arg not in SAME_AS_DEFAULT:
            options.append(arg)
    for option, text in private:
        if option == "append-system-prompt":
            system.append((f"--{option}", text))
        else:
            options.append(f"--{option}={text}")
    is_free = folder_free or FOLDER_FREE in options or any(name in CUSTOM_PROMPT for name, _ in system)
    return CachePrefix(
        model,
        tuple((name, value) for name, value in env if name.startswith(VARIABLES)),
        (argv[0], *options),
        any(name in APPENDED for name, _ in system),
        tuple(system),
        "" if is_free else folder,
    )


def can_leave_folder_out(argv: Iterable[str]) -> bool:
    """Whether a request to leave the folder out has an effect that the user has not decided on."""
    given = {arg.partition("=")[0] for arg in argv}
    return given.isdisjoint((FOLDER_FREE, *CUSTOM_PROMPT))
