"""What it costs if the prompt cache of a group expires between its starts, and what keeping it warm costs. Pure."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence

from claude_orchestrator.claude.events import Price
from claude_orchestrator.claude.prompt_cache import LIFETIME_S, CachePrefix
from claude_orchestrator.config.launch_spec import LaunchSpec
from claude_orchestrator.config.settings import Settings
from claude_orchestrator.engine.sharing.cache_report import cost_of_writing
from claude_orchestrator.engine.sharing.keeping_worth import SHARED_TOKENS, Worth
from claude_orchestrator.engine.sharing.start_order import prefix_of
from token_budget.text import counted, format_usd

HOUR_S = 3600.0


def idle_groups(specs: Sequence[LaunchSpec], settings: Settings, price: Price | None) -> list[str]:
    """Warnings of settings that leave a group idle for longer than the cache lives, with what that costs.

    An instance that starts then writes again what it could have read.
    """
    if settings.share_cache == "off":
        return []
    found = []
    for option, wait_s, late in _late(_groups(specs), settings):
        keeping = _keeping(late, wait_s, price)
        if not late.total() or (settings.keep_cache_warm and keeping is not None):
            continue
        text = (
            f"{option}: the API drops its prompt cache after {LIFETIME_S / 60:g} minutes without a request, so "
            f"{counted(late.total(), 'instance')} will write about {SHARED_TOKENS:,} tokens or more again instead of "
            f"reading them{_cost(late, price)}"
        )
        if settings.keep_cache_warm:
            text += ", and keeping it warm would cost more than that"
        elif keeping is not None:
            text += f"; --keep-cache-warm would read them {keeping}"
        found.append(text)
    return found


def keeping_lines(specs: Sequence[LaunchSpec], settings: Settings, price: Price | None) -> list[str]:
    """What `--keep-cache-warm` costs: each call and the most of them, and the known waits between starts."""
    groups = _groups(specs)
    lines = [
        f"{option}: the prompt cache is kept warm between starts: about {SHARED_TOKENS:,} tokens or more are read "
        f"{keeping}"
        for option, wait_s, late in _late(groups, settings)
        if late.total() and (keeping := _keeping(late, wait_s, price)) is not None
    ]
    for model in sorted({prefix.model for prefix, count in groups.items() if count > 1}):
        worth = Worth(SHARED_TOKENS, model, price)
        nano_usd = worth.nano_usd_of_reading
        cost = "" if nano_usd is None else f", for {format_usd(nano_usd)}"
        which = f" of {model}" if model else ""
        every_m = (worth.lifetime_s - worth.margin_s) / 60
        lines.append(
            f"Cache{which}: while instances wait, a call every {every_m:g} minutes reads {SHARED_TOKENS:,} tokens "
            f"or more{cost}. After {worth.most_calls} calls in a row it costs less to write them again, and they end."
        )
    return lines


def _groups(specs: Sequence[LaunchSpec]) -> Counter[CachePrefix]:
    return Counter(prefix_of(spec) for spec in specs if spec.grows is None)


def _late(groups: Counter[CachePrefix], settings: Settings) -> Iterator[tuple[str, float, Counter[CachePrefix]]]:
    """How many instances of each group start with a cold cache, by the option that is the reason, after how long."""
    if settings.startup_delay_s >= LIFETIME_S:
        late = Counter({prefix: count - 1 for prefix, count in groups.items()})
        yield "--startup-delay", settings.startup_delay_s, late
        return
    most = settings.max_launches_per_hour
    if most is not None and groups.total() > most:
        # as many launches as an hour allows come together, and the next ones an hour later
        waves = -(-groups.total() // most)
        yield (
            "--max-launches-per-hour",
            HOUR_S,
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


def _keeping(late: Counter[CachePrefix], wait_s: float, price: Price | None) -> str | None:
    """How often the cache would have to be read before those that start late, and for how much; None if that costs
    more than to write it again."""
    calls, nano_usd, is_known = 0, 0, True
    for prefix, count in late.items():
        worth = Worth(SHARED_TOKENS, prefix.model, price)
        each = worth.calls_for(wait_s, worth.lifetime_s)
        if count and each > worth.most_calls:
            return None
        cost = worth.nano_usd_of_reading
        is_known = is_known and cost is not None
        calls, nano_usd = calls + count * each, nano_usd + count * each * (cost or 0)
    return f"{counted(calls, 'more time')}{f', for {format_usd(nano_usd)}' if is_known else ''}"
