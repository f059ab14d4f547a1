"""Accounts and sessions on a real database."""

import asyncio
import heapq
import math
import threading
import time
from datetime import timedelta
from uuid import UUID

import pytest

from backstay.errors import ConfigError
from backstay.service import Conflict, NotFound, Problem, TooManyRequests, Unauthorized, Unavailable, Unprocessable
from backstay.testing import eventually
from shop.auth.model import ACCOUNT_AND_ADDRESS_FREE
from shop.auth.providers import COST_WEIGHT, FIRST_COST, Places, TooBusy
from shop.auth.service import Accounts, FirstAdmin

from .conftest import HERE, PASSWORD, House, quick_passwords


async def failed_logins(house: House, times: int, email: str = "ann@example.com", address: str = HERE) -> list[int]:
    """The statuses of so many wrong logins."""
    statuses = []
    for _ in range(times):
        with pytest.raises(Problem) as refused:
            await house.accounts.login(email, "a wrong guess", address)
        statuses.append(refused.value.status)
    return statuses


async def test_who_registered_can_log_in(house: House) -> None:
    """The token says who it is, what he may do and in which session."""
    grant = await house.customer()
    who = house.who(grant)

    me = await house.accounts.me(UUID(who.id))
    assert (me.email, me.name) == ("ann@example.com", "Ann")
    assert who.roles == {"customer"}
    assert who.scopes == {"orders:read", "orders:write", "notifications:read"}
    assert who.session is not None
    assert who.expires_at == house.clock.now().timestamp() + 300
    assert not who.is_service


async def test_registering_publishes_who_it_is(house: House) -> None:
    """Others learn address and name by the event."""
    await house.customer(" Ann@Example.com ")

    ((kind, event),) = await house.events()
    assert kind == "user.registered"
    assert (event["email"], event["name"]) == ("Ann@Example.com", "Ann")


async def test_a_known_address_registers_without_a_difference(house: House) -> None:
    """No error, no second account, the old password stays; the owner is told, at most once an hour."""
    await house.customer()
    for _ in range(3):
        await house.accounts.register("ANN@example.com", "another password", "Eve")

    assert [kind for kind, _ in await house.events()] == ["user.registered", "user.registration-repeated"]
    await house.accounts.login("ann@example.com", PASSWORD, HERE)
    assert await failed_logins(house, 1) == [401]

    house.clock.advance(3600)
    await house.accounts.register("ann@example.com", "another password", "Eve")
    assert [kind for kind, _ in await house.events()][2:] == ["user.registration-repeated"]


async def test_a_known_address_costs_as_much_as_a_new_one(house: House) -> None:
    """Both ways hash the password: timing tells nothing."""
    await house.customer()
    hashed = 0
    original = house.passwords.hash

    async def counting(password: str) -> str:
        nonlocal hashed
        hashed += 1
        return await original(password)

    compared = house.passwords.verify

    async def counting_too(password: str, stored: str | None) -> bool:
        nonlocal hashed
        hashed += 1
        return await compared(password, stored)

    house.passwords.hash = counting  # type: ignore[method-assign]
    house.passwords.verify = counting_too  # type: ignore[method-assign]
    await house.accounts.register("ann@example.com", PASSWORD, "Ann")
    await house.accounts.register("ann@example.com", "another password", "Ann")
    await house.accounts.register("bob@example.com", PASSWORD, "Bob")

    assert hashed == 3


async def test_a_repeated_registration_mails_nobody(house: House) -> None:
    """A registration whose answer was lost is sent again with the same password: its owner needs no warning."""
    registrations = (house.accounts.register("ann@example.com", PASSWORD, "Ann") for _ in range(4))
    await asyncio.gather(*registrations)
    await house.accounts.register("Ann@example.com", PASSWORD, "Ann")
    assert [kind for kind, _ in await house.events()] == ["user.registered"]

    await house.accounts.register("ann@example.com", "another password", "Eve")
    assert [kind for kind, _ in await house.events()] == ["user.registered", "user.registration-repeated"]


