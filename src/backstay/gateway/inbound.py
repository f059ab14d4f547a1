"""The client's side of the data plane: the shared inbound connection, with exchanges that proxy."""

import asyncio

from backstay.gateway.exchange import Exchange
from backstay.gateway.forwarding import Peer
from backstay.gateway.plane import Plane
from backstay.gateway.problems import answer_bytes, malformed
from backstay.http.errors import FramingError
from backstay.http.framing import RequestHead
from backstay.http.inbound import InboundConnection
from backstay.http.listener import Listener


class Inbound(InboundConnection):
    """One client connection."""

    __slots__ = ("gateway", "peer")

    peer: Peer

    def __init__(self, gateway: Plane, listener: Listener) -> None:
        super().__init__(listener)
        self.gateway = gateway

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)
        self.peer = self.gateway.peer(self.address)

    def new_exchange(self, head: RequestHead) -> Exchange:
        return Exchange(self, head)

    def refusal(self, error: FramingError) -> bytes:
        refusal = malformed(error.status, error.reason)
        trace_id = self.gateway.refused(self.peer, refusal)
        return answer_bytes(refusal, "", trace_id, keep=False, head_only=False)
