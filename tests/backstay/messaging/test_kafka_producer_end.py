"""What is left of a Kafka producer that nobody uses any more."""

import gc

import psutil
import pytest

from backstay.messaging.kafka import producer
from backstay.messaging.kafka.producer import KafkaProducer
from backstay.messaging.kafka.settings import Settings


async def test_nothing_stays_open(monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither threads nor sockets, also when somebody still knows it and no garbage is collected."""
    monkeypatch.setattr(producer, "WARM_TIMEOUT", 0.05)
    config = Settings("127.0.0.1:1", "apache", "test").producer()
    kept, counts = [], []
    gc.disable()
    try:
        for _ in range(4):
            async with KafkaProducer(config) as one:
                kept.append(one)
            counts.append(psutil.Process().num_fds())
    finally:
        gc.enable()

    assert counts == [counts[0]] * 4
