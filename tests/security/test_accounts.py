"""Accounts: nobody is told who has one, and guessing passwords is slow."""

import asyncio
import statistics
import time
from uuid import uuid4

import pytest

pytestmark = [
    pytest.mark.acceptance,
    pytest.mark.kafka,
    pytest.mark.xdist_group("acceptance"),
    pytest.mark.timeout(300),
]

SAMPLES = 8


async def test_registering_tells_nothing_by_its_answer(web, customer) -> None:
    """Body, status and headers are the same for a known and an unknown address."""
    replies = []
    for email in (customer.shopper.email, f"{uuid4().hex}@customers.example", customer.shopper.email.upper()):
        account = {"email": email, "password": "a long enough passphrase", "name": "Eve"}
        replies.append(await web.call("POST", "/api/v1/auth/register", account))

    assert {reply.status for reply in replies} == {202}
    assert len({str(reply.body) for reply in replies}) == 1
    assert len({tuple(sorted(reply.headers)) for reply in replies}) == 1


async def test_registering_tells_nothing_by_its_time(web, customer) -> None:
    """It ends on a beat: what differs is less than the beat, in the middle of several tries."""
    times: dict[bool, list[float]] = {True: [], False: []}
    for _ in range(SAMPLES):
        for known in (True, False):
            email = customer.shopper.email if known else f"{uuid4().hex}@customers.example"
            account = {"email": email, "password": "a long enough passphrase", "name": "Eve"}
            times[known].append((await web.call("POST", "/api/v1/auth/register", account)).took)

    apart = abs(min(times[True]) - min(times[False]))
    assert apart < 0.25 * min(times[True]), times


async def test_a_login_tells_nothing_by_its_time(web, new_customer) -> None:
    """A wrong password takes as long as an unknown address: both pay for a password hash."""
    times: dict[bool, list[float]] = {True: [], False: []}
    for _ in range(SAMPLES // 2):
        known = (await new_customer()).shopper.email
        for email in (known, f"{uuid4().hex}@customers.example"):
            wrong = {"email": email, "password": "not that one at all"}
            reply = (await web.call("POST", "/api/v1/auth/login", wrong)).expect(401)
            times[email == known].append(reply.took)

    shorter, longer = sorted((min(times[True]), min(times[False])))
    assert shorter > 0.5 * longer, times


async def test_orders_of_others_tell_nothing_by_their_time(new_customer) -> None:
    """Somebody else's order and none at all are the same 404 in the same time."""
    owner, stranger = await new_customer(), await new_customer()
    order = (await owner.order()).expect(201, 202).body["id"]
    times: dict[bool, list[float]] = {True: [], False: []}
    bodies = set()
    for _ in range(SAMPLES * 2):
        for exists, asked in ((True, order), (False, str(uuid4()))):
            reply = await stranger.web.call("GET", f"/api/v1/orders/{asked}", token=stranger.shopper.token)
            assert reply.status == 404
            times[exists].append(reply.took)
            bodies.add((reply.body["type"], reply.body["title"], reply.body["detail"].replace(asked, "…")))

    assert len(bodies) == 1
    middle = {exists: statistics.median(took) for exists, took in times.items()}
    assert max(middle.values()) < 3 * min(middle.values()), middle


async def test_guessing_is_slowed_down_whatever_address_is_claimed(web, world, new_customer, tools) -> None:
    """After a few failures of an account it has to wait; a forged X-Forwarded-For gives no fresh tries."""
    victim = (await new_customer()).shopper.email
    statuses = []
    for number in range(12):
        body = f'{{"email":"{victim}","password":"wrong guess {number}"}}'.encode()
        head = (
            f"POST /api/v1/auth/login HTTP/1.1\r\nHost: s\r\nX-Forwarded-For: 203.0.113.{number}\r\n"
            f"Forwarded: for=203.0.113.{number}\r\nX-Real-IP: 203.0.113.{number}\r\nConnection: close\r\n"
            f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
        ).encode()
        statuses.append(int((await tools.raw(world.running.gateway, head + body, within=10)).split()[1]))

    assert statuses[0] == 401
    assert statuses[-1] == 429
    reply = await web.call("POST", "/api/v1/auth/login", {"email": victim, "password": tools.password})
    assert reply.status == 429, "while it is blocked not even the right password tells"
    assert int(reply.headers["retry-after"]) > 0


async def test_guessing_at_one_account_locks_no_other(web, new_customer, tools) -> None:
    """Failures of one account don't keep its neighbour out."""
    victim, neighbour = (await new_customer()).shopper.email, (await new_customer()).shopper.email
    for _ in range(8):
        await web.call("POST", "/api/v1/auth/login", {"email": victim, "password": "wrong guess again"})

    (await web.call("POST", "/api/v1/auth/login", {"email": neighbour, "password": tools.password})).expect(200)


async def test_guesses_at_the_same_moment_are_counted_all(web, new_customer) -> None:
    """A burst of parallel guesses gets no more tries than a patient one."""
    victim = (await new_customer()).shopper.email
    guesses = ({"email": victim, "password": f"parallel guess {number}"} for number in range(24))
    replies = await asyncio.gather(*(web.call("POST", "/api/v1/auth/login", guess) for guess in guesses))
    later = await web.call("POST", "/api/v1/auth/login", {"email": victim, "password": "one more"})

    assert {reply.status for reply in replies} <= {401, 429, 503}
    assert later.status == 429


@pytest.mark.parametrize("token", ["", "x", "0" * 43, "../../etc/passwd", "\u0000"])
async def test_refresh_tokens_are_not_guessed(web, token: str) -> None:
    """Anything but the real one is 401 or 422, quickly."""
    started = time.monotonic()
    reply = await web.call("POST", "/api/v1/auth/refresh", {"refresh_token": token})

    assert reply.status in (400, 401, 422)
    assert time.monotonic() - started < 3
