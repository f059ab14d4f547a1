"""Idempotency keys on a real database: one claim, one answer, whoever asks and however often."""

import asyncio
import hashlib
from collections.abc import AsyncIterator
from uuid import UUID

import msgspec
import pytest

from backstay.db import Database
from backstay.ids import uuid7
from backstay.service import Answer, BadRequest, Conflict, IdempotencyKey, Unprocessable, idempotency


class Body(msgspec.Struct):
    sku: str
    quantity: int = 1


TEA = Body("tea")


@pytest.fixture
async def db(database: str) -> AsyncIterator[Database]:
    db = Database("things", dsn=database)
    db.requires(idempotency.COMPONENT)
    async with db:
        yield db


def key(principal: str = "ann", operation: str = "POST /things", text: str = "k1") -> IdempotencyKey:
    return IdempotencyKey(principal, operation, text)


async def claim(
    db: Database, key: IdempotencyKey, body: object = TEA, operation_id: UUID | None = None, locked_for: float = 5.0
) -> Answer[object] | None:
    async with db.transaction() as tx:
        return await key.claim(tx, body, operation_id, locked_for)


async def test_first_claim(db: Database) -> None:
    """A new key is claimed, for the operation given or for a new one."""
    given, other = uuid7(), key(text="k2")
    first = key()

    assert await claim(db, first, operation_id=given) is None
    assert given == first.operation_id
    assert await claim(db, other) is None
    assert isinstance(other.operation_id, UUID)


async def test_repeat_gets_the_first_answer(db: Database) -> None:
    """A repeat gets status, headers and body as first sent, byte for byte."""
    async with db.transaction() as tx:
        first = key()
        await first.claim(tx, TEA)
        sent = await first.answer(tx, {"total": "18.00", "é": 1}, status=201, headers={"Location": "/things/1"})
    repeat = await claim(db, key())

    assert repeat is not None
    assert (201, '{"total":"18.00","é":1}'.encode()) == (repeat.status, repeat.content())
    assert repeat.headers == {"content-type": "application/json", "location": "/things/1"}
    assert list(repeat.headers.items()) == list(sent.headers.items())
    assert sent == repeat


async def test_rolled_back_claim_is_no_claim(db: Database) -> None:
    """If the operation was not saved, neither was the claim."""
    with pytest.raises(RuntimeError):
        async with db.transaction() as tx:
            await key().claim(tx, TEA)
            raise RuntimeError

    assert await claim(db, key()) is None


async def test_other_body(db: Database) -> None:
    """The same key with another body is refused, whether answered or in flight."""
    await claim(db, key())

    with pytest.raises(Unprocessable, match="another request") as refused:
        await claim(db, key(), Body("coffee"))
    assert refused.value.slug == "idempotency-key-reused"


async def test_same_body_written_otherwise(db: Database) -> None:
    """The body is compared as decoded: defaults and the order of members don't matter."""
    mine = key()
    await claim(db, mine, {"a": 1, "b": {"c": 2, "d": 3}})
    async with db.transaction() as tx:
        await mine.answer(tx, "done")

    assert await claim(db, key(), {"b": {"d": 3, "c": 2}, "a": 1}) is not None


class NewBody(msgspec.Struct):
    """The body of the release after that of `Body`."""

    sku: str
    quantity: int = 1
    note: str | None = None
    tags: list[str] = []


async def test_a_release_adds_an_optional_field(db: Database) -> None:
    """What was sent hasn't changed, so a repeat gets the first answer; what is sent in the new field counts."""
    mine = key()
    async with db.transaction() as tx:
        await mine.claim(tx, TEA)
        await mine.answer(tx, "done")

    assert await claim(db, key(), NewBody("tea")) is not None
    with pytest.raises(Unprocessable):
        await claim(db, key(), NewBody("tea", note="x"))


async def test_nested_defaults_do_not_count() -> None:
    """A field may be added at any depth, and an explicit default is as good as none."""
    before = idempotency.digest({"lines": [TEA], "by": {"x": TEA}})

    assert before == idempotency.digest({"lines": (NewBody("tea", 1, None, []),), "by": {"x": NewBody("tea")}})
    assert before != idempotency.digest({"lines": [Body("tea", 2)], "by": {"x": TEA}})


@pytest.mark.parametrize("locked_for", [0.0, 5.0])
async def test_a_row_of_the_release_before(db: Database, locked_for: float) -> None:
    """A key that 0.1.0 stored answers repeats, is resumed, and refuses another body, as a new one does."""
    old, given = msgspec.json.encode(TEA, order="sorted"), uuid7()
    first = key()
    await claim(db, first, operation_id=given, locked_for=locked_for)
    await db.execute("UPDATE idempotency_keys SET body_hash = $1", hashlib.sha256(old).digest())

    with pytest.raises(Unprocessable):
        await claim(db, key(), Body("coffee"))
    if locked_for:
        async with db.transaction() as tx:
            await first.answer(tx, "done")
        assert await claim(db, key()) is not None
    else:
        second = key()
        assert await claim(db, second, operation_id=uuid7()) is None
        assert second.operation_id == given