async def test_of_two_registrations_at_once_the_other_is_reported(house: House) -> None:
    """Two people who register one address at the same moment: its owner is warned of the one that came second."""
    passwords = (PASSWORD, "another password")
    await asyncio.gather(*(house.accounts.register("ann@example.com", each, "Ann") for each in passwords))

    assert [kind for kind, _ in await house.events()] == ["user.registered", "user.registration-repeated"]


@pytest.mark.parametrize(
    "password",
    [
        "password",
        "PassWord123",
        "p@ssw0rd1",
        "12345678a",
        "12345679",
        "iloveyou2",
        "Summer2026",
        "dragon12",
        "qwertyuiop1",
        "aaaaaaaaaa",
        "ab" * 64,
        "P@ssw0rd" * 16,
        "backstay1",
        "ann.smithson",
        "Smithson2",
    ],
)
async def test_passwords_that_are_guessed_first_are_refused(house: House, password: str) -> None:
    """On the lists, made of what is on them, or made of address, name and shop; also when a password is changed."""
    with pytest.raises(Unprocessable) as refused:
        await house.accounts.register("ann.smithson@example.com", password, "Ann Smithson")
    assert [error.pointer for error in refused.value.errors] == ["/password"]


@pytest.mark.parametrize(
    "password", ["xk7-Qp2vLw", "correct horse battery", "马电池正确订书钉蓝山", "x" * 40 + "k7-Qp2vLw"]
)
async def test_passwords_that_withstand_guessing(house: House, password: str) -> None:
    """No rule of composition stands in the way of a good one."""
    await house.accounts.register("ann@example.com", password, "Ann")


async def test_the_most_common_passwords_are_refused(house: House) -> None:
    """Of the 3,000 most common ones of 8 characters and more (ASVS 6.2.4) none passes."""
    from zxcvbn.frequency_lists import FREQUENCY_LISTS

    common = [text for text in FREQUENCY_LISTS["passwords"] if len(text) >= 8][:3000]
    assert len(common) == 3000
    async with quick_passwords(waiting=3000) as passwords:
        guessable = await asyncio.gather(*(passwords.is_guessable(text, ()) for text in common))

    assert [text for text, weak in zip(common, guessable, strict=True) if not weak] == []


async def test_registrations_end_on_the_beat(house: House) -> None:
    """However long the database takes, new and known addresses are answered after the same time."""
    accounts = Accounts(
        house.db,
        house.outbox,
        house.passwords,
        house.tokens,
        refresh_life=1000.0,
        session_life=5000.0,
        registration_beat=0.1,
        clock=house.clock,
    )
    for email, spent in (("ann@example.com", 0.03), ("ann@example.com", 0.01), ("bob@example.com", 0.12)):
        others = house.clock.sleepers
        registering = asyncio.create_task(accounts.register(email, PASSWORD, "Ann"))
        await asyncio.sleep(0)
        house.clock.advance(spent)
        await eventually(lambda others=others: house.clock.sleepers > others)
        house.clock.advance(0.099 - spent % 0.1)
        await asyncio.sleep(0)
        assert not registering.done()
        house.clock.advance(0.002)
        await asyncio.wait_for(registering, 5)


async def test_two_at_once_make_one_account(house: House) -> None:
    """The same address registered twice at the same moment is one user."""
    await asyncio.gather(*(house.accounts.register("ann@example.com", PASSWORD, "Ann") for _ in range(5)))

    assert await house.db.fetchval("SELECT count(*) FROM users") == 1


async def test_every_broken_rule_of_a_registration_is_named(house: House) -> None:
    """And nothing is stored."""
    with pytest.raises(Unprocessable) as refused:
        await house.accounts.register("nobody", "short", " ")

    assert [error.pointer for error in refused.value.errors] == ["/email", "/password", "/name"]
    assert await house.db.fetchval("SELECT count(*) FROM users") == 0


async def test_wrong_password_and_unknown_address_are_told_alike(house: House) -> None:
    """Same status, same words, same work."""
    await house.customer()
    said = []
    for email in ("ann@example.com", "nobody@example.com"):
        with pytest.raises(Unauthorized) as refused:
            await house.accounts.login(email, "a wrong guess", HERE)
        said.append(refused.value.body())

    assert said[0] == said[1]


