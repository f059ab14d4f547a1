"""Settings of notifications."""

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

from msgspec import Meta

from backstay.service import Address, Seconds
from shop.settings import ShopSettings

_SERVER = re.compile(r"smtps?://[^/\s]+|null:")
_SENDER = re.compile(r"[!-?A-~]+@[!-?A-~]+")


def tls_problems(url: str, tls: str, ca: str) -> list[str]:
    """Return the contradictions between the settings of the mail server, a sentence each."""
    problems = []
    if url.startswith("smtps:") and tls != "auto":
        problems.append(f"SMTP_TLS={tls!r}: smtps:// begins with TLS; leave SMTP_TLS out, or use smtp://")
    if ca and (tls == "off" or url.startswith("null:")):
        problems.append(f"SMTP_CA={ca!r}: has no effect without TLS")
    elif ca and not Path(ca).is_file():
        problems.append(f"SMTP_CA={ca!r}: is no file")
    return problems


@dataclass(frozen=True, kw_only=True)
class Settings(ShopSettings):
    """Settings of notifications."""

    database_connections: Annotated[int, Meta(ge=2)] = 6
    """Connections to the database at most."""
    smtp_url: Address = Address("null:")  # noqa: RUF009 - an immutable string
    """`smtp://[user:password@]host[:port]`, `smtps://…`, or `null:`, which takes every message and forgets it."""
    smtp_tls: Literal["auto", "starttls", "off"] = "auto"
    """`starttls`: not without it; `off`: never; `auto`: always with `smtps://`, not without STARTTLS where a password
    is sent, else where the server offers it. Certificates are always verified."""
    smtp_ca: str = ""
    """File with the certificates of authorities to be trusted (PEM); the system's by default."""
    mail_from: str = "shop@backstay.example"
    """The sender's address; its domain ends every Message-ID."""
    smtp_wait_open: Seconds = 5.0
    """How long the mail server is left alone once too many messages failed."""
    send_interval: Seconds = 0.25
    """Between two looks for messages that are due."""

    def problems(self) -> list[str]:
        problems = super().problems() + tls_problems(self.smtp_url, self.smtp_tls, self.smtp_ca)
        if not _SERVER.fullmatch(self.smtp_url):
            problems.append(
                f"SMTP_URL={self.smtp_url!r}: must be smtp://[user:password@]host[:port], smtps://… or null:"
            )
        if not _SENDER.fullmatch(self.mail_from):
            problems.append(f"MAIL_FROM={self.mail_from!r}: must be one plain address, name@domain")
        return problems
