"""An assignment is answered whatever the broker says meanwhile, or the member would be stuck for ever."""

import asyncio
from typing import Any

import pytest
from confluent_kafka import KafkaError, KafkaException, TopicPartition

from backstay.messaging.kafka.session import Session, SessionLost
from backstay.messaging.kafka.settings import Settings
from backstay.messaging.kafka.state import State


class Client:
    """A client whose coordinator is away."""

    def __init__(self) -> None:
        self.assigned: list[list[Any]] = []
        self.asked = 0

    def committed(self, places: list[Any], timeout: float) -> list[Any]:
        self.asked += 1
        raise KafkaException(KafkaError(KafkaError._TIMED_OUT))

    def incremental_assign(self, places: list[Any]) -> None:
        self.assigned.append(places)

    assign = incremental_assign

    def poll(self, _timeout: float) -> None:
        return None

    def close(self) -> None:
        self.closing(self, [TopicPartition("orders", 0)])


@pytest.fixture
async def session() -> Session:
    settings = Settings("127.0.0.1:1", "apache", "test")
    loop = asyncio.get_running_loop()
    return Session(settings, "g", ["orders"], object(), State(), loop, started=set(), watch_end=False)  # type: ignore[arg-type]


async def test_an_assignment_without_offsets_ends_the_session(session: Session) -> None:
    """The group is told that nothing was taken, and a new client takes this one's place."""
    client = Client()
    session._on_assign(client, [TopicPartition("orders", 0)])

    assert client.assigned == [[]]
    with pytest.raises(SessionLost):
        session._turn()


async def test_whoever_leaves_takes_nothing_and_asks_nobody(session: Session) -> None:
    """While it closes, the client may be given partitions: answered at once, so that it comes to its end."""
    client = Client()
    client.closing = session._on_assign
    session._client = client
    session._close()

    assert client.assigned == [[]]
    assert client.asked == 0
