"""`make chaos-payments`: the checkout while payments is slow, failing, dead and flapping."""

import asyncio
import os
import sys

from backstay.dev.screen import Screen
from lab.experiments.payments_outage import Plan, drill
from lab.system.options import Options

if __name__ == "__main__":
    plan = Plan(
        rate=float(os.environ.get("RATE") or 200),
        seconds=float(os.environ.get("SECONDS") or 60),
        faults=tuple((os.environ.get("ONLY") or "").split()),
    )
    sys.exit(asyncio.run(drill(Options.read(os.environ), Screen(), plan)))
