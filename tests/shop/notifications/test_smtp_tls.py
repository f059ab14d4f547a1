"""Mail by TLS, from the first byte or by STARTTLS, against a real SMTP server."""

import asyncio
import ssl
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
from aiosmtpd.smtp import SMTP, AuthResult, LoginPassword
from tests.certificates import Certificates, make_certificates

from backstay.errors import ConfigError
from shop.notifications.main import settings
from shop.notifications.providers import Mail, MailUnavailable, mailer

SENDER = "shop@backstay.example"


class Kept:
    """What a server took, and whether by TLS, and the passwords that it saw."""

    def __init__(self) -> None:
        self.mails: list[bool] = []
        self.passwords: list[bytes] = []

    async def handle_DATA(self, server: Any, session: Any, envelope: Any) -> str:
        self.mails.append(session.ssl is not None or server.transport.get_extra_info("sslcontext") is not None)
        return "250 OK"

    def check(self, server: Any, session: Any, envelope: Any, mechanism: str, data: LoginPassword) -> AuthResult:
        self.passwords.append(data.password)
        return AuthResult(success=data.password == b"hunter2")


Serving = Callable[..., AbstractAsyncContextManager[tuple[Kept, int]]]


@pytest.fixture
def certificates(tmp_path: Path) -> Certificates:
    return make_certificates(tmp_path)


@pytest.fixture
def serving(certificates: Certificates) -> Serving:
    """`async with serving(implicit=…, offered=…) as (kept, port)` runs a server."""
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(certificates.certificate, certificates.key)

    @asynccontextmanager
    async def run(*, implicit: bool = False, offered: bool = True) -> AsyncIterator[tuple[Kept, int]]:
        kept = Kept()

        def protocol() -> SMTP:
            return SMTP(
                kept,
                hostname="localhost",
                tls_context=context if offered and not implicit else None,
                authenticator=kept.check,
                auth_require_tls=False,
            )

        loop = asyncio.get_running_loop()
        server = await loop.create_server(protocol, "127.0.0.1", 0, ssl=context if implicit else None)
        async with server:
            yield kept, server.sockets[0].getsockname()[1]

    return run


async def send(url: str, **options: str) -> None:
    sent = Mail(id=uuid4(), to="ada@example.org", subject="Hello", text="t", html="<p>", at=datetime.now(UTC))
    async with mailer(url, sender=SENDER, timeout=10.0, **options) as made:
        await made.send(sent)


@pytest.mark.parametrize(
    ("implicit", "url", "tls"),
    [
        (True, "smtps://shop:hunter2@127.0.0.1:{}", "auto"),
        (False, "smtp://shop:hunter2@127.0.0.1:{}", "auto"),
        (False, "smtp://127.0.0.1:{}", "auto"),
        (False, "smtp://127.0.0.1:{}", "starttls"),
    ],
)
async def test_mail_and_password_go_by_tls(
    serving: Serving, certificates: Certificates, implicit: bool, url: str, tls: str
) -> None:
    """To a server that an authority of ours vouches for."""
    async with serving(implicit=implicit) as (kept, port):
        await send(url.format(port), tls=tls, ca=str(certificates.ca))

    assert kept.mails == [True]
    assert kept.passwords == [b"hunter2"] * ("@" in url)


@pytest.mark.parametrize("scheme", ["smtps", "smtp"])
@pytest.mark.parametrize("ca", ["", "other_ca"])
async def test_a_server_that_nobody_vouches_for_gets_nothing(
    serving: Serving, certificates: Certificates, scheme: str, ca: str
) -> None:
    """Neither the mail nor the password."""
    named = str(getattr(certificates, ca)) if ca else ""
    async with serving(implicit=scheme == "smtps") as (kept, port):
        with pytest.raises(MailUnavailable, match="certificate") as refused:
            await send(f"{scheme}://shop:hunter2@127.0.0.1:{port}", ca=named)

    assert (kept.mails, kept.passwords) == ([], [])
    assert "hunter2" not in str(refused.value)


@pytest.mark.parametrize(
    ("url", "tls"), [("smtp://shop:hunter2@127.0.0.1:{}", "auto"), ("smtp://127.0.0.1:{}", "starttls")]
)
async def test_who_takes_the_offer_of_tls_away_gets_nothing(serving: Serving, url: str, tls: str) -> None:
    """A password, and what is demanded by setting, never fall back to plain."""
    async with serving(offered=False) as (kept, port):
        with pytest.raises(MailUnavailable):
            await send(url.format(port), tls=tls)

    assert (kept.mails, kept.passwords) == ([], [])


async def test_plain_is_said_in_words(serving: Serving) -> None:
    """`off`, or no password and no offer."""
    async with serving(offered=False) as (kept, port):
        await send(f"smtp://shop:hunter2@127.0.0.1:{port}", tls="off")
        await send(f"smtp://127.0.0.1:{port}")

    assert kept.mails == [False, False]


@pytest.mark.parametrize(
    ("told", "reason"),
    [
        ({"SMTP_URL": "smtps://mail", "SMTP_TLS": "off"}, "smtps:// begins with TLS"),
        ({"SMTP_URL": "smtp://mail", "SMTP_TLS": "always"}, "SMTP_TLS='always': one of auto, starttls, off"),
        ({"SMTP_URL": "smtp://mail", "SMTP_CA": "/nowhere"}, "SMTP_CA='/nowhere': is no file"),
        ({"SMTP_URL": "smtp://mail", "SMTP_TLS": "off", "SMTP_CA": "/etc/hostname"}, "has no effect without TLS"),
        ({"SMTP_CA": "/etc/hostname"}, "has no effect without TLS"),
    ],
)
def test_what_contradicts_itself_is_refused(told: dict[str, str], reason: str) -> None:
    """When notifications starts."""
    with pytest.raises(ConfigError, match=reason):
        settings(told)
