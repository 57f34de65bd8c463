"""The secrets of a page's server: tickets that sign in once, the cookie that they are exchanged for, a password."""

from __future__ import annotations

import hashlib
import hmac
import secrets

MAX_USED = 10_000
SECRET_BYTES = 32


class Keys:
    """Who may sign in.

    Whoever can read `secret` may: it signs tickets, each of which is good once, and cookies. `boot` is new at each
    start of the server, so that no earlier ticket is good again. Comparisons take the same time whatever is wrong.
    """

    def __init__(self, secret: bytes, boot: str, password: str = "") -> None:
        self.boot = boot
        self.needs_password = bool(password)
        self._secret = secret
        self._password = hashlib.sha256(password.encode()).digest()
        self._used: set[str] = set()

    def ticket(self) -> str:
        """A new ticket."""
        nonce = secrets.token_urlsafe(12)
        return f"{nonce}.{self._sign('ticket', self.boot, nonce)}"

    def redeem(self, ticket: str) -> bool:
        """Whether a ticket is good; it is used up then."""
        nonce, _, mark = ticket.partition(".")
        is_good = _same(mark, self._sign("ticket", self.boot, nonce))
        if not is_good or nonce in self._used or len(self._used) >= MAX_USED:
            return False
        self._used.add(nonce)
        return True

    def cookie(self) -> str:
        """A new value of the cookie."""
        nonce = secrets.token_urlsafe(12)
        return f"{nonce}.{self._sign('cookie', nonce)}"

    def knows(self, cookie: str) -> bool:
        """Whether this is a cookie of ours."""
        nonce, _, mark = cookie.partition(".")
        return _same(mark, self._sign("cookie", nonce))

    def opens(self, password: str) -> bool:
        """Whether this is the password."""
        digest = hashlib.sha256(password.encode("utf-8", "surrogatepass")).digest()
        return hmac.compare_digest(digest, self._password) and self.needs_password

    def _sign(self, *parts: str) -> str:
        text = "\0".join(parts).encode("utf-8", "surrogatepass")
        return hmac.new(self._secret, text, hashlib.sha256).hexdigest()


def _same(one: str, other: str) -> bool:
    return hmac.compare_digest(one.encode("utf-8", "surrogatepass"), other.encode())
