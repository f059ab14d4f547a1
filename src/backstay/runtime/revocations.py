"""Sessions that ended, as events of a topic: what a gateway's deny list is fed with."""

import logging
from collections.abc import AsyncIterator, Callable
from datetime import datetime

import msgspec

from backstay.gateway import RevocationStream
from backstay.messaging import Broker
from backstay.messaging.broker import Tail

log = logging.getLogger("backstay.runtime.revocations")


class Revocation(msgspec.Struct):
    """The event's data: tokens of the session `sid` are refused until `until`, when the last of them has expired."""

    sid: str
    until: datetime


_decoder = msgspec.json.Decoder(Revocation)


class RevocationEvents:
    """Events of one type in a topic as (session id, until when). Other events of the topic are passed over."""

    def __init__(self, tail: Tail, event_type: str) -> None:
        self._tail = tail
        self._type = event_type.encode()

    @property
    def problem(self) -> str | None:
        """Why revocations may not arrive; None if all is well."""
        return self._tail.problem

    async def __aiter__(self) -> AsyncIterator[tuple[str, float]]:
        async for record in self._tail:
            if dict(record.headers).get("ce_type") != self._type or record.value is None:
                continue
            try:
                event = _decoder.decode(record.value)
            except msgspec.MsgspecError as error:
                log.error("gateway.revocation_unreadable", extra={"offset": record.offset, "error": str(error)})
                continue
            yield event.sid, event.until.timestamp()

    async def aclose(self) -> None:
        """End the stream."""
        await self._tail.aclose()


def revocation_stream(broker: Broker, topic: str, event_type: str) -> Callable[[datetime], RevocationStream]:
    """Return what opens the stream of a topic's revocations from a moment on."""
    return lambda since: RevocationEvents(broker.tail(topic, since), event_type)


__all__ = ["Revocation", "RevocationEvents", "revocation_stream"]
