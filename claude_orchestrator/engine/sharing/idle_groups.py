"""What it costs that instances of one cache group start so far apart that the API drops its prompt cache. Pure."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence

from claude_orchestrator.claude.events import Price
from claude_orchestrator.claude.prompt_cache import LIFETIME_S, CachePrefix
from claude_orchestrator.config.launch_spec import LaunchSpec
from claude_orchestrator.config.settings import Settings
from claude_orchestrator.engine.sharing.cache_use import cost_of_writing
from claude_orchestrator.engine.sharing.start_order import prefix_of
from token_budget.text import counted, format_usd

SHARED_TOKENS = 10_000  # tools and system prompt, without a word of the user, at least: by 2.1.197 and 2.1.332


def idle_groups(specs: Sequence[LaunchSpec], settings: Settings, price: Price | None) -> list[str]:
    """Warnings of settings that leave a group idle for longer than the cache lives, with what that costs.

    An instance that starts then writes again what it could have read.
    """
    if settings.share_cache == "off":
        return []
    groups = Counter(prefix_of(spec) for spec in specs if spec.grows is None)
    return [
        f"{option}: the API drops its prompt cache after {LIFETIME_S / 60:g} minutes without a request, so "
        f"{counted(again, 'instance')} will write about {SHARED_TOKENS:,} tokens or more again instead of reading them"
        f"{_cost(late, price)}"
        for option, late in _late(groups, settings)
        if (again := late.total())
    ]


def _late(groups: Counter[CachePrefix], settings: Settings) -> Iterator[tuple[str, Counter[CachePrefix]]]:
    """How many instances of each group start with a cold cache, by the option that is the reason."""
    if settings.startup_delay_s >= LIFETIME_S:
        yield "--startup-delay", Counter({prefix: count - 1 for prefix, count in groups.items()})
        return
    most = settings.max_launches_per_hour
    if most is not None and groups.total() > most:
        # as many launches as an hour allows come together, and the next ones an hour later
        waves = -(-groups.total() // most)
        yield (
            "--max-launches-per-hour",
            Counter({prefix: min(count, waves) - 1 for prefix, count in groups.items()}),
        )


def _cost(late: Counter[CachePrefix], price: Price | None) -> str:
    """What writing costs more than reading, as far as the models have prices."""
    nano_usd = 0
    for prefix, count in late.items():
        if price is None or not prefix.model:
            return ""
        more = cost_of_writing(prefix.model, SHARED_TOKENS, price)
        if more is None:
            return ""
        nano_usd += count * more
    return f", which costs {format_usd(nano_usd)} more"
