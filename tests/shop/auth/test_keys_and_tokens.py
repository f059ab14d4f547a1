"""Signing keys, their rotation, and tokens for services."""

import asyncio
import json
from uuid import UUID

import pytest

from backstay.auth import InvalidToken, StaticKeys, TokenVerifier
from backstay.errors import ConfigError
from shop.auth.providers import KeySafe
from shop.auth.service import KeyRing, TokenRefused

from .conftest import ISSUER, House

SESSION = UUID(int=9)
USER = UUID(int=7)


def kids(keys: KeyRing) -> list[str]:
    return [key["kid"] for key in json.loads(keys.document)["keys"]]


def verifier(house: House, document: bytes, service: str | None = None) -> TokenVerifier:
    keys = StaticKeys(document)
    return TokenVerifier(ISSUER, "shop", keys, service=service, now=lambda: house.clock.now().timestamp())


async def test_two_keys_are_published_without_their_private_halves(house: House) -> None:
    """The one that signs, and the one that will."""
    published = json.loads(house.keys.document)["keys"]

    assert len(published) == 2
    assert all(set(key) == {"kty", "crv", "x", "y", "kid", "use", "alg"} for key in published)
    assert house.keys.current.kid in kids(house.keys)


async def test_all_instances_share_the_keys(house: House) -> None:
    """Also those that start at the same moment on an empty database."""
    await house.db.execute("DELETE FROM signing_keys")
    rings = [house.key_ring() for _ in range(3)]

    await asyncio.gather(*(ring.__aenter__() for ring in rings))
    await asyncio.gather(*(ring.__aexit__(None, None, None) for ring in rings))

    assert len({ring.document for ring in rings}) == 1
    assert len({ring.current.kid for ring in rings}) == 1


async def test_a_rotation_hands_over_without_anybody_noticing(house: House) -> None:
    """Tokens of the old key count during the overlap; the new key was published before it signed."""
    before = house.keys.document
    old = house.tokens.for_session(USER, ["customer"], SESSION).value
    old_kid = house.keys.current.kid

    house.clock.advance(1000)
    old_late = house.tokens.for_session(USER, ["customer"], SESSION).value
    assert await house.keys.rotate_if_due()
    assert not await house.keys.rotate_if_due()

    assert house.keys.current.kid != old_kid
    assert house.keys.current.kid in [key["kid"] for key in json.loads(before)["keys"]]
    assert len(kids(house.keys)) == 3
    new = house.tokens.for_session(USER, ["customer"], SESSION).value
    assert verifier(house, house.keys.document).verify(old_late).id == str(USER)
    assert verifier(house, before).verify(new).id == str(USER)
    with pytest.raises(InvalidToken, match="expired"):
        verifier(house, house.keys.document).verify(old)


async def test_a_retired_key_is_published_until_its_last_token_is_over(house: House) -> None:
    """Token life and cache time; afterwards it is gone for good."""
    old_kid = house.keys.current.kid
    house.clock.advance(1000)
    await house.keys.rotate_if_due()
    token = house.tokens.for_session(USER, ["customer"], SESSION).value

    house.clock.advance(600 + 60 + 59)
    await house.keys.rotate_if_due()
    assert old_kid in kids(house.keys)

    house.clock.advance(1)
    await house.keys.rotate_if_due()
    assert old_kid not in kids(house.keys)
    assert len(kids(house.keys)) == 2
    with pytest.raises(InvalidToken):
        verifier(house, house.keys.document).verify(token)


async def test_two_instances_rotate_once(house: House) -> None:
    """Whoever comes second sees that it is done."""
    async with house.key_ring() as other:
        house.clock.advance(1000)

        rotated = await asyncio.gather(house.keys.rotate_if_due(), other.rotate_if_due())

        assert sorted(rotated) == [False, True]
        await house.keys.refresh()
        await other.refresh()
        assert house.keys.current.kid == other.current.kid


async def test_other_instances_learn_of_a_rotation_by_themselves(house: House) -> None:
    """Within seconds."""
    async with house.key_ring() as other:
        house.clock.advance(1000)
        await house.keys.rotate_if_due()
        async with asyncio.timeout(5):
            while other.current.kid != house.keys.current.kid:
                house.clock.advance(5)
                await asyncio.sleep(0.01)


async def test_private_keys_are_encrypted_at_rest(house: House) -> None:
    """Who reads the database can't sign; who has another secret is told so."""
    await house.db.execute("DELETE FROM signing_keys")
    async with house.key_ring("a secret of auth") as sealed:
        stored = await house.db.fetch("SELECT sealed FROM signing_keys")
        assert not any(b"PRIVATE KEY" in bytes(row["sealed"]) for row in stored)

        async with house.key_ring("a secret of auth") as same:
            assert same.current.kid == sealed.current.kid
        for wrong in ("another secret here", ""):
            with pytest.raises(ConfigError, match="KEY_ENCRYPTION_SECRET"):
                await house.key_ring(wrong).__aenter__()


def test_a_sealed_key_belongs_to_its_id() -> None:
    """Rows of the table can't be swapped."""
    safe = KeySafe("a secret of auth")

    sealed = safe.seal("one", b"private")
    assert safe.open("one", sealed) == b"private"
    with pytest.raises(ConfigError):
        safe.open("two", sealed)


async def test_a_service_gets_a_token_of_its_own(house: House) -> None:
    """With all its scopes, or those it asks for."""
    issued = house.clients.token("orders", "0123456789abcdef", None)
    who = verifier(house, house.keys.document, "payments").verify(issued.value)

    assert who.is_service
    assert who.internal, "a client with one audience need not name it"
    assert (who.id, who.scopes, who.roles) == ("orders", {"payments:charge", "payments:read"}, frozenset())
    assert issued.life == 600
    assert house.clients.token("orders", "0123456789abcdef", "payments:read").scope == "payments:read"


async def test_who_gets_no_token(house: House) -> None:
    """Wrong or unknown, it is one answer; more than allowed is another."""
    secret = "0123456789abcdef"
    cases = [
        ("orders", "wrong", None, "invalid_client"),
        ("orders", "", None, "invalid_client"),
        ("unknown", secret, None, "invalid_client"),
        ("nobody", "no such client has this secret", None, "invalid_client"),
        ("orders", secret, "payments:read catalog:write", "invalid_scope"),
    ]
    for client, given, scope, code in cases:
        with pytest.raises(TokenRefused) as refused:
            house.clients.token(client, given, scope)

        assert refused.value.code == code, client
