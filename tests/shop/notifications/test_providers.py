from datetime import UTC, datetime
from email import message_from_bytes
from email.message import Message
from email.policy import default
from uuid import UUID, uuid4

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shop.notifications.model import Due, Kind, Notice
from shop.notifications.providers import Mail, MailRefused, NullMailer, SmtpMailer, Templates, mailer, wire

AT = datetime(2026, 1, 1, 12, tzinfo=UTC)
SENDER = "shop@backstay.example"
ORDER = UUID("01890000-0000-7000-8000-000000000001")


def mail(*, to: str = "ada@example.org", subject: str = "Hello", text: str = "text", html: str = "<p>html</p>") -> Mail:
    return Mail(id=uuid4(), to=to, subject=subject, text=text, html=html, at=AT)


def read(content: bytes) -> Message:
    return message_from_bytes(content, policy=default)


def due(kind: Kind, **facts: object) -> Due:
    notice = Notice(id=uuid4(), event_id=uuid4(), kind=kind, customer_id=uuid4(), order_id=ORDER, facts=facts)
    return Due(notice=notice, email="ada@example.org", name="Ada <b>", attempts=1)


def test_the_wire_form_is_a_mail_that_others_can_read():
    """The standard library finds the same headers and both parts in our bytes."""
    sent = mail(subject="Grüße", text="Zeile\n" * 100, html="<p>ü</p>")

    got = read(wire(sent, SENDER))

    assert got["Message-ID"] == f"<{sent.id}@backstay.example>"
    assert (got["From"], got["To"], got["Subject"]) == (SENDER, sent.to, "Grüße")
    assert got["Date"].datetime == AT
    assert [part.get_content_type() for part in got.iter_parts()] == ["text/plain", "text/html"]
    assert [part.get_content().strip() for part in got.iter_parts()] == [sent.text.strip(), sent.html]


@given(st.text(min_size=1, max_size=300))
def test_any_subject_arrives_or_is_refused(subject: str):
    """Whatever a subject says, it stays one header, on lines that a server takes."""
    try:
        content = wire(mail(subject=subject), SENDER)
    except MailRefused:
        assert not subject.isprintable() or not subject.isascii()
        return

    head = content.partition(b"\r\n\r\n")[0]
    assert [line.partition(b":")[0] for line in head.split(b"\r\n") if not line.startswith(b" ")] == [
        b"From",
        b"To",
        b"Subject",
        b"Date",
        b"Message-ID",
        b"Auto-Submitted",
        b"MIME-Version",
        b"Content-Type",
    ]
    assert all(len(line) <= 998 for line in content.split(b"\r\n"))


@pytest.mark.parametrize("to", ["ada@example.org\r\nBcc: eve@example.org", "ada@example.org\n", "ädä@example.org"])
def test_no_address_breaks_out_of_its_header(to: str):
    """A line break in an address is refused for good, and never another header."""
    with pytest.raises(MailRefused, match="To"):
        wire(mail(to=to), SENDER)


@pytest.mark.parametrize("kind", list(Kind))
def test_every_kind_has_its_templates(kind: Kind):
    """Each kind of message has a subject, a text and a page, and says who and which order."""
    lines = [{"name": "Chai", "quantity": 2, "total": "36.00 USD"}]
    facts = {
        "lines": lines,
        "total": "36.00 USD",
        "reason": "out-of-stock",
        "was_confirmed": True,
        "amount": "36.00 USD",
    }

    rendered = Templates().mail(due(kind, **facts), at=AT)

    assert rendered.subject
    assert "\n" not in rendered.subject
    assert rendered.text.startswith("Hello Ada <b>,")
    assert "Hello Ada &lt;b&gt;," in rendered.html
    if kind not in (Kind.WELCOME, Kind.REGISTERED_AGAIN):
        assert str(ORDER) in rendered.text
        assert "36.00 USD" in rendered.html


def test_names_cant_write_html():
    """What a customer or a product is called is text in the page, never markup."""
    lines = [{"name": "<script>", "quantity": 1, "total": "1.00 USD"}]

    rendered = Templates().mail(due(Kind.CONFIRMED, lines=lines, total="1.00 USD"), at=AT)

    assert "<script>" not in rendered.html
    assert "<script>" in rendered.text


@pytest.mark.parametrize("url", ["", "http://localhost", "smtp://", "localhost:25"])
def test_an_address_without_a_mail_server_is_refused(url: str):
    """A mistake in SMTP_URL ends the start, not the first mail."""
    with pytest.raises(ValueError, match="smtp://host:port"):
        mailer(url, sender=SENDER)


async def test_null_takes_everything():
    """With `null:` every message is sent, nowhere."""
    taker = mailer("null:", sender=SENDER)

    assert isinstance(taker, NullMailer)
    async with taker:
        await taker.send(mail())


def test_a_repr_has_no_password():
    """Logs may show the mailer."""
    made = mailer("smtp://me:secret@mail.example:2525", sender=SENDER)

    assert isinstance(made, SmtpMailer)
    assert repr(made) == "SmtpMailer(mail.example:2525, from shop@backstay.example)"
