"""What tests of services built on Backstay need: a clock to move by hand, waiting, and arming of faults."""

from backstay.testing.clock import FakeClock
from backstay.testing.faults import FaultFile, armed
from backstay.testing.waiting import eventually

__all__ = ["FakeClock", "FaultFile", "armed", "eventually"]
