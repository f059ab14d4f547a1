"""`make up` on a Kafka that takes TLS with SASL and nothing else."""

import asyncio
import os
import signal
import sys
from pathlib import Path

import pytest
from tests.secured_kafka import PASSWORD, Secured

pytestmark = [pytest.mark.kafka, pytest.mark.apache, pytest.mark.xdist_group("kafka-tls"), pytest.mark.timeout(240)]

READY, STOPPED = 150.0, 60.0  # seconds


async def test_make_up_runs_on_it(secured: Secured, tmp_path: Path) -> None:
    """`make up KAFKA=host:port` with these variables: topics, nine services, the demonstration, until Ctrl-C."""
    home = tmp_path / "home"
    ours = {"BACKSTAY_HOME": str(home), "GATEWAY_PORT": "0", "DISCOVERY_PORT": "0"}
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "lab", "up"),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
        env={**os.environ, **secured.environ(), **ours},
    )
    assert process.stdout is not None
    shown: list[str] = []
    try:
        async with asyncio.timeout(READY):
            while not shown or "Ctrl-C stops everything" not in shown[-1]:
                line = await process.stdout.readline()
                assert line, "".join(shown)
                shown.append(line.decode())
        process.send_signal(signal.SIGINT)
        rest, _ = await asyncio.wait_for(process.communicate(), STOPPED)
    finally:
        if process.returncode is None:
            process.send_signal(signal.SIGINT)
            await process.communicate()
    assert process.returncode == 0
    everything = "".join(shown) + rest.decode() + "".join(log.read_text() for log in (home / "logs").glob("*.log"))
    assert "order confirmed" in everything
    assert PASSWORD not in everything
