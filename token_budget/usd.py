"""Amounts of US dollars, which people and price lists write as decimals, in integer nano-dollars. Pure."""

from __future__ import annotations

import re
from decimal import ROUND_CEILING, ROUND_HALF_EVEN, Context, Decimal, Inexact, InvalidOperation

from token_budget.models import MAX_USD
from token_budget.text import SHELL_HINT

_NANO_USD = Decimal("1e-9")
# separate contexts, because a caller's precision would change digits
_ROUNDING = Context(prec=60, rounding=ROUND_HALF_EVEN, traps=[InvalidOperation])
_EXACT = Context(prec=60, traps=[InvalidOperation, Inexact])
# the str() of a small float has an exponent
_AMOUNT = re.compile(r"\$?\s*((?:(?:\d{1,3}(?:,\d{3})+|\d+)\.?\d*|\.\d+)(?:e[+-]?\d{1,3})?)", re.ASCII | re.IGNORECASE)


def usd_to_nano(value: float | str | Decimal) -> int:
    """Dollars as nano-dollars, rounded half to even. Raises ValueError for what is not a finite number."""
    try:
        # a float by its text: 0.1 is a tenth
        return int(Decimal(str(value)).quantize(_NANO_USD, context=_ROUNDING).scaleb(9, _ROUNDING))
    except (InvalidOperation, ValueError):
        raise ValueError(f"expected an amount of US dollars, got {str(value)!r}") from None


def parse_usd(text: str) -> int:
    """Read `5`, `0.25`, `$1.50` or `$2,500` as nano-dollars, exactly.

    Raises ValueError with a reason for anything else: also for 0, for more than 1,000,000 USD, and for more than nine
    decimals. `.50` is an error, because a shell makes that of `$2.50` without quotes.
    """
    bare = text.strip()
    hint = SHELL_HINT if not bare.strip("0") or bare.startswith((".", ",")) else ""
    found = _AMOUNT.fullmatch(bare)
    if found is None or bare.startswith("."):
        raise ValueError(f"expected an amount of US dollars such as 5, 0.25 or $1.50, got {text!r}{hint}")
    usd = Decimal(found[1].replace(",", ""))
    if not 0 < usd <= MAX_USD:
        raise ValueError(f"expected an amount of US dollars above 0 and at most {MAX_USD:,}, got {text!r}{hint}")
    try:
        return int(usd.quantize(_NANO_USD, context=_EXACT).scaleb(9, _EXACT))
    except (InvalidOperation, Inexact):
        raise ValueError(f"expected an amount of US dollars with at most nine decimals, got {text!r}") from None


def nano_usd_at_least(usd: Decimal) -> int:
    """A price in nano-dollars, rounded up."""
    return int(usd.scaleb(9, _ROUNDING).to_integral_value(ROUND_CEILING))
