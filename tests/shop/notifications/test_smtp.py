"""The SMTP mailer against a real SMTP server."""

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any
from uuid import uuid4

import pytest
from aiosmtpd.smtp import SMTP

from backstay.testing import eventually
from shop.notifications.providers import Mail, MailDeferred, MailRefused, MailUnavailable, SmtpMailer


@dataclass
class Server:
    """A mail server that refuses some recipients, keeps what it takes, and can be stopped and started."""

    taken: list[Any] = field(default_factory=list)
    connections: list[SMTP] = field(default_factory=list)
    port: int = 0
    _server: asyncio.Server | None = None

    async def start(self) -> None:
        self._server = await asyncio.get_running_loop().create_server(self._protocol, "127.0.0.1", self.port)
        self.port = self._server.sockets[0].getsockname()[1]

    async def stop(self) -> None:
        if self._server is not None:
            self._server.close()
        self.drop()
        await eventually(lambda: all(connection.transport is None for connection in self.connections))

    def drop(self) -> None:
        """Close every connection, as a server does with idle ones."""
        for connection in self.connections:
            if connection.transport is not None:
                connection.transport.close()

    def _protocol(self) -> SMTP:
        self.connections.append(SMTP(self, hostname="localhost"))
        return self.connections[-1]

    async def handle_RCPT(self, server: Any, session: Any, envelope: Any, address: str, options: Any) -> str:
        if address.startswith("no"):
            return "550 no such user"
        if address.startswith("later"):
            return "450 try again"
        envelope.rcpt_tos.append(address)
        return "250 OK"

    async def handle_DATA(self, server: Any, session: Any, envelope: Any) -> str:
        if b"too-big" in envelope.original_content:
            return "552 too big"
        self.taken.append(envelope)
        return "250 OK"


@pytest.fixture
async def server() -> AsyncIterator[Server]:
    made = Server()
    await made.start()
    yield made
    await made.stop()


@pytest.fixture
async def mailer(server: Server) -> AsyncIterator[SmtpMailer]:
    async with SmtpMailer("127.0.0.1", server.port, sender="shop@backstay.example", timeout=5.0) as made:
        yield made


def mail(to: str = "ada@example.org", subject: str = "Hello") -> Mail:
    return Mail(id=uuid4(), to=to, subject=subject, text="text", html="<p>", at=datetime(2026, 1, 1, tzinfo=UTC))


async def test_many_messages_share_a_few_connections(server: Server, mailer: SmtpMailer):
    """Connections stay open between messages; all arrive, each under its own id."""
    mails = [mail() for _ in range(30)]
    await asyncio.gather(*(mailer.send(each) for each in mails))

    assert len(server.connections) <= 4
    wanted = {f"<{each.id}@backstay.example>".encode() for each in mails}
    assert {line for got in server.taken for line in wanted if line in got.original_content} == wanted
    assert {got.mail_from for got in server.taken} == {"shop@backstay.example"}


@pytest.mark.parametrize(
    ("each", "error", "said"),
    [
        (mail("nobody@example.org"), MailRefused, "550 no such user"),
        (mail("later@example.org"), MailDeferred, "450 try again"),
        (mail(subject="too-big"), MailRefused, "552 too big"),
    ],
)
async def test_a_refusal_is_told_from_a_delay(
    server: Server, mailer: SmtpMailer, each: Mail, error: type[Exception], said: str
):
    """5xx for the recipient or the message is for good, 4xx is not; the connection serves the next message."""
    with pytest.raises(error, match=said):
        await mailer.send(each)
    await mailer.send(mail())

    assert len(server.taken) == 1
    assert len(server.connections) == 1


async def test_a_connection_that_the_server_closed_is_replaced(server: Server, mailer: SmtpMailer):
    """An idle connection may be gone by the next message; nobody notices."""
    await mailer.send(mail())
    server.drop()
    await mailer.send(mail())

    assert len(server.taken) == 2


async def test_without_a_server_mail_is_unavailable_and_then_works_again(server: Server, mailer: SmtpMailer):
    """Away is away, with the address in the words; back is back, without a new mailer."""
    await mailer.send(mail())
    await server.stop()
    with pytest.raises(MailUnavailable, match=f"127.0.0.1:{server.port}"):
        await mailer.send(mail())

    await server.start()
    await mailer.send(mail())

    assert len(server.taken) == 2


async def test_a_server_that_says_nothing_is_unavailable():
    """A connection that is accepted and then silent ends in time."""

    hung_up = asyncio.Event()

    async def silent(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read()
        writer.close()
        await writer.wait_closed()
        hung_up.set()

    server = await asyncio.start_server(silent, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    async with SmtpMailer("127.0.0.1", port, sender="shop@backstay.example", timeout=0.2) as mailer:
        with pytest.raises(MailUnavailable):
            await mailer.send(mail())
    await hung_up.wait()
    server.close()
    await server.wait_closed()
