"""Messages on a real PostgreSQL: one per event, sent until a server took or refused it, recorded once."""

import asyncio
from itertools import pairwise
from typing import Any
from uuid import UUID, uuid4

import pytest

from backstay import faults
from backstay.testing import armed
from shop.notifications.model import LONGEST_PAUSE
from shop.notifications.providers import MailDeferred, MailRefused, MailUnavailable
from shop.notifications.service import BATCH, LEASE

ADA, ORDER = UUID(int=1), UUID(int=2)


async def test_each_event_has_its_message(office: Any):
    """Registered, registered again, pending, confirmed, cancelled, refunded: six mails to the customer's address."""
    await office.register(ADA)
    await office.register_again(ADA)
    for step in (office.leave_pending, office.confirm, office.cancel, office.refund):
        await step(ADA, ORDER)

    assert await office.notifications.send_due() == 6

    assert sorted(mail.subject for mail in office.mailer.sent) == [
        "We are waiting for your payment",
        "Welcome to the shop",
        "You got your money back",
        "You have an account already",
        "Your order is confirmed",
        "Your order was cancelled",
    ]
    assert {mail.to for mail in office.mailer.sent} == {"ada@example.org"}


async def test_an_event_delivered_again_is_no_second_message(office: Any):
    """Not before the first was sent, nor after, though the inbox has forgotten it."""
    event = uuid4()
    await office.register(ADA)
    await office.confirm(ADA, ORDER, event_id=event)
    await office.confirm(ADA, ORDER, event_id=event)
    await office.notifications.send_due()
    await office.confirm(ADA, ORDER, event_id=event)

    assert await office.notifications.send_due() == 0
    assert len(office.mailer.sent) == 2


async def test_a_message_waits_for_its_address(office: Any):
    """An order's event may overtake the registration: nothing is tried before, nothing is lost."""
    await office.confirm(ADA, ORDER)
    assert await office.notifications.send_due() == 0

    await office.register(ADA, "ada@late.example")
    await office.notifications.send_due()

    assert [mail.to for mail in office.mailer.sent] == ["ada@late.example"] * 2


async def test_what_was_sent_is_published_once(office: Any):
    """The event names the message, its kind, customer and order, and is written with the state."""
    await office.register(ADA)
    await office.confirm(ADA, ORDER)
    await office.notifications.send_due()
    await office.notifications.send_due()

    ids = {mail.id for mail in office.mailer.sent}
    events = [body for kind, body in await office.events() if kind == "notification.sent"]
    assert {UUID(body["notification_id"]) for body in events} == ids
    assert len(events) == 2
    assert {(body["kind"], body["order_id"]) for body in events} == {("welcome", None), ("confirmed", str(ORDER))}
    assert await office.states() == {"sent": 2}


async def test_a_server_that_is_away_is_asked_again_for_ever(office: Any):
    """After a day without a server the mail goes out; in between less and less often."""
    await office.register(ADA)
    office.mailer.trouble = lambda mail: MailUnavailable("refused")
    tried = 0
    for _ in range(24 * 60):
        tried += await office.notifications.send_due()
        await office.elapse(60)
    assert await office.states() == {"pending": 1}
    assert tried > 1000

    office.mailer.trouble = lambda mail: None
    await office.elapse(LONGEST_PAUSE)
    await office.notifications.send_due()

    assert len(office.mailer.sent) == 1


async def test_pauses_grow(office: Any):
    """Right after a failure nothing is tried; each pause is longer than the one before."""
    await office.register(ADA)
    office.mailer.trouble = lambda mail: MailDeferred("450 later")
    pauses = []
    for _ in range(5):
        before = await office.db.fetchval("SELECT clock_timestamp()")
        assert await office.notifications.send_due() == 1
        assert await office.notifications.send_due() == 0
        due = await office.db.fetchval("SELECT next_attempt_at FROM notifications")
        pauses.append((due - before).total_seconds())
        await office.elapse(pauses[-1])

    assert all(pause >= wanted for pause, wanted in zip(pauses, (1, 2, 4, 8, 16), strict=True))
    assert all(later > earlier * 1.2 for earlier, later in pairwise(pauses))


async def test_a_run_ends_when_no_server_is_there(office: Any):
    """With thousands waiting, one batch finds out that the server is away, not all of them."""
    await office.register(ADA)
    for _ in range(BATCH + 5):
        await office.confirm(ADA, uuid4())
    office.mailer.trouble = lambda mail: MailUnavailable("refused")

    assert await office.notifications.send_due() == BATCH


async def test_a_refused_message_fails_with_its_reason(office: Any):
    """Others go out, this one is never tried again, nobody is told that it was sent."""
    await office.register(ADA, "nobody@example.org")
    await office.register(UUID(int=9), "bob@example.org")
    office.mailer.trouble = lambda mail: MailRefused("550 no such user") if mail.to.startswith("nobody") else None
    await office.notifications.send_due()
    await office.elapse(3600)

    assert await office.notifications.send_due() == 0
    assert await office.states() == {"sent": 1, "failed": 1}
    assert await office.db.fetchval("SELECT reason FROM notifications WHERE state = 'failed'") == "550 no such user"
    assert len([kind for kind, _ in await office.events() if kind == "notification.sent"]) == 1


