"""The load client of bench_checkout: prepares once, then each line of JSON in is a run, and a line out its report.

python benchmarks/checkout/load_client.py HOME
"""

import asyncio
import json
import os
import sys
from pathlib import Path

import uvloop

from backstay.dev.home import Home
from backstay.dev.screen import Screen
from backstay.dev.web import Web
from lab.load.command import report, stocked, visit
from lab.load.run import Measured, closed, open_loop
from lab.load.scenario import ORDERS_ONLY, Scenario
from lab.system.context import remote

CUSTOMERS = 64


async def main(folder: Path) -> None:
    home = Home(folder)
    running = home.running()
    assert running is not None, f"nothing runs on {folder}"
    async with Web(running.gateway) as web:
        stage = remote(home, running, Screen(), web)
        skus, visitors = await stocked(stage), await visit(stage, CUSTOMERS)
        print("ready", flush=True)
        while line := await asyncio.to_thread(sys.stdin.readline):
            await run(json.loads(line), Scenario(running.gateways, visitors, skus, mix=ORDERS_ONLY, connections=1024))


async def run(wanted: dict, scenario: Scenario) -> None:
    before, measured = cpu(), Measured()
    if wanted["rate"]:
        await open_loop(scenario.act, **wanted, measured=measured)
    else:
        await closed(scenario.act, clients=wanted["clients"], seconds=wanted["seconds"], measured=measured)
    scenario.close()
    print(json.dumps({**report(measured), "cpu": cpu() - before}), flush=True)


def cpu() -> float:
    usage = os.times()
    return usage.user + usage.system


if __name__ == "__main__":
    uvloop.run(main(Path(sys.argv[1])))
