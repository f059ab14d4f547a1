"""The transactions visible to a statement, for comparison with the changes of a slot."""

from dataclasses import dataclass
from typing import Self

_EPOCH = 1 << 32


@dataclass(frozen=True, slots=True)
class Snapshot:
    """`pg_current_snapshot()`: all below `low` was over, nothing from `high` on had begun, `running` was under way."""

    low: int
    high: int
    running: frozenset[int]

    @classmethod
    def parse(cls, text: str) -> Self:
        """From `low:high:running,...`."""
        low, high, running = text.split(":")
        return cls(int(low), int(high), frozenset(map(int, running.split(",") if running else ())))

    def sees(self, xid: int) -> bool:
        """Return whether the committed transaction with these lower 32 bits of its number was visible."""
        behind = (self.high - xid) % _EPOCH
        if not 0 < behind < _EPOCH // 2:
            return False
        full = self.high - behind
        return full < self.low or full not in self.running
