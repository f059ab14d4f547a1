"""Mail: the port, SMTP behind it, and the form a message has on the wire.

The bytes are written here rather than by `email.message`, which costs thirty times as much: a fixed set of headers,
refused if they could break out of their line, and two base64 parts.
"""

import asyncio
import ssl
from base64 import b64encode, encodebytes
from dataclasses import dataclass
from datetime import datetime
from email.utils import format_datetime
from types import TracebackType
from typing import Protocol, Self
from urllib.parse import unquote, urlsplit
from uuid import UUID

import aiosmtplib
from jinja2 import Environment, PackageLoader, StrictUndefined, select_autoescape

from backstay.errors import BackstayError
from backstay.resilience import Pipeline, Rejected
from shop.kernel.resilience import Seconds, policies
from shop.notifications.model import Due

CONNECTIONS = 4  # kept open; one is busy with one message at a time
TIMEOUT = 10.0  # seconds for connecting and handing over one message
QUIT_TIMEOUT = 1.0  # seconds to say goodbye
WAIT_OPEN = 5.0  # seconds
SMTP_PORT, SMTPS_PORT = 25, 465
WORD = 42  # bytes of text in one encoded word of a header; RFC 2047 allows 75 characters in all


class MailRefused(BackstayError):
    """A mail server will never take this message."""


class MailDeferred(BackstayError):
    """A mail server doesn't take this message now."""


class MailUnavailable(BackstayError, ConnectionError):
    """No mail server can be reached."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Mail:
    """One message, ready to be written out."""

    id: UUID
    to: str
    subject: str
    text: str
    html: str
    at: datetime


class Mailer(Protocol):
    """Hands messages to a mail server."""

    async def __aenter__(self) -> Self: ...

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...

    async def send(self, mail: Mail) -> None:
        """Returns when a server took the message. Raises MailRefused, MailDeferred or MailUnavailable."""


class Templates:
    """The texts of each kind of message: `<kind>.txt`, whose first line is the subject, and `<kind>.html`."""

    def __init__(self) -> None:
        self._pages = Environment(
            loader=PackageLoader("shop.notifications"),
            autoescape=select_autoescape(["html"]),
            undefined=StrictUndefined,
            auto_reload=False,  # nobody changes them while it runs
            trim_blocks=True,
            lstrip_blocks=True,
        )

    def mail(self, due: Due, *, at: datetime) -> Mail:
        """Return the message about an event."""
        notice = due.notice
        facts = {"name": due.name, "order_id": notice.order_id, **notice.facts}
        subject, _, text = self._pages.get_template(f"{notice.kind}.txt").render(facts).partition("\n")
        html = self._pages.get_template(f"{notice.kind}.html").render(facts)
        return Mail(id=notice.id, to=due.email, subject=subject.strip(), text=text.lstrip("\n"), html=html, at=at)


class SmtpMailer:
    """SMTP over a few connections that stay open. A lost one is replaced when it is needed."""

    def __init__(
        self,
        host: str,
        port: int,
        *,
        sender: str,
        username: str | None = None,
        password: str | None = None,
        tls: bool = False,
        starttls: bool | None = None,
        ca: str = "",
        connections: int = CONNECTIONS,
        timeout: float = TIMEOUT,
    ) -> None:
        """`tls` from the first byte; `starttls` by command: demanded, forbidden, or None where the server offers it."""
        self._host, self._port, self._tls, self._starttls = host, port, tls, starttls
        self._context = ssl.create_default_context(cafile=ca) if ca else None
        self._username, self._password = username, password
        self._sender = sender
        self._timeout = timeout
        self._free = asyncio.Semaphore(connections)
        self._idle: list[aiosmtplib.SMTP] = []

    def __repr__(self) -> str:
        return f"SmtpMailer({self._host}:{self._port}, from {self._sender})"

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await asyncio.gather(*(self._quit(connection) for connection in self._idle))
        self._idle.clear()

    async def send(self, mail: Mail) -> None:
        """Returns when the server took the message. Raises MailRefused, MailDeferred or MailUnavailable."""
        content = wire(mail, self._sender)
        async with self._free:
            try:
                async with asyncio.timeout(self._timeout):
                    await self._hand_over(mail.to, content)
            except aiosmtplib.SMTPRecipientsRefused as error:
                raise _judged(error.recipients[0].code, error.recipients[0].message) from error
            except aiosmtplib.SMTPDataError as error:
                raise _judged(error.code, error.message) from error
            except (aiosmtplib.SMTPException, OSError) as error:
                raise MailUnavailable(f"{self._host}:{self._port}: {type(error).__name__}: {error}") from error

    async def _hand_over(self, to: str, content: bytes) -> None:
        """On a connection that is open, or, if the server has closed that meanwhile, on a new one."""
        if self._idle:
            try:
                return await self._use(self._idle.pop(), to, content)
            except aiosmtplib.SMTPServerDisconnected:
                self._close_idle()
        return await self._use(await self._connected(), to, content)

    async def _use(self, connection: aiosmtplib.SMTP, to: str, content: bytes) -> None:
        reusable = False
        try:
            await connection.sendmail(self._sender, [to], content)
            reusable = True
        except (aiosmtplib.SMTPRecipientsRefused, aiosmtplib.SMTPDataError):
            reusable = connection.is_connected
            raise
        finally:
            if reusable:
                self._idle.append(connection)
            else:
                connection.close()

    async def _connected(self) -> aiosmtplib.SMTP:
        connection = aiosmtplib.SMTP(
            hostname=self._host,
            port=self._port,
            username=self._username,
            password=self._password,
            use_tls=self._tls,
            start_tls=False if self._tls else self._starttls,
            tls_context=self._context,
            local_hostname=_domain(self._sender),
            timeout=self._timeout,
        )
        try:
            await connection.connect()
        except BaseException:
            connection.close()
            raise
        return connection

    async def _quit(self, connection: aiosmtplib.SMTP) -> None:
        try:
            async with asyncio.timeout(QUIT_TIMEOUT):
                await connection.quit()
        except (aiosmtplib.SMTPException, OSError):
            connection.close()

    def _close_idle(self) -> None:
        while self._idle:
            self._idle.pop().close()


class GuardedMailer:
    """A mailer behind policies: a mail server that is down is left alone for a while, and messages wait."""

    def __init__(self, mailer: Mailer, pipeline: Pipeline) -> None:
        self._mailer = mailer
        self.pipeline = pipeline
        self._send = pipeline(mailer.send)

    def __repr__(self) -> str:
        return f"GuardedMailer({self._mailer!r}, {self.pipeline!r})"

    async def __aenter__(self) -> Self:
        await self._mailer.__aenter__()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._mailer.__aexit__(kind, error, trace)

    async def send(self, mail: Mail) -> None:
        """Returns when the server took the message. Raises MailRefused, MailDeferred or MailUnavailable."""
        try:
            await self._send(mail)
        except Rejected as error:
            raise MailUnavailable(str(error)) from error


def guarded(mailer: Mailer, *, wait_open: float = WAIT_OPEN) -> GuardedMailer:
    """Return the mailer behind the policies of `resilience.yaml`; an open breaker probes after `wait_open` seconds."""
    registry = policies({"smtp"}, {"smtp_wait_open": Seconds(wait_open)}, {"MailUnavailable": MailUnavailable})
    return GuardedMailer(mailer, registry.pipeline("smtp"))


class NullMailer:
    """Takes every message and forgets it."""

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        return None

    async def send(self, mail: Mail) -> None:
        """The message is gone, and that is success."""


def mailer(url: str, *, sender: str, tls: str = "auto", ca: str = "", timeout: float = TIMEOUT) -> Mailer:
    """Return the mailer at `smtp://[user:password@]host[:port]`, `smtps://…`, or `null:`. ValueError for anything else.

    tls: `starttls` demands it, `off` forbids it; with `auto` no password is ever sent without TLS. ca: a PEM file.
    """
    parts = urlsplit(url)
    if parts.scheme == "null":
        return NullMailer()
    if parts.scheme not in ("smtp", "smtps") or not parts.hostname:
        raise ValueError("must be smtp://host:port, smtps://host:port or null:")
    implicit = parts.scheme == "smtps"
    automatic = True if parts.username else None
    return SmtpMailer(
        parts.hostname,
        parts.port or (SMTPS_PORT if implicit else SMTP_PORT),
        sender=sender,
        username=unquote(parts.username) if parts.username else None,
        password=unquote(parts.password) if parts.password else None,
        tls=implicit,
        starttls={"starttls": True, "off": False}.get(tls, automatic),
        ca=ca,
        timeout=timeout,
    )


def wire(mail: Mail, sender: str) -> bytes:
    """Return the message as bytes (RFC 5322, MIME). Raises MailRefused if a header can't be written."""
    boundary = f"part-{mail.id.hex}"
    return b"".join(
        (
            _header("From", sender),
            _header("To", mail.to),
            _header("Subject", *encoded(mail.subject)),
            _header("Date", format_datetime(mail.at)),
            _header("Message-ID", f"<{mail.id}@{_domain(sender)}>"),
            _header("Auto-Submitted", "auto-generated"),
            _header("MIME-Version", "1.0"),
            _header("Content-Type", f'multipart/alternative; boundary="{boundary}"'),
            b"\r\n",
            _part(boundary, "plain", mail.text),
            _part(boundary, "html", mail.html),
            f"--{boundary}--\r\n".encode(),
        )
    )


