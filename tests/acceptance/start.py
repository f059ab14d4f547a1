"""Run a whole system for acceptance tests: what `make up DEMO=no` runs, with faults to arm and less waiting.

Arguments: home, broker, port that the broker listens on behind the test's proxy, port of that proxy, and `seeded` for a
catalog with stock or `as-left` for what the home holds.
"""

import asyncio
import sys
from pathlib import Path

from backstay.dev.stopping import Stopped, until_stopped
from backstay.dev.web import Web
from lab.system import seed
from lab.system.context import Stage, in_process
from lab.system.options import Options
from lab.system.system import System

SETTINGS = {
    "FIRST_CHECK": "1",
    "LAST_CHECK": "2",
    "RECONCILE_INTERVAL": "0.25",
    "COMPENSATE_INTERVAL": "0.25",
    "PAYMENT_WAIT_OPEN": "1",
    "STALE_AFTER": "2",
    "STALE_INTERVAL": "0.25",
    "SANDBOX_SLOW": "2.5",
}
"""The waits of orders and payments, cut to what a test can sit through; limits stay as they are."""

PLENTIFUL = ("NW-001", "NW-002", "NW-003")
PLENTY = 100_000  # units, so that no test takes another's


async def live(system: System, *, seeded: bool) -> None:
    async with system, Web(system.running.gateway) as web:
        if seeded:
            await stock_up(in_process(system, web))
        print("up", flush=True)
        raise await system.supervisor.failure


async def stock_up(stage: Stage) -> None:
    await seed.seed(stage)
    admin = stage.admin()
    for sku in PLENTIFUL:
        (await admin.ask("PUT", f"/api/v1/stock/{sku}", {"on_hand": PLENTY})).expect(200)


async def main(home: Path, kafka: str, inside: int, outside: int, *, seeded: bool) -> None:
    options = Options(
        home=home,
        kafka=kafka,
        kafka_proxy=(inside, outside),
        gateway_port=0,
        discovery_port=0,
        faults=home / "faults",
        settings=SETTINGS,
        restart_delay=0.5,
    )
    system = System(options)
    try:
        await until_stopped(live(system, seeded=seeded), at_once=system.kill, tell=print)
    except Stopped:
        print("down", flush=True)


home, broker, inside, outside, state = sys.argv[1:]
asyncio.run(main(Path(home), broker, int(inside), int(outside), seeded=state == "seeded"))
