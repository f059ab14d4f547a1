"""Keys land where Kafka's Java client puts them."""

import pytest

from backstay.messaging.partitioner import murmur2, partition_of


@pytest.mark.parametrize(
    ("key", "expected"),
    [
        (b"21", -973932308),
        (b"foobar", -790332482),
        (b"a-little-bit-long-string", -985981536),
        (b"a-little-bit-longer-string", -1486304829),
        (b"lkjh234lh9fiuh90y23oiuhsafujhadof229phr9h19h89h8", -58897971),
        (b"abc", 479470107),
    ],
)
def test_murmur2_equals_javas(key: bytes, expected: int) -> None:
    """The vectors of Kafka's own UtilsTest."""
    assert expected & 0xFFFFFFFF == murmur2(key)


def test_partition_is_in_range() -> None:
    """Every key has a partition of the topic."""
    assert {partition_of(str(n).encode(), 6) for n in range(200)} == set(range(6))