async def test_passwords_are_stored_as_argon2id_only(house: House) -> None:
    """Never in the clear."""
    await house.customer()

    stored = await house.db.fetchval("SELECT password_hash FROM users")
    assert stored.startswith("$argon2id$")
    assert PASSWORD not in stored


async def test_unicode_and_long_passwords_work_in_either_composition(house: House) -> None:
    """What is one text to the eye is one password."""
    await house.accounts.register("ann@example.com", "pässwörter " * 10, "Ann")

    await house.accounts.login("ann@example.com", "pässwörter " * 10, HERE)


async def test_a_login_renews_an_old_hash(house: House) -> None:
    """Stronger parameters reach everybody who logs in, also several times at once."""
    await house.customer()
    stronger = quick_passwords(time_cost=2)
    async with stronger:
        accounts = house.accounts_with(stronger)
        await asyncio.gather(*(accounts.login("ann@example.com", PASSWORD, HERE) for _ in range(4)))

        assert ",t=2," in await house.db.fetchval("SELECT password_hash FROM users")
        await accounts.login("ann@example.com", PASSWORD, HERE)


async def test_more_passwords_than_may_wait_are_refused(house: House) -> None:
    """503 with Retry-After instead of an endless queue."""
    async with quick_passwords(threads=1, waiting=1) as narrow:
        accounts = house.accounts_with(narrow)
        registrations = (accounts.register(f"user{n}@example.com", PASSWORD, "Ann") for n in range(5))
        results = await asyncio.gather(*registrations, return_exceptions=True)

    refused = [result for result in results if isinstance(result, Unavailable)]
    assert len(refused) == 3
    assert all("Retry-After" in each.headers for each in refused)
    assert await house.db.fetchval("SELECT count(*) FROM users") == 2


async def test_refused_passwords_are_told_when_there_is_room(house: House) -> None:
    """Each refused caller is given a later place of its own, so that all of them fit when they come back."""
    async with quick_passwords(threads=2, waiting=0) as narrow:
        busy = [asyncio.ensure_future(narrow.hash(PASSWORD)) for _ in range(2)]
        await asyncio.sleep(0)
        waits = []
        for _ in range(200):
            with pytest.raises(TooBusy) as refused:
                await narrow.hash(PASSWORD)
            waits.append(refused.value.retry_after)
        await asyncio.gather(*busy)

    assert waits == sorted(waits)
    assert 200 * FIRST_COST / 2 <= waits[-1] + 1 <= 200 * FIRST_COST / 2 + 2


async def test_the_wait_goes_by_the_cpu_that_a_password_takes() -> None:
    """Not by how long it took while others kept the machine busy: callers would come back to idle threads."""
    async with quick_passwords(threads=1) as passwords:
        before = passwords.statistics().cost
        for _ in range(3):
            await passwords._run(lambda: time.sleep(0.2))

        assert passwords.statistics().cost < before


async def test_no_login_is_looked_up_while_there_is_no_room(house: House) -> None:
    """A refusal costs no database: 503 that asks not to be repeated at once by those in between."""
    await house.customer()
    async with quick_passwords(threads=1, waiting=0) as narrow:
        over = threading.Event()
        hashing = asyncio.ensure_future(narrow._run(over.wait))
        await asyncio.sleep(0)
        try:
            async with house.db.transaction() as tx:
                await tx.execute("LOCK TABLE users, login_failures IN ACCESS EXCLUSIVE MODE")
                with pytest.raises(Unavailable) as refused:
                    async with asyncio.timeout(5):
                        await house.accounts_with(narrow).login("ann@example.com", PASSWORD, HERE)
        finally:
            over.set()
            await hashing

    assert refused.value.slug == "too-busy"
    assert refused.value.headers["x-do-not-retry"] == "1"


