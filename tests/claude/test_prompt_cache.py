"""What two instances need in common to read each other's prompt cache."""

from __future__ import annotations

import pytest

from claude_orchestrator.claude.argv import STREAM_ARGS
from claude_orchestrator.claude.prompt_cache import CachePrefix, cache_prefix, can_leave_folder_out


def prefix(
    *args: str,
    private: tuple[tuple[str, str], ...] = (),
    env: tuple[tuple[str, str], ...] = (),
    folder: str = "/a",
    folder_free: bool = False,
) -> CachePrefix:
    return cache_prefix(("claude", *STREAM_ARGS, *args), private, env, folder, folder_free=folder_free)


@pytest.mark.parametrize(
    "args",
    [
        ("--session-id=1",),
        ("--resume=1",),
        ("--allowedTools=Read",),
        ("--permission-mode=acceptEdits",),
        ("--permission-mode=dontAsk",),
    ],
)
def test_what_changes_no_tool_and_no_system_prompt_is_left_out(args: tuple[str, ...]) -> None:
    assert prefix(*args) == prefix()


@pytest.mark.parametrize(
    "args",
    [
        ("--model=haiku",),
        ("--model", "haiku"),
        ("--permission-mode=plan",),
        ("--permission-mode=bypassPermissions",),
        ("--disallowedTools=Write",),
        ("--json-schema={}",),
        ("--mcp-config=servers.json",),
    ],
)
def test_another_model_or_set_of_tools_shares_nothing(args: tuple[str, ...]) -> None:
    assert prefix(*args).of_tools != prefix().of_tools


def test_options_by_file_count_too() -> None:
    assert prefix(private=(("mcp-config", "{}"),)).of_tools != prefix().of_tools
    one, two = (prefix(private=(("append-system-prompt", text),)) for text in ("Be brief.", "Be kind."))
    assert one != two and one.of_tools == two.of_tools != prefix().of_tools


def test_only_variables_of_claude_count() -> None:
    assert prefix(env=(("ITEM", "1"),)) == prefix()
    assert prefix(env=(("ANTHROPIC_API_KEY", "other"),)).of_tools != prefix().of_tools


def test_another_folder_shares_the_tools_only() -> None:
    assert prefix(folder="/b") != prefix() and prefix(folder="/b").of_tools == prefix().of_tools


def test_a_system_prompt_without_its_folder_is_the_same_everywhere() -> None:
    assert prefix(folder="/b", folder_free=True) == prefix(folder_free=True)
    flag = "--exclude-dynamic-system-prompt-sections"
    assert prefix(flag, folder="/b") == prefix(flag)
    assert prefix("--system-prompt", "Mine.", folder="/b") == prefix("--system-prompt", "Mine.")
    assert prefix("--system-prompt=Mine.") != prefix("--system-prompt=Yours.")


@pytest.mark.parametrize(
    ("args", "can"),
    [
        ((), True),
        (("--append-system-prompt=x",), True),
        (("--exclude-dynamic-system-prompt-sections",), False),
        (("--system-prompt", "x"), False),
        (("--system-prompt-file=x",), False),
    ],
)
def test_the_folder_is_left_out_where_that_has_an_effect(args: tuple[str, ...], can: bool) -> None:
    assert can_leave_folder_out(args) is can
