"""What parts count, in the form Prometheus reads."""

from backstay.messaging import MemoryBroker
from backstay.outbox import MemoryStore, Relay
from backstay.telemetry.histogram import Histogram
from backstay.telemetry.metrics import exposition
from backstay.testing import eventually


def test_histogram_counts_by_size() -> None:
    """An observation is counted in the first bucket that holds it, as often as it weighs."""
    histogram = Histogram((1.0, 10.0))
    histogram.observe(1.0)
    histogram.observe(5.0, 3)
    histogram.observe(50.0)
    statistics = histogram.statistics()

    assert (statistics.buckets, statistics.count, statistics.total) == ((1, 3, 1), 5, 66.0)


async def test_a_relay_shows_how_long_events_take() -> None:
    """The time from an event's transaction to its acknowledgement is a histogram, with one observation an event."""
    store, broker = MemoryStore(), MemoryBroker()
    for n in range(30):
        store.add("orders", f"o-{n}", "order.created")
    async with Relay(store, broker, name="one", source="/service/test") as relay:
        await eventually(lambda: not store.rows)
        text = exposition("bar", [], 0, [relay]).decode()
        count = relay.statistics().commit_to_ack.count

    assert count >= 30
    assert f'backstay_relay_commit_to_ack_seconds_bucket{{le="300.0",name="one"}} {count}.0' in text
    assert 'backstay_relay_slot_retained_bytes{name="one",of=""} 0.0' in text
    assert "commit_to_ack_total" not in text