@pytest.mark.parametrize(
    ("nows", "places"),
    [
        ([0.0, 0.0, 0.0], [5.0, 6.0, 7.0]),
        ([0.0, 2.0, 100.0], [5.0, 5.0, 5.0]),
        ([0.0] * 100, [*map(float, [*range(5, 61), *range(30, 61), *range(30, 43)])]),
    ],
)
def test_places(nows: list[float], places: list[float]) -> None:
    """Behind those that wait, one after the other, forgotten when their time is over, and never too far away."""
    queue = Places()

    assert [queue.next(now, queued=4, each=1.0) for now in nows] == places


@pytest.mark.parametrize("cost", [0.031, 0.06, 0.37])
@pytest.mark.parametrize("slowdown", [1, 3, 10])
def test_a_burst_of_logins_loses_no_time(cost: float, slowdown: int) -> None:
    """1,900 logins at once, each obeying its Retry-After, keep two threads busy until the last one is done.

    So they are done within 60 s where a password costs up to 60 ms; by 19 MiB and two passes it costs 31 ms of CPU.
    Others keep the machine busy at the beginning, for 20 s, and a password takes `slowdown` times as long.
    """
    places, average, finished = Places(), FIRST_COST, 0.0

    def ends(begin: float) -> float:
        return begin + cost * (slowdown if begin < 20 else 1)

    callers = [(number / 1000, number) for number in range(1900)]
    busy: list[float] = []
    waiting = 0
    while callers or busy:
        if callers and (not busy or callers[0][0] <= busy[0]):
            now, number = heapq.heappop(callers)
            if len(busy) < 2:
                heapq.heappush(busy, ends(now))
            elif waiting < 64:
                waiting += 1
            else:
                wait = places.next(now, queued=len(busy) + waiting, each=average / 2)
                heapq.heappush(callers, (now + max(1, math.ceil(wait)), number))
        else:
            finished = heapq.heappop(busy)
            average += COST_WEIGHT * (cost - average)
            if waiting:
                waiting -= 1
                heapq.heappush(busy, ends(finished))

    least = 1900 * cost / 2 + 20 * (1 - 1 / slowdown)
    assert finished <= (1.05 if slowdown == 1 else 1.1) * least + cost * slowdown
    assert finished < 60 or cost > 0.06 or slowdown > 1


async def test_guessing_gets_slower_and_slower(house: House) -> None:
    """After a few failures each further one doubles the wait, up to a quarter of an hour."""
    await house.customer()
    assert await failed_logins(house, ACCOUNT_AND_ADDRESS_FREE + 1) == [401] * ACCOUNT_AND_ADDRESS_FREE + [429]

    waits = []
    for _ in range(14):
        with pytest.raises(TooManyRequests) as blocked:
            await house.accounts.login("ann@example.com", "a wrong guess", HERE)
        waits.append(int(blocked.value.headers["Retry-After"]))
        house.clock.advance(waits[-1])
        assert await failed_logins(house, 1) == [401]

    assert waits[:5] == [1, 2, 4, 8, 16]
    assert waits[-1] == 900


async def test_who_guesses_locks_nobody_else_out(house: House) -> None:
    """The owner logs in from elsewhere, and others log in from here."""
    await house.customer()
    await house.customer("bob@example.com")
    assert (await failed_logins(house, 10))[-1] == 429

    await house.accounts.login("ann@example.com", PASSWORD, "192.0.2.99")
    await house.accounts.login("bob@example.com", PASSWORD, HERE)


async def test_the_right_password_has_to_wait_too_where_it_was_guessed(house: House) -> None:
    """Otherwise the wait would not slow a guesser down; afterwards a success counts from zero again."""
    await house.customer()
    await failed_logins(house, ACCOUNT_AND_ADDRESS_FREE)
    with pytest.raises(TooManyRequests):
        await house.accounts.login("ann@example.com", PASSWORD, HERE)

    house.clock.advance(1)
    await house.accounts.login("ann@example.com", PASSWORD, HERE)

    assert await failed_logins(house, ACCOUNT_AND_ADDRESS_FREE) == [401] * ACCOUNT_AND_ADDRESS_FREE


async def test_guessing_at_many_accounts_from_one_address_is_stopped(house: House) -> None:
    """Also for addresses that nobody has."""
    statuses = [(await failed_logins(house, 1, f"user{n}@example.com"))[0] for n in range(55)]

    assert statuses == [401] * 50 + [429] * 5


