"""The local mail catcher keeps what it acknowledged, where a person can read it."""

from email.message import EmailMessage
from pathlib import Path

from aiosmtplib import send

from backstay.dev.mail_catcher import Mailbox, kept


def mail(to: str, subject: str, number: int) -> EmailMessage:
    message = EmailMessage()
    message["From"], message["To"], message["Subject"] = "shop@example.com", to, subject
    message["Message-ID"] = f"<{number}@shop.example>"
    message.set_content("Thank you.")
    return message


async def test_mails_are_kept_in_their_order(tmp_path: Path) -> None:
    """Each is a file of its own, found by its addressee, with its Message-ID."""
    async with Mailbox(tmp_path) as mailbox:
        for number, to in enumerate(("ada@example.com", "bob@example.com", "ada@example.com")):
            await send(mail(to, f"Order {number}", number), hostname="127.0.0.1", port=mailbox.port, timeout=10)

    assert [each.subject for each in kept(tmp_path, to="ada@example.com")] == ["Order 0", "Order 2"]
    assert [each.message_id for each in kept(tmp_path)] == ["0@shop.example", "1@shop.example", "2@shop.example"]
    assert "Thank you." in kept(tmp_path)[0].file.read_text()


def test_a_subject_is_no_path(tmp_path: Path) -> None:
    """Whatever a subject says, the file stays in the mailbox."""
    file = Mailbox(tmp_path, 0).keep(bytes(mail("a@example.com", "../../etc/passwd", 1)))

    assert file.parent == tmp_path
    assert file.name.startswith("000001-a@example.com")


def test_numbers_go_on_after_a_restart(tmp_path: Path) -> None:
    """A new catcher on old mails overwrites none."""
    for _ in range(2):
        Mailbox(tmp_path, 0).keep(bytes(mail("a@example.com", "hello", 1)))

    assert len(kept(tmp_path)) == 2
