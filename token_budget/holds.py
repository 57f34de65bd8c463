"""How instances share what is left of a budget. Pure.

Max-min fairness: no instance gets more than it wants, and the others share equally what remains.
"""

from __future__ import annotations

from collections.abc import Sequence

GROW_BELOW = 0.2  # a hold grows once less than this part of it is left
LEAST_SHARE_TOKENS = 1_000


def max_min_shares(available: int, wanted: Sequence[int]) -> list[int]:
    """Each one's max-min fair share of `available` tokens, in the order of `wanted`; sums to at most `available`."""
    shares = [0] * len(wanted)
    left, open_places = max(0, available), sorted(range(len(wanted)), key=lambda place: wanted[place])
    while open_places:
        place = open_places.pop(0)
        shares[place] = min(max(0, wanted[place]), left // (len(open_places) + 1))
        left -= shares[place]
    return shares


def floor_of(wanted_tokens: int) -> int:
    """The least share with which an instance is worth starting: a quarter of what it wants, and 1,000 tokens."""
    return min(wanted_tokens, max(LEAST_SHARE_TOKENS, wanted_tokens // 4))
