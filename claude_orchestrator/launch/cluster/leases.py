"""The lease of a node: how long its instances may run without contact with the driver. Pure.

The node issues tokens, which are times of its own clock. The driver returns the latest token with each renewal. A
renewal extends the lease to its token plus the lease's length, so a delay on the way does not lengthen the lease. The
driver received a token after the node issued it. So the node's lease ends, by the driver's clock, at the latest one
length after the driver received the last token that it returned.
"""

from __future__ import annotations

RENEWALS = 5  # in the length of a lease
DRIFT = 0.01  # by how much two clocks may differ in their speed: real ones differ by less than 0.0005
END_S = 2.0  # that the processes of a node need to end, once their lease has ended


class NodeLease:
    """The node's side. Times are seconds of the node's clock."""

    def __init__(self, length_s: float, now_s: float) -> None:
        self.length_s = length_s
        self.ends_at_s = now_s + length_s

    def renew(self, token_s: float) -> float:
        """Take a token that the driver has returned; returns when the lease ends. An old token has no effect."""
        self.ends_at_s = max(self.ends_at_s, token_s + self.length_s)
        return self.ends_at_s


class DriverLease:
    """The driver's side. Times are seconds of the driver's clock, and tokens are the node's.

    `token_s` came with the answer to the request that began the lease, at `now_s`.
    """

    def __init__(self, length_s: float, token_s: float, now_s: float) -> None:
        self.length_s = length_s
        self._latest = self._returned = token_s, now_s

    @property
    def every_s(self) -> float:
        """The time between two renewals."""
        return self.length_s / RENEWALS

    def answered(self, token_s: float, now_s: float) -> None:
        """The node has answered a renewal with a token."""
        if token_s > self._latest[0]:
            self._latest = token_s, now_s

    def renewal(self) -> float:
        """The token to return now."""
        self._returned = self._latest
        return self._latest[0]

    def has_ended(self, now_s: float) -> bool:
        """Whether the lease may have ended: no token has come for its length."""
        return now_s >= self._latest[1] + self.length_s

    @property
    def surely_ended_at_s(self) -> float:
        """The time from which nothing can run on the node, if no further renewal is sent."""
        return self._returned[1] + self.length_s * (1 + DRIFT) + END_S
