"""The auditor on PostgreSQL: it reads everything once, compares what has come to rest, and can be killed anywhere."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any
from uuid import uuid4

import pytest

from backstay.faults import Injected
from backstay.testing import armed, eventually
from shop.auditor.config import FAULT_POINTS, Settings
from shop.auditor.main import build
from shop.auditor.model import Feed
from shop.contracts.audit import MailFact

if TYPE_CHECKING:
    from conftest import Bench


async def test_what_adds_up_leaves_nothing_behind(bench: Bench) -> None:
    """No finding, no open case, nothing unexplained; every feed read to its end."""
    for _ in range(7):
        bench.sell()
    await bench.run()
    summary = await bench.auditor.summary()

    assert (summary.cents, summary.units, summary.open, summary.waiting) == ({}, 0, {}, 0)
    assert await bench.db.fetchval("SELECT count(*) FROM cases") == 0
    assert await bench.db.fetchval("SELECT count(*) FROM facts") == 35
    assert all(state.age < 30 for state in summary.feeds)


async def test_nothing_is_compared_before_it_has_come_to_rest(bench: Bench) -> None:
    """Events may be on their way: a fact that changes starts the tolerance anew."""
    order_id, payment_id = bench.sell(charged=False)
    await bench.auditor.follow()
    assert await bench.auditor.check() == 0
    await bench.elapse(59)
    bench.ledger(payment_id, "captured")
    await bench.auditor.follow()
    await bench.elapse(59)
    await bench.auditor.follow()
    assert await bench.auditor.check() == 0
    await bench.elapse(2)
    await bench.auditor.follow()

    assert await bench.auditor.check() == 1
    assert await bench.open() == {}
    assert order_id


async def test_a_forged_confirmation_is_named(bench: Bench) -> None:
    """An order that was confirmed without the provider: its id, its worth, and since when."""
    bench.sell()
    forged, _ = bench.sell(charged=False)
    await bench.run()
    await bench.auditor.measure()

    assert await bench.open() == {str(forged): {"charge-missing", "payment-differs"}}
    measured = bench.auditor.statistics()
    assert (measured.unexplained_cents, measured.unexplained_units) == ({"USD": 1800}, 0)
    assert measured.open_findings == {"charge-missing": 1, "payment-differs": 1}


async def test_a_finding_is_resolved_when_it_adds_up(bench: Bench) -> None:
    """It keeps the time at which it was seen first, and is shown among the resolved ones afterwards."""
    _, payment_id = bench.sell(charged=False)
    await bench.run()
    first = {finding.id: finding.first_seen for finding in await bench.list()}
    bench.changes.feeds[Feed.PAYMENTS].append(bench.changes.feeds[Feed.PAYMENTS][-1])
    await bench.run()
    assert {finding.id: finding.first_seen for finding in await bench.list()} == first, "seen again, not anew"

    bench.ledger(payment_id, "captured")
    await bench.run()
    assert await bench.open() == {}
    resolved = await bench.list(resolved=True)
    assert {finding.id for finding in resolved} == set(first)
    assert all(finding.resolved_at is not None for finding in resolved)
    assert (await bench.auditor.summary()).cents == {}


async def test_while_a_service_is_away_nothing_is_said_about_it(bench: Bench) -> None:
    """Half of the facts prove nothing: the others are read, comparisons wait, and the age of the feed tells why."""
    bench.sell()
    bench.changes.away = {Feed.NOTIFICATIONS}
    await bench.run()
    await bench.auditor.measure()
    assert await bench.open() == {}
    assert bench.auditor.statistics().waiting_cases == 1
    [state] = [state for state in (await bench.auditor.summary()).feeds if state.error]
    assert (state.feed, state.age) == (Feed.NOTIFICATIONS, float("inf"))

    bench.changes.away = set()
    await bench.auditor.follow()
    await bench.elapse(61)
    await bench.auditor.follow()
    assert await bench.auditor.check() == 1
    assert await bench.open() == {}


async def test_a_charge_that_no_payment_names_is_a_subject_of_its_own(bench: Bench) -> None:
    """Until its payment is read: then it belongs to the order."""
    order_id, payment_id = uuid4(), uuid4()
    bench.ledger(payment_id, "captured")
    await bench.run()
    assert await bench.open() == {f"charge:{payment_id}": {"charge-without-order"}}

    sold, paid = bench.sell(order_id, charged=False)
    bench.changes.feeds[Feed.PAYMENTS][-1] = type(bench.changes.feeds[Feed.PAYMENTS][-1])(
        order_id=sold, payment_id=payment_id, status="captured", amount=bench.changes.feeds[Feed.PAYMENTS][-1].amount
    )
    await bench.run()
    assert paid != payment_id
    assert await bench.open() == {}


async def test_a_mail_sent_twice_is_named(bench: Bench) -> None:
    """Two messages of one kind about one order; the same message read twice is one."""
    order_id, _ = bench.sell()
    bench.changes.feeds[Feed.NOTIFICATIONS].append(bench.changes.feeds[Feed.NOTIFICATIONS][-1])
    await bench.run()
    assert await bench.open() == {}
    bench.changes.feeds[Feed.NOTIFICATIONS].append(
        MailFact(id=uuid4(), order_id=order_id, kind="confirmed", state="pending")
    )
    await bench.run()
    assert await bench.open() == {str(order_id): {"mail-doubled"}}


@pytest.mark.parametrize("point", FAULT_POINTS)
async def test_an_auditor_that_dies_anywhere_is_continued(bench: Bench, point: str) -> None:
    """Page, cursor and cases are one transaction, a comparison and its findings another: nothing is lost or doubled."""
    for _ in range(5):
        bench.sell()
    forged, _ = bench.sell(charged=False)
    with armed(f"{point}=error*1"):
        for step in (bench.auditor.follow, lambda: bench.elapse(61), bench.auditor.follow, bench.auditor.check):
            try:
                await step()
            except Injected:
                continue
    bench.auditor = bench.another()
    await bench.auditor.follow()
    await bench.elapse(61)
    await bench.run()

    assert await bench.open() == {str(forged): {"charge-missing", "payment-differs"}}
    assert len(await bench.list(resolved=True)) == 2
    assert await bench.db.fetchval("SELECT count(*) FROM facts") == 29


async def test_a_failing_feed_leaves_none_running(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """A feed that breaks ends `follow` when the others have been read, too: none is read without an owner."""
    release, reading, read = asyncio.Event(), set(), bench.changes.read
    failed = asyncio.Event()

    async def held(feed: Feed, since: str | None, *, limit: int) -> object:
        if feed is Feed.ORDERS:
            await eventually(lambda: len(reading) == 3)
            failed.set()
            raise RuntimeError("a bug")
        reading.add(feed)
        await release.wait()
        return await read(feed, since, limit=limit)

    monkeypatch.setattr(bench.changes, "read", held)
    bench.sell()
    following = asyncio.ensure_future(bench.auditor.follow())
    await failed.wait()
    for _ in range(10):
        await asyncio.sleep(0)
    assert not following.done()
    release.set()

    with pytest.raises(RuntimeError, match="a bug"):
        await following
    assert await bench.db.fetchval("SELECT count(DISTINCT feed) FROM facts") == 4


async def test_several_instances_share_the_work(bench: Bench) -> None:
    """No leader: a page is kept by one of them, a case is compared by one of them."""
    for _ in range(10):
        bench.sell()
    forged, _ = bench.sell(charged=False)
    several = [bench.auditor, bench.another(), bench.another()]
    for _ in range(6):
        await asyncio.gather(*(each.follow() for each in several))
    await bench.elapse(61)
    await asyncio.gather(*(each.follow() for each in several))
    await bench.auditor.follow()
    checked = await asyncio.gather(*(each.check() for each in several))

    assert sum(checked) >= 11, "a charge whose payment another instance was reading is a case for a while"
    assert await bench.db.fetchval("SELECT count(*) FROM cases WHERE check_at IS NOT NULL") == 0
    assert await bench.open() == {str(forged): {"charge-missing", "payment-differs"}}


async def test_an_order_that_never_ends_is_reported_later(bench: Bench) -> None:
    """Its case stays until it is old enough, without a change of its facts."""
    order_id = uuid4()
    bench.order(order_id, "payment_pending")
    await bench.run()
    assert await bench.open() == {}
    await bench.elapse(1200)
    await bench.auditor.follow()
    await bench.auditor.check()
    assert await bench.open() == {str(order_id): {"unsettled"}}

    bench.order(order_id, "cancelled", reason="refunded")
    await bench.run()
    assert await bench.open() == {}


async def test_every_fault_point_is_declared(bench: Bench) -> None:
    """The list is exactly what the code passes by."""
    hits: list[str] = []
    with armed("nothing=error") as plan:
        plan.take = lambda name: hits.append(name)  # type: ignore[method-assign,assignment,return-value]
        bench.sell()
        await bench.run()

    assert set(hits) == set(FAULT_POINTS)


async def test_the_list_is_for_admins(database: str, calling: Any, bench: Bench) -> None:
    """Summary and findings, page by page; a customer's token is refused, a bad parameter named."""
    orders = {str(bench.sell(charged=False)[0]) for _ in range(3)}
    await bench.run()
    service = build(Settings(database_url=database, discovery_url="http://127.0.0.1:1/eureka"))
    async with calling(service) as api:
        summary = (await api.get("/audit")).body
        assert summary["unexplained"] == [{"amount": "54.00", "currency": "USD"}]
        assert {feed["name"] for feed in summary["feeds"]} == set(Feed)
        found = await api.all("/audit/findings?limit=2")
        assert {one["subject"] for one in found} == orders
        assert len(found) == 6
        later = (datetime.now(UTC) + timedelta(hours=1)).isoformat().replace("+00:00", "Z")
        assert (await api.get(f"/audit/findings?since={later}")).body["items"] == []
        assert (await api.get("/audit/findings?since=yesterday")).status == 422
        assert (await api.get("/audit", who=uuid4())).status == 403
        assert (await api.get("/audit", who=None)).status == 401
