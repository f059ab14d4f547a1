"""A local mail catcher: it takes every mail and keeps each as a file that a person (and a check) can read."""

import asyncio
import re
from dataclasses import dataclass
from datetime import UTC, datetime
from email import message_from_bytes, policy
from email.message import EmailMessage
from email.parser import BytesHeaderParser
from itertools import count
from pathlib import Path
from typing import Any, Self

from aiosmtpd.smtp import SMTP

from backstay.dev.ports import HOST

MAX_MAIL = 1 << 20  # bytes


@dataclass(frozen=True, slots=True)
class Mail:
    """One kept mail."""

    message_id: str
    to: str
    subject: str
    at: datetime
    file: Path


class Mailbox:
    """The catcher on a loopback port (0: a free one, known after entering), on the event loop that enters it."""

    def __init__(self, folder: Path, port: int = 0) -> None:
        self.folder, self.port = folder, port
        self._numbers = count(1 + len(list(folder.glob("*.eml"))))
        self._server: asyncio.Server | None = None

    @property
    def url(self) -> str:
        """For SMTP_URL."""
        return f"smtp://{HOST}:{self.port}"

    async def __aenter__(self) -> Self:
        self.folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        self._server = await asyncio.get_running_loop().create_server(self._protocol, HOST, self.port)
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(self, *_: object) -> None:
        if self._server is not None:
            self._server.close()
            self._server = None

    def _protocol(self) -> SMTP:
        return SMTP(self, data_size_limit=MAX_MAIL, hostname="localhost", ident="mailbox", enable_SMTPUTF8=True)

    async def handle_DATA(self, _server: object, _session: object, envelope: Any) -> str:  # noqa: N802
        """Called by aiosmtpd for each mail; the answer acknowledges it."""
        self.keep(envelope.original_content)
        return "250 OK"

    def keep(self, content: bytes) -> Path:
        """Store one mail, whole or not at all; the name has its number, addressee and subject."""
        mail = BytesHeaderParser(policy=policy.default).parsebytes(content)
        words = re.sub(r"[^a-z0-9@.]+", "-", f"{mail['to']} {mail['subject']}".lower()).strip("-")[:80]
        file = self.folder / f"{next(self._numbers):06d}-{words}.eml"
        half = file.with_suffix(".new")
        half.write_bytes(content)
        return half.rename(file)


def kept(folder: Path, *, to: str | None = None) -> list[Mail]:
    """Return the mails in a mailbox's folder, oldest first, those to one address if it is given."""
    wanted = f"*{to.lower()}*.eml" if to else "*.eml"
    mails = (_read(file) for file in sorted(folder.glob(wanted)))
    return [mail for mail in mails if to is None or mail.to.lower() == to.lower()]


def _read(file: Path) -> Mail:
    mail = message_from_bytes(file.read_bytes(), policy=policy.default)
    assert isinstance(mail, EmailMessage)
    address = mail["to"].addresses[0].addr_spec if mail["to"] and mail["to"].addresses else ""
    at = datetime.fromtimestamp(file.stat().st_mtime, UTC)
    return Mail(str(mail["message-id"] or "").strip().strip("<>"), address, str(mail["subject"] or ""), at, file)