async def test_who_logged_in_here_before_is_not_stopped_by_others(house: House) -> None:
    """Behind one address, and for one account, others may guess as they like: the right password still counts."""
    await house.customer()
    await house.accounts.register("bob@example.com", PASSWORD, "Bob", HERE)
    for number in range(105):
        await failed_logins(house, 1, address=f"198.51.100.{number}")
    for number in range(55):
        await failed_logins(house, 1, f"user{number}@example.com")
    with pytest.raises(TooManyRequests):
        await house.accounts.login("ann@example.com", PASSWORD, "203.0.113.1")
    assert await failed_logins(house, 1, "stranger@example.com") == [429]

    for _ in range(3):
        await house.accounts.login("ann@example.com", PASSWORD, HERE)
        await house.accounts.login("bob@example.com", PASSWORD, HERE)


async def test_who_logged_in_here_before_is_stopped_by_failures_of_his_own(house: House) -> None:
    """A known address gives a guesser nothing: the limit of account and address holds."""
    await house.customer()

    assert (await failed_logins(house, ACCOUNT_AND_ADDRESS_FREE + 1))[-1] == 429


async def test_familiar_addresses_are_forgotten(house: House) -> None:
    """An address is noted once a day, and kept for 90 days."""
    await house.customer()
    house.clock.advance(3600)
    await house.accounts.login("ann@example.com", PASSWORD, HERE)
    noted = await house.db.fetchval("SELECT last_at FROM familiar_addresses")
    house.clock.advance(91 * 86_400)
    await house.accounts.prune()

    assert noted == house.clock.now() - timedelta(days=91, hours=1)
    assert await house.db.fetchval("SELECT count(*) FROM familiar_addresses") == 0


async def test_failures_drain_away(house: House) -> None:
    """Behind one address there may be many people: what failed minutes ago counts no longer."""
    for round_number in range(3):
        for number in range(40):
            assert await failed_logins(house, 1, f"user{round_number}-{number}@example.com") == [401]
        house.clock.advance(400)


async def test_logins_that_succeed_are_never_slowed(house: House) -> None:
    """However many there are at once."""
    await house.customer()

    await asyncio.gather(*(house.accounts.login("ann@example.com", PASSWORD, HERE) for _ in range(30)))


async def test_a_refresh_token_gives_new_tokens_once(house: House) -> None:
    """The session stays, both tokens are new."""
    first = await house.customer()
    second = await house.accounts.refresh(first.refresh_token)
    third = await house.accounts.refresh(second.refresh_token)

    assert len({first.refresh_token, second.refresh_token, third.refresh_token}) == 3
    assert house.who(first).session == house.who(third).session


async def test_a_lost_answer_is_given_again(house: House) -> None:
    """A client that repeats its refresh within the grace gets the same token, and the session goes on with it."""
    first = await house.customer()
    second = await house.accounts.refresh(first.refresh_token)
    house.clock.advance(10)
    again = await house.accounts.refresh(first.refresh_token)

    assert again.refresh_token == second.refresh_token
    house.clock.advance(60)
    third = await house.accounts.refresh(again.refresh_token)
    assert house.who(third).session == house.who(first).session
    assert house.accounts.statistics().repeated_refreshes == 1


@pytest.mark.parametrize(("seconds", "used"), [(10.5, False), (1.0, True)])
async def test_a_second_use_ends_the_session(house: House, seconds: float, used: bool) -> None:
    """After the grace, or once the successor was used, two parties have the token: the family ends."""
    first = await house.customer()
    newest = await house.accounts.refresh(first.refresh_token)
    if used:
        newest = await house.accounts.refresh(newest.refresh_token)
    house.clock.advance(seconds)

    for token in (first.refresh_token, newest.refresh_token):
        with pytest.raises(Unauthorized):
            await house.accounts.refresh(token)
    assert [kind for kind, _ in await house.events()].count("session.revoked") == 1


