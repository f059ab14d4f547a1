"""Notifications as a whole: topics in, rows, mails out over SMTP, topic out."""

from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

import pytest

from backstay.dev.mail_catcher import Mailbox, kept
from backstay.dev.ports import free_port
from backstay.errors import ConfigError
from backstay.testing import eventually
from shop.contracts.payments import PaymentRefunded
from shop.contracts.users import UserRegistered
from shop.kernel import Money
from shop.notifications.config import Settings
from shop.notifications.main import build, settings

ADA, AT = UUID(int=1), datetime(2026, 1, 1, tzinfo=UTC)


async def test_events_become_mails_and_mails_become_events(
    database: str, calling: Any, broker: Any, publish: Any, read: Any, tmp_path: Path
):
    """Each event's mail lies in the mailbox under its notification's id, and the topic tells that it was sent."""
    async with Mailbox(tmp_path, free_port()) as mailbox:
        told = Settings(database_url=database, smtp_url=mailbox.url, send_interval=0.05)
        async with calling(build(told), broker):
            await publish(
                UserRegistered(user_id=ADA, email="ada@example.org", name="Ada", at=AT),
                PaymentRefunded(
                    payment_id=uuid4(),
                    order_id=uuid4(),
                    customer_id=ADA,
                    amount=Money.of("36.00"),
                    at=AT,
                    reason="cancelled",
                ),
            )
            await eventually(lambda: len(read("notifications")) == 2)

    mails = kept(tmp_path, to="ada@example.org")
    assert {mail.subject for mail in mails} == {"Welcome to the shop", "You got your money back"}
    ids = {f"{body['notification_id']}@backstay.example" for _, body in read("notifications")}
    assert {mail.message_id for mail in mails} == ids


@pytest.mark.parametrize("url", ["localhost", "http://localhost", "smtp://", "smtp://a b", "localhost:25"])
@pytest.mark.parametrize("sender", ["Shop <shop@backstay.example>", "shop", "shop@x\nBcc: eve@example.org"])
def test_bad_settings_end_the_start(url: str, sender: str):
    """Mistakes in SMTP_URL and MAIL_FROM are reported together, with what is allowed, before anything runs."""
    with pytest.raises(ConfigError) as refused:
        settings({"SMTP_URL": url, "MAIL_FROM": sender})

    assert "SMTP_URL" in str(refused.value)
    assert "MAIL_FROM" in str(refused.value)


def test_a_mail_servers_password_shows_nowhere():
    """Settings may be logged."""
    assert "hunter2" not in repr(settings({"SMTP_URL": "smtp://me:hunter2@mail.example:2525"}))


async def test_it_describes_itself(database: str, calling: Any):
    """OpenAPI knows every route, without a token."""
    async with calling(build(Settings(database_url=database))) as api:
        reply = await api.http.request("127.0.0.1", api.running.port, "GET", "/openapi.json", timeout=5.0)

    assert reply.status == 200
    assert b"/api/v1/notifications" in reply.body