def encoded(text: str) -> list[str]:
    """Text as the lines of a header: as it is if it is ASCII, else in encoded words (RFC 2047)."""
    if text.isascii():
        return [text]
    words: list[bytes] = [b""]
    for character in text:
        piece = character.encode()
        if len(words[-1]) + len(piece) > WORD:
            words.append(b"")
        words[-1] += piece
    return [f"=?utf-8?B?{b64encode(word).decode()}?=" for word in words]


def _header(name: str, *lines: str) -> bytes:
    if not all(line.isascii() and line.isprintable() for line in lines):
        raise MailRefused(f"the message's {name} has a line break or a character that isn't ASCII in it")
    folded = "\r\n ".join(lines)
    return f"{name}: {folded}\r\n".encode("ascii")


def _part(boundary: str, kind: str, content: str) -> bytes:
    head = f"--{boundary}\r\nContent-Type: text/{kind}; charset=utf-8\r\nContent-Transfer-Encoding: base64\r\n\r\n"
    return head.encode() + encodebytes(content.encode()).replace(b"\n", b"\r\n")


def _domain(sender: str) -> str:
    return sender.rpartition("@")[2].rstrip(">")


def _judged(code: int, message: str) -> MailRefused | MailDeferred:
    """5xx is for good, 4xx may go well another time."""
    return (MailRefused if code >= 500 else MailDeferred)(f"{code} {message}")