async def test_who_dies_before_recording_sends_the_same_message_again(office: Any):
    """At least once on the wire, under one id; recorded and published once; not before the lease is over."""
    await office.register(ADA)
    with armed("notifications.send.before-record=error*1"), pytest.raises(faults.Injected):
        await office.notifications.send_due()
    assert await office.notifications.send_due() == 0
    await office.elapse(LEASE + 1)
    await office.notifications.send_due()

    assert len(office.mailer.sent) == 2
    assert len({mail.id for mail in office.mailer.sent}) == 1
    assert await office.states() == {"sent": 1}
    assert len(await office.events()) == 1


async def test_a_message_that_breaks_us_keeps_nobody_else(office: Any):
    """Whatever goes wrong with one message, the others of its batch go out; it is tried again later."""
    await office.register(ADA)
    await office.db.execute("UPDATE notifications SET kind = 'confirmed'")  # without the facts that it needs
    await office.register(UUID(int=9), "bob@example.org")

    await office.notifications.send_due()

    assert [mail.to for mail in office.mailer.sent] == ["bob@example.org"]
    assert await office.states() == {"pending": 1, "sent": 1}


async def test_what_is_open_is_measured(office: Any):
    """Waiting and refused messages, and for how long the oldest has waited, for the metrics."""
    await office.register(ADA)
    await office.confirm(ADA, ORDER)
    await office.elapse(30)
    await office.notifications.measure()

    measured = office.notifications.statistics()
    assert (measured.pending, measured.failed) == (2, 0)
    assert measured.oldest_age >= 30


@pytest.mark.parametrize("seconds", [1000, -1000])
async def test_a_wrong_clock_of_a_process_neither_delays_nor_doubles_a_message(office: Any, seconds: float):
    """Saved and claimed by processes whose clocks differ: sent now, and not again while the lease runs."""
    office.clock.advance(seconds)
    await office.register(ADA)
    office.clock.advance(-seconds)
    with armed("notifications.send.after-claim=error*1"), pytest.raises(faults.Injected):
        await office.notifications.send_due()
    office.clock.advance(1000)
    assert await office.notifications.send_due() == 0
    await office.elapse(LEASE + 1)
    assert await office.notifications.send_due() == 1


async def test_a_refund_made_at_the_provider_mails_once(office: Any):
    """The order ends because its money is back: one mail says both, in whichever order the two events arrive."""
    other = uuid4()
    await office.cancel(ADA, ORDER, "refunded")
    await office.refund(ADA, ORDER)
    await office.refund(ADA, other)
    await office.cancel(ADA, other, "refunded")

    rows = await office.db.fetch("SELECT order_id, kind FROM notifications ORDER BY id")
    assert [(row["order_id"], row["kind"]) for row in rows] == [(ORDER, "refunded"), (other, "refunded")]


async def test_who_dies_before_sending_loses_no_message(office: Any):
    """A claim without a sending ends with its lease; then the message goes out, once."""
    await office.register(ADA)
    with armed("notifications.send.after-claim=error*1"), pytest.raises(faults.Injected):
        await office.notifications.send_due()
    await office.elapse(LEASE + 1)
    await office.notifications.send_due()

    assert len(office.mailer.sent) == 1
    assert await office.states() == {"sent": 1}


async def test_two_senders_share_the_work(office: Any):
    """Any number of instances may send at the same time; no message goes out twice."""
    await office.register(ADA)
    for _ in range(3 * BATCH):
        await office.confirm(ADA, uuid4())

    await asyncio.gather(*(office.notifications.send_due() for _ in range(3)))

    assert len(office.mailer.sent) == len({mail.id for mail in office.mailer.sent}) == 3 * BATCH + 1
    assert await office.states() == {"sent": 3 * BATCH + 1}


async def test_no_connection_is_held_while_a_server_works(office: Any):
    """A mail server that hangs keeps no transaction open: claimed, handed over, recorded, each on its own."""
    await office.register(ADA)
    seen = []

    def look(mail: Any) -> None:
        seen.append(office.db.statistics().pool)

    office.mailer.trouble = look
    await office.notifications.send_due()

    assert [pool.size - pool.idle for pool in seen] == [0]


async def test_the_auditor_reads_messages_about_orders(office: Any):
    """A message comes when it is written and again when it is sent; one about no order never."""
    await office.register(ADA)
    await office.confirm(ADA, ORDER)
    [(place, waiting)] = await office.notifications.audit((0, UUID(int=0)), limit=10)
    assert (waiting.order_id, waiting.kind, waiting.state) == (ORDER, "confirmed", "pending")

    await office.notifications.send_due()
    [(_, sent)] = await office.notifications.audit(place, limit=10)
    assert (sent.id, sent.state) == (waiting.id, "sent")
