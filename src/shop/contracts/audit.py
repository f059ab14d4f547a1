"""Facts about orders that each service shows the auditor, as they are now: `GET /internal/audit?since=`."""

from datetime import datetime
from typing import Annotated
from uuid import UUID

import msgspec

from shop.contracts.orders import OrderStatus
from shop.kernel import Money

Change = Annotated[int, msgspec.Meta(ge=0, le=2**63 - 1)]
"""The transaction that changed a row last, as PostgreSQL numbers them: the first half of a position in a feed."""
Limit = Annotated[int, msgspec.Meta(ge=1, le=1000)]
LIMIT = 200
"""Facts of one page unless another number is requested."""


class OrderFact(msgspec.Struct, frozen=True, kw_only=True):
    """An order: its state, its worth, and the units of each product it is about."""

    order_id: UUID
    status: OrderStatus
    total: Money
    units: dict[str, int]
    reason: str | None = None


class PaymentFact(msgspec.Struct, frozen=True, kw_only=True):
    """The payment of an order, as payments has recorded it. A tombstone has no amount."""

    order_id: UUID
    payment_id: UUID
    status: str
    amount: Money | None = None


class ProviderFact(msgspec.Struct, frozen=True, kw_only=True):
    """An entry of the provider's own ledger: `captured` or `refunded`; `charge` is the key of the charge."""

    entry: str
    id: str
    charge: str
    amount: Money
    at: datetime


class ReservationFact(msgspec.Struct, frozen=True, kw_only=True):
    """The units that inventory holds for an order, and has released, by the stock ledger."""

    order_id: UUID
    state: str
    reserved: dict[str, int]
    released: dict[str, int]


class MailFact(msgspec.Struct, frozen=True, kw_only=True):
    """A message about an order."""

    id: UUID
    order_id: UUID
    kind: str
    state: str