async def test_in_flight(db: Database) -> None:
    """While the first request works on it, a repeat is told to come back."""
    await claim(db, key())

    with pytest.raises(Conflict) as refused:
        await claim(db, key())
    assert (refused.value.slug, refused.value.headers["Retry-After"]) == ("request-in-progress", "1")


async def test_resume(db: Database) -> None:
    """Once the holder's time is over, a repeat takes over that same operation, and holds it alone."""
    first, second = key(), key()
    await claim(db, first, locked_for=0.0)

    assert await claim(db, second, operation_id=uuid7()) is None
    assert first.operation_id == second.operation_id
    with pytest.raises(Conflict):
        await claim(db, key())


async def test_callers_and_operations_are_apart(db: Database) -> None:
    """The same text of another caller, or for another operation, is another key."""
    await claim(db, key())

    assert await claim(db, key(principal="bob"), Body("coffee")) is None
    assert await claim(db, key(operation="POST /others"), Body("coffee")) is None


async def test_two_at_the_same_moment(db: Database) -> None:
    """Of many at the same moment one claims; the others are told to wait, or get its answer."""

    async def request(number: int) -> int | str:
        mine = key()
        try:
            async with db.transaction() as tx:
                if (first := await mine.claim(tx, TEA)) is not None:
                    return first.content().decode()
                await mine.answer(tx, number)
                return number
        except Conflict as error:
            return error.slug

    results = await asyncio.gather(*(request(number) for number in range(12)))
    winners = [result for result in results if isinstance(result, int)]

    assert len(winners) == 1
    assert {str(winners[0])} == {result for result in results if isinstance(result, str)}


async def test_first_answer_stays(db: Database) -> None:
    """Whoever ends the operation first, by its id, sets the answer; everyone after gets that one."""
    mine = key()
    await claim(db, mine)
    assert mine.operation_id is not None
    async with db.transaction() as tx:
        assert await idempotency.stored(tx, mine.operation_id) is None
        by_event = await idempotency.answer(tx, mine.operation_id, Answer({"status": "confirmed"}, 201))
    async with db.transaction() as tx:
        by_request = await mine.answer(tx, {"status": "payment_pending"}, status=202)
        stored = await idempotency.stored(tx, mine.operation_id)

    assert by_event == by_request == stored
    assert (by_request.status, by_request.content()) == (201, b'{"status":"confirmed"}')


async def test_operation_without_a_key(db: Database) -> None:
    """An operation that nobody claimed a key for can be answered all the same; nothing is kept."""
    given = Answer({"a": 1}, 202, {"Retry-After": "2"})
    async with db.transaction() as tx:
        sent = await idempotency.answer(tx, uuid7(), given)

    assert (sent.status, sent.content(), sent.headers["retry-after"]) == (202, b'{"a":1}', "2")


@pytest.mark.parametrize("status", [400, 401, 403, 413, 422, 429, 500, 503])
async def test_never_kept(db: Database, status: int) -> None:
    """An answer that may be better next time is not kept."""
    mine = key()
    async with db.transaction() as tx:
        await mine.claim(tx, TEA)
        with pytest.raises(ValueError, match="not kept"):
            await mine.answer(tx, "x", status=status)


@pytest.mark.parametrize("status", [201, 202, 402, 409])
async def test_kept(db: Database, status: int) -> None:
    """Ends of an operation are kept, good or bad."""
    mine = key()
    async with db.transaction() as tx:
        await mine.claim(tx, TEA)
        await mine.answer(tx, "x", status=status)

    repeat = await claim(db, key())
    assert repeat is not None
    assert repeat.status == status


async def test_answer_before_claim(db: Database) -> None:
    """Answering without a claim is a mistake of the program."""
    async with db.transaction() as tx:
        with pytest.raises(RuntimeError, match="claim"):
            await key().answer(tx, "x")


async def test_pruning(db: Database) -> None:
    """Old keys are forgotten, young ones stay."""
    for text, age in (("old", "25 hours"), ("young", "23 hours")):
        await claim(db, key(text=text))
        await db.execute(f"UPDATE idempotency_keys SET created_at = now() - interval '{age}' WHERE key = $1", text)
    job = idempotency.pruning(db)
    await job.run_once()

    assert job.statistics().last_error is None
    assert [row["key"] for row in await db.fetch("SELECT key FROM idempotency_keys")] == ["young"]


@pytest.mark.parametrize("header", [b"", b"x" * 256, b"a b", b"a\tb", "kl\u00e9".encode()])
def test_malformed_header(header: bytes) -> None:
    """A key has up to 255 printable ASCII characters."""
    with pytest.raises(BadRequest) as refused:
        IdempotencyKey.of_header(header, "ann", "POST /things")
    assert refused.value.slug == "idempotency-key-malformed"


def test_missing_header() -> None:
    """A route that takes a key can't be asked without one."""
    with pytest.raises(BadRequest) as refused:
        IdempotencyKey.of_header(None, "ann", "POST /things")
    assert refused.value.slug == "idempotency-key-missing"
