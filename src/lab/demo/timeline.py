"""The way of one order, from the request to the last of its consequences, each step with its time."""

import asyncio
import contextlib
import time
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from backstay.dev.home import Running
from backstay.dev.mail_catcher import kept
from backstay.dev.waiting import until
from backstay.dev.web import Reply
from backstay.messaging import Envelope, MessagingError
from lab.client.user import Shopper
from lab.system.context import Stage
from lab.system.kafka import broker_of

TOPICS = ("orders", "payments", "inventory", "notifications")
TIMEOUT = 15.0  # seconds for everything that follows an order
POLL = 0.03  # seconds
SKUS = ("NW-001", "NW-002")  # chai and chang
ORDER = {"lines": [{"sku": SKUS[0], "quantity": 2}, {"sku": SKUS[1], "quantity": 1}], "payment_method": "pm_card_ok"}


@dataclass(frozen=True, slots=True)
class Step:
    """One thing that happened, anywhere."""

    at: float
    service: str
    what: str


class Listener:
    """Receives the records that pass through Kafka while it is open."""

    def __init__(self, running: Running) -> None:
        self._broker = broker_of(running, client_id="demo")
        self._tasks: list[asyncio.Task[None]] = []
        self.heard: list[Envelope] = []

    async def __aenter__(self) -> "Listener":
        since = datetime.now(UTC)
        self._tasks = [asyncio.create_task(self._listen(topic, since)) for topic in TOPICS]
        return self

    async def __aexit__(self, *_: object) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self._broker.aclose()

    def about(self, order_id: str, since: float) -> list[Envelope]:
        """Return the events of an order: keyed by it, or naming it, or moving stock since its beginning."""
        return [e for e in self.heard if _written(e) >= since and self._concerns(e, order_id)]

    def _concerns(self, envelope: Envelope, order_id: str) -> bool:
        return order_id.encode() in (envelope.record.value or b"") or envelope.subject in SKUS

    async def _listen(self, topic: str, since: datetime) -> None:
        tail = self._broker.tail(topic, since)
        try:
            async for record in tail:
                with contextlib.suppress(MessagingError):
                    self.heard.append(Envelope.read(record))
        finally:
            await tail.aclose()


async def show(stage: Stage, customer: Shopper, admin: Shopper) -> None:
    """Place one order and print everything it caused."""
    async with Listener(stage.running) as listener:
        stock, figures = await _stock(admin), await _figures(admin)
        reply = (await customer.ask("POST", "/api/v1/orders", ORDER, key=f"demo-{time.time_ns()}")).expect(201)
        started = time.time() - reply.took / 1000  # of the attempt that was answered
        steps = [_sent(started), _answered(started, reply)]
        order = reply.body
        steps += await _consequences(stage, customer, admin, order, figures)
        after = await _stock(admin)
        steps += [Step(_written(e), "Kafka", _published(e)) for e in listener.about(order["id"], started)]
        steps += _stock_steps(steps, stock, after)
    _print(stage, order, sorted(steps, key=lambda step: step.at), started)


async def _consequences(
    stage: Stage, customer: Shopper, admin: Shopper, order: dict[str, Any], figures: int
) -> list[Step]:
    """Wait for stock, mail and analytics; return the steps that they report."""
    counted: list[Step] = []

    async def in_analytics() -> bool:
        if await _figures(admin) > figures and not counted:
            counted.append(Step(time.time(), "analytics", f"revenue counts {_money(order['total'])} more"))
        return bool(counted)

    async def in_timeline() -> bool:
        entries = await _entries(customer, order["id"])
        return {"payment captured", "stock reserved", "mail sent"} <= {entry["what"] for entry in entries}

    # What does not come in time is missing in what is printed, and shows so.
    await asyncio.gather(*(until(each, timeout=TIMEOUT, poll=POLL) for each in (in_analytics, in_timeline)))
    told = [
        Step(_moment(entry["at"]), entry["service"], _in_words(entry))
        for entry in await _entries(customer, order["id"])
    ]
    return counted + told + _mails(stage, customer, told)


def _mails(stage: Stage, customer: Shopper, told: list[Step]) -> list[Step]:
    if stage.mail is None:
        return []
    first = min(step.at for step in told)
    mails = [mail for mail in kept(stage.mail, to=customer.email) if mail.at.timestamp() >= first]
    return [Step(mail.at.timestamp(), "mail", f"“{mail.subject}” to {mail.to}") for mail in mails]


def _stock_steps(steps: list[Step], before: dict[str, int], after: dict[str, int]) -> list[Step]:
    """Before and after, beside the step that made the difference."""
    at = next((step.at for step in steps if step.what.startswith("stock reserved")), time.time())
    moves = "  ".join(f"{sku} {before[sku]} → {after[sku]}" for sku in SKUS)
    return [Step(at + 1e-6, "inventory", f"available: {moves}")]


def _sent(at: float) -> Step:
    return Step(at, "you", "POST /api/v1/orders to the gateway, with a token and an Idempotency-Key")


def _answered(started: float, reply: Reply) -> Step:
    took = f"{reply.took:.0f} ms"
    return Step(started + reply.took / 1000, "gateway", f"answered {reply.status} {reply.body['status']} after {took}")


def _published(envelope: Envelope) -> str:
    record = envelope.record
    text = f"{envelope.type} from the outbox of {(envelope.source or '').rpartition('/')[2]}"
    return f"{text} into {record.topic}/{record.partition}"


def _in_words(entry: dict[str, Any]) -> str:
    details = {k: v for k, v in entry.get("details", {}).items() if not isinstance(v, list | dict)}
    shown = ", ".join(f"{name} {value}" for name, value in details.items() if not name.endswith("_id"))
    return f"{entry['what']}{f' ({shown})' if shown else ''}"


def _print(stage: Stage, order: dict[str, Any], steps: list[Step], started: float) -> None:
    lines = ", ".join(f"{line['quantity']} × {line['name']}" for line in order["lines"])
    stage.screen.title("The way of one order", f"{lines} = {_money(order['total'])}")
    rows = [(f"{(step.at - started) * 1000:.0f}", step.service, step.what) for step in steps]
    stage.screen.rows(("    ms", "service", "what happened"), rows, right=(0,))


async def _stock(admin: Shopper) -> dict[str, int]:
    return {sku: (await admin.get(f"/api/v1/stock/{sku}"))["available"] for sku in SKUS}


async def _figures(admin: Shopper) -> int:
    return int((await admin.get("/api/v1/analytics/funnel"))["confirmed"])


async def _entries(customer: Shopper, order_id: str) -> list[dict[str, Any]]:
    return list((await customer.get(f"/api/v1/orders/{order_id}/timeline"))["items"])


def _written(envelope: Envelope) -> float:
    return envelope.record.timestamp.timestamp() if envelope.record.timestamp else 0.0


def _moment(text: str) -> float:
    return datetime.fromisoformat(text).timestamp()


def _money(money: dict[str, str]) -> str:
    return f"{money['amount']} {money['currency']}"
