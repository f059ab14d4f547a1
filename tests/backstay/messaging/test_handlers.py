"""Registration: one handler for a type, and what it may look like."""

from typing import Any

import pytest

from backstay.db import Database
from backstay.errors import ConfigError
from backstay.messaging import SHARED, Consumer, Envelope, Event, Locks, MemoryBroker
from backstay.messaging.handlers import Handlers


class Made(Event, topic="things", type="thing.made", key="key"):
    key: str


class Gone(Event, topic="others", type="thing.gone", key="key"):
    key: str


class Draft(Event, topic="things", key="key"):
    key: str


async def nothing(event: Any, tx: Any) -> None: ...


async def take(tx: Any, keys: list[str]) -> None: ...


async def test_handlers_with_and_without_envelope_are_called_alike() -> None:
    """The third argument is given to those who ask for it."""
    handlers, seen = Handlers(), list[object]()

    class Service:
        async def made(self, event: Made, tx: Any) -> None:
            seen.append((event, tx))

        async def gone(self, event: Gone, tx: Any, envelope: Envelope) -> None:
            seen.append((event, tx, envelope))

    handlers.add(Made, Service().made, None)
    handlers.add(Gone, Service().gone, None)
    for name in (b"thing.made", b"thing.gone"):
        registration = handlers.find(name)
        assert registration is not None
        await registration.call("event", "tx", "envelope")  # type: ignore[arg-type]

    assert seen == [("event", "tx"), ("event", "tx", "envelope")]


def test_topics_follow_from_the_events() -> None:
    """A consumer reads what it has handlers for."""
    handlers = Handlers()
    handlers.add(Made, nothing, None)
    handlers.add(Gone, nothing, SHARED)

    assert handlers.topics() == ["others", "things"]
    assert handlers.find(b"thing.lost") is None


def test_who_may_share_a_transaction() -> None:
    """Only those that declare what they lock, or that they lock nothing."""
    handlers = Handlers()
    handlers.add(Made, nothing, None)
    handlers.add(Gone, nothing, Locks(keys=lambda event: [event.key], take=take))
    made, gone = handlers.find(b"thing.made"), handlers.find(b"thing.gone")
    assert made is not None
    assert gone is not None

    assert (made.may_share, gone.may_share, gone.order) == (False, True, 0)


def consumer() -> Consumer:
    return Consumer("g", db=Database("test"), broker=MemoryBroker())


def test_a_type_has_one_handler() -> None:
    """A second one would be silently ignored: it is refused."""
    one = consumer()
    one.on(Made)(nothing)
    with pytest.raises(ValueError, match=r"'thing\.made' has a handler already"):
        one.on(Made)(nothing)


def test_the_decorator_returns_the_function() -> None:
    """A handler stays callable, and may serve two types."""
    one = consumer()

    assert one.on(Made)(one.on(Gone)(nothing)) is nothing
    assert "['others', 'things']" in repr(one)


@pytest.mark.parametrize("handler", [lambda event, tx: None, print])
def test_a_handler_is_a_coroutine_function(handler: Any) -> None:
    """A plain function is a mistake that is found at once."""
    with pytest.raises(TypeError, match="coroutine function"):
        consumer().on(Made)(handler)


def test_a_handler_takes_a_transaction() -> None:
    """An effect outside of the transaction could not happen once."""

    async def handler(event: Any) -> None: ...

    with pytest.raises(TypeError, match=r"\(event, tx\)"):
        consumer().on(Made)(handler)


def test_abstract_events_are_not_handled() -> None:
    """A class without a type never arrives."""
    with pytest.raises(TypeError, match="abstract"):
        consumer().on(Draft)(nothing)


async def test_a_consumer_needs_broker_and_handlers() -> None:
    """What is missing is said when it is entered."""
    without_broker = Consumer("g", db=Database("test"))
    without_broker.on(Made)(nothing)
    with pytest.raises(ConfigError, match="no broker"):
        await without_broker.__aenter__()
    with pytest.raises(ConfigError, match="no handler for anything"):
        await consumer().__aenter__()


async def test_catching_up_needs_a_handler() -> None:
    """A topic that nobody handles would never be caught up."""
    one = Consumer("g", db=Database("test"), broker=MemoryBroker(), catch_up=["payments"])
    one.on(Made)(nothing)
    with pytest.raises(ConfigError, match="no handler for payments"):
        await one.__aenter__()


@pytest.mark.parametrize("options", [{"attempts": 0}, {"concurrency": 0}])
def test_impossible_numbers_are_refused(options: dict[str, int]) -> None:
    """The message names them."""
    with pytest.raises(ConfigError, match="at least 1 each"):
        Consumer("g", db=Database("test"), **options)


def test_a_consumer_that_does_not_run_says_so() -> None:
    """Nothing is reported as healthy that was not started."""
    statistics = consumer().statistics()

    assert (statistics.healthy, statistics.reason) == (False, "not started")
