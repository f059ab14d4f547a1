"""What a coffee shop talks about."""

from typing import Annotated, Literal
from uuid import UUID

from msgspec import Meta, Struct

Drink = Annotated[str, Meta(pattern="^[a-z]{1,30}$")]


class NewOrder(Struct, frozen=True):
    """What a guest asks for."""

    drink: Drink


class Stock(Struct, frozen=True):
    """How many of a drink the beans are enough for; None if nobody knows."""

    drink: str
    left: int | None

    @staticmethod
    def unknown(drink: str) -> "Stock":
        """What to assume while the bean store can't be asked."""
        return Stock(drink, None)


class Order(Struct, frozen=True):
    """A coffee on its way."""

    id: UUID
    drink: str
    status: Literal["placed", "brewing"]
    beans_left: int | None
    version: int
