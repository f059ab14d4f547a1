"""The rules of auth, without any I/O."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shop.auth.model import (
    ADMIN,
    CUSTOMER,
    KeyRecord,
    KeyState,
    RefreshToken,
    Use,
    email_flaws,
    email_key,
    failure_limits,
    guessable_pieces,
    is_rotation_due,
    name_flaws,
    new_refresh_token,
    normalised,
    password_flaws,
    scopes_of,
    successor_of,
)

NOW = datetime(2026, 1, 1, tzinfo=UTC)
LATER = NOW + timedelta(days=1)


@pytest.mark.parametrize(
    "email", ["a@b.co", "Ann.Lee+x@Shop.Example", "o'neil@sub.domain.example", " ann@example.com "]
)
def test_good_addresses(email: str) -> None:
    """Usual addresses are taken, blanks around them don't matter."""
    assert email_flaws(email) == []


@pytest.mark.parametrize(
    "email",
    [
        "",
        "ann",
        "ann@",
        "@example.com",
        "ann@localhost",
        "a b@example.com",
        "ann@example..com",
        "ann@-x.com",
        "ann@example.com\r\nBcc: x@y.z",
        "a@b@c.de",
        ".ann@example.com",
        "ann@exa_mple.com",
        "x" * 65 + "@example.com",
        "ann@" + "x" * 64 + ".com",
        "ann@" + "x." * 130 + "com",
        "ann@example.com\0",
    ],
)
def test_bad_addresses(email: str) -> None:
    """What can't be delivered to, or would smuggle header lines into a mail, is refused."""
    assert [flaw.pointer for flaw in email_flaws(email)] == ["/email"]


@given(st.emails(), st.sampled_from([str.upper, str.lower, str.title, lambda text: f" {text} "]))
def test_an_address_is_known_in_every_spelling(email: str, spell: object) -> None:
    """Upper and lower case and blanks make no second account."""
    if email.isascii():
        assert email_key(spell(email)) == email_key(email)  # type: ignore[operator]


@pytest.mark.parametrize("password", ["password", "ünïcödé!", "密码密码密码密碼", "ab" * 64, "        x"])
def test_good_passwords(password: str) -> None:
    """Any characters, 8 to 128 of them: the form of a password is the user's own business."""
    assert password_flaws(password, "ann@example.com") == []


@pytest.mark.parametrize(
    "password",
    ["", "short", "ab" * 64 + "c", "ann@example.com", "Ann@Example.com"],
)
def test_bad_passwords(password: str) -> None:
    """Too short, too long, or the address itself."""
    assert [flaw.pointer for flaw in password_flaws(password, "ann@example.com")] == ["/password"]


def test_the_same_characters_are_the_same_password() -> None:
    """Composed and decomposed letters, as different keyboards send them, hash alike."""
    assert normalised("pässword") == normalised("pässword")


@pytest.mark.parametrize(
    ("name", "good"), [("Ann", True), ("", False), ("  ", False), ("a\nb", False), ("x" * 101, False)]
)
def test_names(name: str, good: bool) -> None:
    """A name is short and has no line breaks that could reach a mail's header."""
    assert (name_flaws(name) == []) == good


def test_an_admin_may_do_what_a_customer_may_and_more() -> None:
    """Scopes of roles add up, each once."""
    both = scopes_of([ADMIN, CUSTOMER])

    assert set(scopes_of([CUSTOMER])) < set(both)
    assert len(set(both)) == len(both)
    assert scopes_of(["unknown"]) == ()


def test_refresh_tokens_are_long_and_never_the_same() -> None:
    """256 bits."""
    tokens = {new_refresh_token() for _ in range(100)}

    assert len(tokens) == 100
    assert all(len(token) >= 43 for token in tokens)


def test_failures_count_against_narrow_and_wide_limits() -> None:
    """Who guesses is stopped soon, the owner elsewhere late; no limit's name tells the address it is for."""
    here, there = failure_limits("ann@example.com", "192.0.2.1"), failure_limits("ann@example.com", "192.0.2.2")

    assert len({limit.key for limit in here} & {limit.key for limit in there}) == 1
    assert here[0].free < here[1].free
    assert not any("ann" in limit.key for limit in here)


def key(state: KeyState, age: float) -> KeyRecord:
    born = NOW - timedelta(seconds=age)
    return KeyRecord(state.value, state, b"", born, born if state is KeyState.CURRENT else None)


@pytest.mark.parametrize(
    ("current", "following", "due"), [(1000, 1000, True), (999, 1000, False), (1000, 119, False), (1000, 120, True)]
)
def test_when_a_rotation_is_due(current: float, following: float, due: bool) -> None:
    """The current key is old enough, and everybody has had the time to learn the next one."""
    keys = [key(KeyState.CURRENT, current), key(KeyState.NEXT, following)]

    assert is_rotation_due(keys, NOW, age=1000, published=120) is due


def test_without_a_next_key_there_is_no_rotation() -> None:
    """A key that nobody knows never signs."""
    assert not is_rotation_due([key(KeyState.CURRENT, 10_000)], NOW, age=1, published=1)


GRACE = timedelta(seconds=10)


def spent(ago: float, seed: bytes | None = b"seed", **changed: Any) -> RefreshToken:
    """A token that was used so many seconds ago."""
    token = RefreshToken(UUID(int=1), UUID(int=2), (CUSTOMER,), LATER, None, None, LATER, seed)
    return replace(token, **{"used_at": NOW - timedelta(seconds=ago), **changed})


@pytest.mark.parametrize(
    ("token", "use"),
    [
        (spent(0, used_at=None, successor_seed=None), Use.FIRST),
        (spent(0, used_at=None, expires_at=NOW), Use.EXPIRED),
        (spent(0, used_at=None, session_expires_at=NOW), Use.EXPIRED),
        (spent(0), Use.AGAIN),
        (spent(10), Use.AGAIN),
        (spent(-2), Use.AGAIN),
        (spent(10.001), Use.REUSED),
        (spent(1, seed=None), Use.REUSED),
        (spent(1, session_expires_at=NOW), Use.REUSED),
        (spent(1, session_ended_at=NOW), Use.ENDED),
    ],
)
def test_use_of_a_refresh_token(token: RefreshToken, use: Use) -> None:
    """First use, repeat within the grace, reuse, and what is over; a token spent by an older release has no grace."""
    assert token.use(NOW, GRACE) is use


def test_a_successor_needs_token_and_seed() -> None:
    """Both together give the same successor each time; another token or seed gives another one."""
    assert successor_of("token", b"seed") == successor_of("token", b"seed")
    assert len({successor_of(token, seed) for token in ("a", "b", "\ud800") for seed in (b"1", b"2")}) == 6


@pytest.mark.parametrize(
    ("password", "pieces"),
    [("short", ["short"]), ("ab" * 64, ["ab"]), ("x" * 128, ["x"]), ("Ab1!" * 8 + "z", ["Ab1!" * 8, "z"])],
)
def test_repetition_makes_no_better_password(password: str, pieces: list[str]) -> None:
    """A repeated text is estimated once, a long one in parts."""
    assert guessable_pieces(password) == pieces
