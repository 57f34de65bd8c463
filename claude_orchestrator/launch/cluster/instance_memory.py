"""How much memory an instance takes: the most that one has taken, in this run or in the last ones. Pure."""

from __future__ import annotations

import json
from collections.abc import Iterable

from token_budget.named_tuples import NamedTuple

MIB = 1024 * 1024
ASSUMED_BYTES = 400 * MIB  # before any was measured: an idle claude takes about 310 MiB, and its tools take some more
LEAST_BYTES, MOST_BYTES = MIB, 1024 * 1024 * MIB
RUNS = 10  # that count: one unusual run is forgotten some day
KEY = "largest_instance_bytes"


class InstanceMemory:
    """What one instance is expected to take. `earlier` has the largest of each of the last runs, oldest first."""

    def __init__(self, earlier: Iterable[int] = ()) -> None:
        self._earlier = tuple(earlier)[-RUNS:]
        self._largest = 0  # of this run

    @property
    def expected_bytes(self) -> int:
        """The most that an instance has taken; what is assumed if none was measured."""
        return max(self._largest, *self._earlier, 0) or ASSUMED_BYTES

    @property
    def text(self) -> str:
        """The same for people."""
        return f"{-(-self.expected_bytes // MIB)} MiB {'measured' if self._largest or self._earlier else 'assumed'}"

    def saw(self, taken: Iterable[int]) -> bool:
        """Instances take so much now; returns whether more is expected of each than before."""
        before = self.expected_bytes
        self._largest = max(self._largest, *taken, 0)
        return self.expected_bytes > before

    def remembered(self) -> bytes | None:
        """What a file should have for the next run; None if this one has measured nothing."""
        if not self._largest:
            return None
        return json.dumps({KEY: [*self._earlier, self._largest][-RUNS:]}).encode()


def recalled(text: str) -> tuple[int, ...]:
    """What a file records of the last runs. A damaged file counts as empty."""
    try:
        data = json.loads(text)
    except ValueError:
        return ()
    found = data.get(KEY) if isinstance(data, dict) else None
    values = found if isinstance(found, list) else []
    return tuple(value for value in values if type(value) is int and LEAST_BYTES <= value <= MOST_BYTES)


class Room(NamedTuple):
    """What limits how many instances a node takes: its cores, and the memory that they may have together."""

    cores: int
    memory_bytes: int
