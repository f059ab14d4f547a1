"""A relay that reads the log, as a process that can be killed: python wal_relay_process.py NAME DSN KAFKA FLAVOR."""

import asyncio
import sys
from typing import Any

from backstay.db import Database
from backstay.messaging import KafkaBroker
from backstay.outbox import Outbox, WalOptions


async def main(name: str, dsn: str, kafka: str, flavor: Any) -> None:
    """Publish for ever."""
    db = Database(name, dsn=dsn)
    box = Outbox(db)
    wal = WalOptions(retry=0.1, confirm_interval=0.05)
    async with db, box.relay(KafkaBroker(kafka, flavor=flavor), lease=1.0, wal=wal):
        await asyncio.Event().wait()


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
