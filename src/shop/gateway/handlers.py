"""The stream of ended sessions, from auth's events."""

import logging
from collections.abc import AsyncIterator, Callable
from datetime import datetime

import msgspec

from backstay.gateway import RevocationStream
from backstay.messaging import Broker, event_spec
from backstay.messaging.broker import Tail
from shop.contracts.users import SessionRevoked

log = logging.getLogger("shop.gateway.handlers")
_spec = event_spec(SessionRevoked)
_decoder = msgspec.json.Decoder(SessionRevoked)


class EndedSessions:
    """`session.revoked` of auth's topic as (session id, until when). Everything else there is passed over."""

    def __init__(self, tail: Tail) -> None:
        self._tail = tail

    @property
    def problem(self) -> str | None:
        """Why revocations may not arrive; None if all is well."""
        return self._tail.problem

    async def __aiter__(self) -> AsyncIterator[tuple[str, float]]:
        async for record in self._tail:
            if dict(record.headers).get("ce_type") != _spec.type.encode() or record.value is None:
                continue
            try:
                event = _decoder.decode(record.value)
            except msgspec.MsgspecError as error:
                log.error("gateway.unreadable-revocation offset=%s error=%s", record.offset, error)
                continue
            yield str(event.sid), event.until.timestamp()

    async def aclose(self) -> None:
        """End the stream."""
        await self._tail.aclose()


def ended_sessions(broker: Broker) -> Callable[[datetime], RevocationStream]:
    """Opens the stream from a moment on."""
    return lambda since: EndedSessions(broker.tail(_spec.topic, since))
