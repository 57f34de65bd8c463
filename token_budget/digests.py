"""SHA-256 without `hashlib`, which takes a hundredth of an instant run: its import prepares every algorithm.

`random` of the standard library imports its hash in the same way. Pure.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

__all__ = ["sha256"]

if TYPE_CHECKING:
    from hashlib import sha256
else:
    try:
        from _sha2 import sha256  # since Python 3.12
    except ImportError:
        try:
            from _sha256 import sha256
        except ImportError:
            from hashlib import sha256