async def test_a_session_of_the_release_before(house: House) -> None:
    """Its unspent token is traded as ever; its spent one, which has no seed, ends the session."""
    first = await house.customer()
    second = await house.accounts.refresh(first.refresh_token)
    await house.db.execute("UPDATE refresh_tokens SET successor_seed = NULL")
    third = await house.accounts.refresh(second.refresh_token)

    with pytest.raises(Unauthorized):
        await house.accounts.refresh(first.refresh_token)
    with pytest.raises(Unauthorized):
        await house.accounts.refresh(third.refresh_token)


async def test_a_refresh_token_used_twice_ends_the_session(house: House) -> None:
    """The newest one of the family is dead too, and gateways are told."""
    first = await house.customer()
    second = await house.accounts.refresh(first.refresh_token)
    house.clock.advance(11)

    for token in (first.refresh_token, second.refresh_token, first.refresh_token):
        with pytest.raises(Unauthorized):
            await house.accounts.refresh(token)

    kind, event = (await house.events())[-1]
    assert kind == "session.revoked"
    assert event["sid"] == house.who(first).session
    assert event["reason"] == "refresh-token-reused"
    assert [kind for kind, _ in await house.events()].count("session.revoked") == 1


async def test_refreshes_at_once_have_one_successor(house: House) -> None:
    """Two tabs that refresh at the same moment get the same token; the session goes on."""
    grant = await house.customer()

    refreshes = (house.accounts.refresh(grant.refresh_token) for _ in range(5))
    (successor,) = {result.refresh_token for result in await asyncio.gather(*refreshes)}

    await house.accounts.refresh(successor)


async def test_an_unknown_refresh_token_is_refused(house: House) -> None:
    """Whatever it is."""
    for token in ("", "made up", "\ud800", "x" * 10_000):
        with pytest.raises(Unauthorized):
            await house.accounts.refresh(token)


async def test_sessions_end_by_rest_and_by_age(house: House) -> None:
    """A token not used for its life is void; a busy session ends too, in the end."""
    idle = await house.customer()
    busy = await house.accounts.login("ann@example.com", PASSWORD, HERE)
    for _ in range(5):
        house.clock.advance(990)
        busy = await house.accounts.refresh(busy.refresh_token)

    with pytest.raises(Unauthorized):
        await house.accounts.refresh(idle.refresh_token)
    house.clock.advance(60)
    with pytest.raises(Unauthorized):
        await house.accounts.refresh(busy.refresh_token)


async def test_logging_out_ends_the_session_once(house: House) -> None:
    """Its refresh token is void, gateways are told until when its access tokens might be shown."""
    grant = await house.customer()
    session = UUID(house.who(grant).session or "")
    await house.accounts.logout(session)
    await house.accounts.logout(session)

    with pytest.raises(Unauthorized):
        await house.accounts.refresh(grant.refresh_token)
    (revoked,) = [event for kind, event in await house.events() if kind == "session.revoked"]
    assert revoked["sid"] == str(session)
    assert revoked["until"] == (house.clock.now() + timedelta(seconds=360)).isoformat().replace("+00:00", "Z")


async def test_a_new_password_ends_all_sessions(house: House) -> None:
    """Whoever had the old password is out, with all sessions; only the new password counts."""
    here = await house.customer()
    grants = [here, *[await house.accounts.login("ann@example.com", PASSWORD, HERE) for _ in range(2)]]

    await house.accounts.change_password(UUID(house.who(here).id), PASSWORD, "a quite new password", HERE)

    for grant in grants:
        with pytest.raises(Unauthorized):
            await house.accounts.refresh(grant.refresh_token)
    revoked = {event["sid"] for kind, event in await house.events() if kind == "session.revoked"}
    assert revoked == {house.who(grant).session for grant in grants}
    with pytest.raises(Unauthorized):
        await house.accounts.login("ann@example.com", PASSWORD, HERE)
    await house.accounts.login("ann@example.com", "a quite new password", HERE)


async def test_changing_a_password_needs_the_one_of_now(house: House) -> None:
    """A stolen access token is not enough, and guessing with it is slowed down too."""
    who = house.who(await house.customer())
    change = (UUID(who.id), "a wrong guess", "a quite new password", HERE)

    for _ in range(ACCOUNT_AND_ADDRESS_FREE):
        with pytest.raises(Unprocessable) as refused:
            await house.accounts.change_password(*change)
        assert [error.pointer for error in refused.value.errors] == ["/current_password"]
    with pytest.raises(TooManyRequests):
        await house.accounts.change_password(*change)


