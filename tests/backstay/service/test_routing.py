"""Routes are read from signatures once, and a mistake in one is told when the module is imported."""

from typing import Any
from uuid import UUID

import pytest

from backstay.service import Answer, Page, Principal, Route, delete, get, post


def test_parameters_are_sorted_out() -> None:
    """A route has its path and query parameters, its result, and its summary from the docstring."""

    @post("/orders/{order_id}/lines")
    async def add(order_id: UUID, limit: int = 3) -> Answer[Page[str]]:
        """Add lines.

        More words.
        """
        raise NotImplementedError

    assert [parameter.name for parameter in add.injected.path] == ["order_id"]
    assert [(parameter.name, parameter.required) for parameter in add.injected.query] == [("limit", False)]
    assert (add.returns, add.status, add.summary) == (Page[str], 200, "Add lines.")


def test_no_result_is_204() -> None:
    """A handler without a result answers 204; one without words has its name for a summary."""

    @delete("/orders/{order_id}")
    async def take_away(order_id: UUID) -> None: ...

    assert (take_away.status, take_away.summary) == (204, "Take away")


def test_union_of_answers() -> None:
    """A handler may answer one thing or another."""

    @get("/a")
    async def either() -> Answer[int] | str:
        raise NotImplementedError

    assert either.returns == int | str


async def test_handler_can_be_called() -> None:
    """A route is still the function it was made of."""

    @get("/double")
    async def double(number: int) -> int:
        return 2 * number

    assert await double(number=21) == 42
    assert isinstance(double, Route)


def test_prefix() -> None:
    """A prefix goes before the path and into the name."""

    @get("/a", public=True)
    async def a() -> int:
        return 1

    assert a.under("/api/v1/").name == "GET /api/v1/a"
    assert a.under("") is a


async def no_annotation(limit) -> None: ...  # type: ignore[no-untyped-def]
async def nothing() -> None: ...
async def caller(who: Principal) -> None: ...
def not_async() -> None: ...


@pytest.mark.parametrize(
    ("path", "options", "handler", "told"),
    [
        ("orders", {}, nothing, "begins with /"),
        ("/orders", {}, not_async, "async def"),
        ("/orders", {}, no_annotation, "annotate limit"),
        ("/orders/{order_id}", {}, nothing, "order_id"),
        ("/orders", {"public": True}, caller, "Principal | None"),
        ("/orders", {"public": True, "scope": "x"}, nothing, "asks for no scope"),
    ],
)
def test_mistakes(path: str, options: dict[str, Any], handler: Any, told: str) -> None:
    """A route that can't work is refused with the reason."""
    with pytest.raises(TypeError) as refused:
        get(path, **options)(handler)
    assert told in str(refused.value)
