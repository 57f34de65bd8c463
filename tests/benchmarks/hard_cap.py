"""Overshoot, use, cut answers and waiting of the hard cap, beside two other ways, with 1, 16, 128 and 512 clients.

    python -m tests.benchmarks.hard_cap [--quick]     (writes docs/hard-cap.svg)
    python -m tests.benchmarks.hard_cap --choice      (other ways to choose what is held for an answer)

Each client asks a simulated API, through the gateway, for answers of log-normal length (median 800 tokens, sigma 1.2)
with `max_tokens` of 64,000; an answer that was cut is continued by another request, until the budget refuses one.
"""

from __future__ import annotations

import asyncio
import json
import random
import statistics
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import aiohttp

from claude_orchestrator.claude.events import ApiUsage
from claude_orchestrator.gateway.admission import LEAST_OUTPUT_TOKENS, Admission, Ticket, Verdict
from claude_orchestrator.gateway.server import Gateway
from tests.benchmarks.simulated_api import SimulatedApi
from tests.metered import Metered
from token_budget.budget_manager import TokenBudgetManager
from token_budget.models import Hold, Weights

MAX_TOKENS = 64_000
MEDIAN, SIGMA = 800, 1.2
PLOT = Path(__file__).parent.parent.parent / "docs" / "hard-cap.svg"


class AfterTheFact(Admission):
    """Goes as long as the limit is not passed; what is in flight is not thought of."""

    def decide(self, ticket: Ticket) -> Verdict:
        if any(budget.used >= budget.limit for budget in ticket.budgets):
            ticket.spent = ticket.budgets[0]
            return Verdict.REFUSE
        ticket.output_tokens = ticket.max_tokens
        return Verdict.GO

    def has_room(self, ticket: Ticket) -> bool:
        return True


class HoldMaxTokens(Admission):
    """Holds all the output that the client asks for, and never lowers it."""

    def decide(self, ticket: Ticket) -> Verdict:
        needs = ticket.max_tokens
        if min(self._room(ticket, budget, budget.limit - budget.used) for budget in ticket.budgets) < needs:
            ticket.spent = ticket.budgets[0]
            return Verdict.REFUSE
        if self._free_output(ticket) < needs:
            return Verdict.WAIT
        self._go(ticket, needs)
        return Verdict.GO

    def _is_spent(self, ticket: Ticket) -> bool:
        return False


class WithoutShares(Admission):
    """Holds what answers have been seen to need, never more."""

    def _share(self, room: int) -> int:
        return 0


class SharesAlone(Admission):
    """Holds an equal share of what is free, whatever answers need."""

    def learn(self, output_tokens: int) -> None:
        self.expected = LEAST_OUTPUT_TOKENS


CHOICES: dict[str, Callable[[], Admission]] = {
    "95 % of answers, or a share": Admission,
    "50 % of answers, or a share": partial(Admission, quantile=0.5),
    "all answers so far, or a share": partial(Admission, quantile=1.0),
    "95 % of answers, no shares": WithoutShares,
    "a share alone": SharesAlone,
}
POLICIES: dict[str, Callable[[], Admission]] = {
    "hard cap": Admission,
    "count after the fact": AfterTheFact,
    "hold max_tokens": HoldMaxTokens,
}


@dataclass
class Outcome:
    """What a run left."""

    overshoot: int
    used: float
    requests: int
    cut: int
    peak: int
    seconds: float
    waits_ms: list[float] = field(default_factory=list)


@dataclass
class Counted:
    """A budget's bookkeeping for one client."""

    manager: TokenBudgetManager
    seen: dict[str, int] = field(default_factory=dict)

    def take(self, usage: ApiUsage, hold: Hold | None) -> None:
        total = usage.usage.total_tokens
        self.manager.record_usage(None, total - self.seen.get(usage.id, 0), None, hold)
        self.seen[usage.id] = total


async def client(number: int, url: str, session: aiohttp.ClientSession, outcome: Outcome, rounds: int) -> None:
    """Ask until refused, or until there is nothing left to ask."""
    chance = random.Random(number)
    for turn in range(rounds):
        left = max(1, int(chance.lognormvariate(0, SIGMA) * MEDIAN))
        while left > 0:
            body = {
                "max_tokens": MAX_TOKENS,
                "messages": [{"role": "user", "content": f"{number} {turn} " + "x" * 400}],
            }
            begun = time.perf_counter()
            first = None
            async with session.post(f"{url}/v1/messages", json={**body, "metadata": {"needs": left}}) as answer:
                if answer.status != 200:
                    return
                text = b""
                async for chunk in answer.content.iter_any():
                    first = first or time.perf_counter()
                    text += chunk
            outcome.waits_ms.append(((first or begun) - begun) * 1000)
            end = json.loads(text.rpartition(b"data: ")[2])
            left -= end["usage"]["output_tokens"]
            outcome.cut += end["delta"]["stop_reason"] == "max_tokens"


