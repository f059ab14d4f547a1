"""Tools for tests of services built on Backstay: a manual clock, waits with a deadline, and arming of faults."""

from backstay.testing.asgi import started
from backstay.testing.clock import FakeClock
from backstay.testing.faults import FaultFile, armed
from backstay.testing.waiting import eventually, scaled

__all__ = ["FakeClock", "FaultFile", "armed", "eventually", "scaled", "started"]
