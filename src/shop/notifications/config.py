"""What notifications can be told from outside."""

from dataclasses import dataclass

from backstay.service import Address, Seconds, ServiceSettings


@dataclass(frozen=True, kw_only=True)
class Settings(ServiceSettings):
    """Where mail goes, as whom, and how often is looked for some."""

    smtp_url: Address = Address("null:")  # noqa: RUF009 - an immutable string
    """`smtp://[user:password@]host[:port]`, `smtps://…`, or `null:`, which takes every message and forgets it."""
    mail_from: str = "shop@backstay.example"
    """The sender's address; its domain ends every Message-ID."""
    send_interval: Seconds = 0.25
    """Between two looks for messages that are due."""