async def one(policy: Callable[[], Admission], clients: int, limit: int) -> Outcome:
    api = SimulatedApi()
    await api.start()
    manager = TokenBudgetManager(limit, "block")
    outcome = Outcome(0, 0.0, 0, 0, 0, 0.0)
    begun = time.perf_counter()
    rounds = max(2, 4 * limit // (clients * 1800))  # several times what the budget pays for
    environ = {"ANTHROPIC_BASE_URL": f"http://127.0.0.1:{api.port}"}
    connector = aiohttp.TCPConnector(limit=0)
    async with (
        Gateway(manager, Weights(), environ=environ, admission=policy()) as gateway,
        aiohttp.ClientSession(connector=connector, timeout=aiohttp.ClientTimeout(total=None)) as session,
    ):
        places = [gateway.open(Metered(manager.budgets, on_usage=Counted(manager).take)) for _ in range(clients)]
        async with asyncio.TaskGroup() as tasks:
            for number, place in enumerate(places):
                tasks.create_task(client(number, place.url, session, outcome, rounds))
    assert all(budget.held == 0 for budget in manager.budgets) or policy is AfterTheFact
    outcome.seconds = time.perf_counter() - begun
    outcome.overshoot = max(0, api.billed - limit)
    outcome.used = min(1.0, api.billed / limit)
    outcome.requests, outcome.peak = api.requests, api.peak
    assert api.runner is not None
    await api.runner.cleanup()
    return outcome


def plot(rows: list[dict[str, object]]) -> str:
    """Two rows of bars: what was billed in percent of the budget, for each policy, clients and budget."""
    colors = {"hard cap": "#2a9d4a", "count after the fact": "#d1495b", "hold max_tokens": "#8d99ae"}
    groups = list(dict.fromkeys((row["clients"], row["budget"]) for row in rows))
    width, height, base = 110 * len(groups) + 80, 300, 240
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{height}" '
        'font-family="sans-serif" font-size="11">',
        '<rect width="100%" height="100%" fill="white"/>',
        '<text x="10" y="16" font-size="13">Billed, in % of the budget (bars end at 200 %)</text>',
    ]
    for percent in (0, 50, 100, 150, 200):
        y = base - percent
        dash = "" if percent == 100 else ' stroke-dasharray="2 4"'
        parts.append(f'<line x1="50" x2="{width - 10}" y1="{y}" y2="{y}" stroke="#555"{dash}/>')
        parts.append(f'<text x="44" y="{y + 4}" text-anchor="end">{percent}</text>')
    for place, (clients, budget) in enumerate(groups):
        left = 60 + place * 110
        for number, (name, color) in enumerate(colors.items()):
            row = next(row for row in rows if (row["clients"], row["budget"], row["policy"]) == (clients, budget, name))
            billed_percent = float(str(row["billed_percent"]))
            bar = min(200.0, billed_percent)
            x = left + number * 30
            parts.append(f'<rect x="{x}" y="{base - bar:.1f}" width="24" height="{bar:.1f}" fill="{color}"/>')
            parts.append(
                f'<text x="{x + 12}" y="{base - bar - 3:.1f}" text-anchor="middle" font-size="9">{percent:.0f}</text>'
            )
        parts.append(f'<text x="{left + 42}" y="{base + 16}" text-anchor="middle">{clients} clients</text>')
        parts.append(f'<text x="{left + 42}" y="{base + 30}" text-anchor="middle">{int(str(budget)):,}</text>')
    for number, (name, color) in enumerate(colors.items()):
        parts.append(f'<rect x="{60 + number * 170}" y="{height - 18}" width="10" height="10" fill="{color}"/>')
        parts.append(f'<text x="{75 + number * 170}" y="{height - 9}">{name}</text>')
    return "\n".join((*parts, "</svg>", ""))


def choices() -> None:
    """Print a JSON line for each way to choose what is held."""
    for clients, limit in ((16, 500_000), (128, 500_000), (128, 5_000_000)):
        for name, policy in CHOICES.items():
            done = asyncio.run(one(policy, clients, limit))
            waits_ms = sorted(done.waits_ms)
            row = {
                "benchmark": "hard_cap",
                "held": name,
                "clients": clients,
                "budget": limit,
                "overshoot": done.overshoot,
                "billed_percent": round(done.used * 100, 1),
                "cut_percent": round(done.cut / done.requests * 100, 1),
                "first_byte_p50_ms": round(statistics.median(waits_ms), 1),
                "first_byte_p99_ms": round(waits_ms[int(len(waits_ms) * 0.99)], 1),
                "seconds": round(done.seconds, 1),
            }
            print(json.dumps(row), flush=True)


def main() -> None:
    """Print a JSON line for each run."""
    if "--choice" in sys.argv:
        choices()
        return
    quick = "--quick" in sys.argv
    rows: list[dict[str, object]] = []
    for clients in (1, 16, 128) if quick else (1, 16, 128, 512):
        for limit in (20_000, 500_000) if quick else (20_000, 500_000, 5_000_000):
            if clients == 1 and limit > 500_000:
                continue  # one at a time: it would take minutes and show nothing new
            for name, policy in POLICIES.items():
                done = asyncio.run(one(policy, clients, limit))
                row: dict[str, object] = {
                    "benchmark": "hard_cap",
                    "policy": name,
                    "clients": clients,
                    "budget": limit,
                    "overshoot": done.overshoot,
                    "billed_percent": round((done.used + done.overshoot / limit) * 100, 1),
                    "requests": done.requests,
                    "cut": done.cut,
                    "at_once": done.peak,
                    "first_byte_p50_ms": round(statistics.median(done.waits_ms), 1) if done.waits_ms else None,
                    "seconds": round(done.seconds, 1),
                }
                rows.append(row)
                print(json.dumps(row), flush=True)
    if not quick:
        PLOT.write_text(plot(rows))


if __name__ == "__main__":
    main()