async def test_a_bad_new_password_is_refused(house: House) -> None:
    """The rules of registration hold here too."""
    who = house.who(await house.customer())

    with pytest.raises(Unprocessable) as refused:
        await house.accounts.change_password(UUID(who.id), PASSWORD, "password", HERE)

    assert [error.pointer for error in refused.value.errors] == ["/new_password"]


def change_after_check(house: House, user_id: UUID) -> None:
    """Somebody changes the password right after the next check of it."""
    original = house.passwords.verify

    async def verify(password: str, stored: str | None) -> bool:
        house.passwords.verify = original  # type: ignore[method-assign]
        matches = await original(password, stored)
        await house.accounts.change_password(user_id, PASSWORD, "a quite new password", HERE)
        return matches

    house.passwords.verify = verify  # type: ignore[method-assign]


async def test_of_two_password_changes_at_once_one_is_told(house: House) -> None:
    """It doesn't silently lose, nor win."""
    who = house.who(await house.customer())
    change_after_check(house, UUID(who.id))

    with pytest.raises(Conflict):
        await house.accounts.change_password(UUID(who.id), PASSWORD, "another new password", HERE)

    await house.accounts.login("ann@example.com", "a quite new password", HERE)


async def test_a_login_doesnt_outlive_a_password_change_in_the_same_moment(house: House) -> None:
    """A session whose password was checked before the change, but that is opened after it, is not opened."""
    who = house.who(await house.customer())
    change_after_check(house, UUID(who.id))

    with pytest.raises(Unauthorized):
        await house.accounts.login("ann@example.com", PASSWORD, HERE)


async def test_the_first_admin_is_made_once(house: House) -> None:
    """Two instances that start at the same time make one admin, who may do everything."""
    admin = FirstAdmin("admin@shop.example", PASSWORD)
    assert PASSWORD not in repr(admin)
    for round_number in range(2):
        instances = [house.accounts_with(house.passwords, first_admin=admin) for _ in range(2)]
        await asyncio.gather(*(instance.__aenter__() for instance in instances))
        assert await house.db.fetchval("SELECT count(*) FROM users") == 1, round_number

    who = house.who(await house.accounts.login("admin@shop.example", PASSWORD, HERE))
    assert who.roles == {"customer", "admin"}
    assert {"orders:write", "catalog:write", "inventory:write", "analytics:read"} <= who.scopes


async def test_a_first_admin_against_the_rules_stops_the_start(house: House) -> None:
    """With every reason, and without the password."""
    with pytest.raises(ConfigError) as refused:
        await house.accounts_with(house.passwords, first_admin=FirstAdmin("admin", "tiny")).__aenter__()

    assert [problem.split()[0] for problem in refused.value.problems] == ["ADMIN_EMAIL", "ADMIN_PASSWORD"]
    assert "tiny" not in str(refused.value)


async def test_what_is_over_is_removed(house: House) -> None:
    """Ended and old sessions, spent tokens and old failures go; what lives stays."""
    grant = await house.customer()
    await house.accounts.refresh(grant.refresh_token)
    await failed_logins(house, 1)
    house.clock.advance(3600 * 25)
    fresh = await house.accounts.login("ann@example.com", PASSWORD, HERE)

    await house.accounts.prune()

    assert await house.db.fetchval("SELECT count(*) FROM sessions") == 1
    assert await house.db.fetchval("SELECT count(*) FROM refresh_tokens") == 1
    assert await house.db.fetchval("SELECT count(*) FROM login_failures") == 0
    await house.accounts.refresh(fresh.refresh_token)


async def test_an_account_that_is_gone(house: House) -> None:
    """A token may outlive its user."""
    with pytest.raises(NotFound):
        await house.accounts.me(UUID(int=1))
    with pytest.raises(NotFound):
        await house.accounts.change_password(UUID(int=1), PASSWORD, "a quite new password", HERE)
