"""Key sets: what is taken from one, and how one is kept fresh."""

import asyncio
import json

import pytest

from backstay.auth import InvalidToken, JwksCache, KeysUnavailable, StaticKeys, TokenVerifier
from backstay.auth.signing import jwks
from backstay.testing import FakeClock
from backstay.testing.issuer import TokenIssuer


class Endpoint:
    """A JWKS endpoint that can be down or change its keys."""

    def __init__(self, *issuers: TokenIssuer) -> None:
        self.issuers = list(issuers)
        self.down = False
        self.calls = 0

    async def __call__(self) -> bytes:
        self.calls += 1
        if self.down:
            raise ConnectionError("refused")
        return jwks(issuer.key for issuer in self.issuers)


@pytest.mark.parametrize(
    "document",
    [
        "",
        "[]",
        "{}",
        '{"keys": {}}',
        '{"keys": []}',
        '{"keys": [1, "x", {"kty": "oct", "k": "c2VjcmV0", "kid": "a"}]}',
        '{"keys": [{"kty": "EC", "crv": "P-256", "kid": "a", "x": "AA", "y": "AA"}]}',
        '{"keys": [{"kty": "RSA", "n": "AQAB", "e": "AQAB", "kid": "a"}]}',
        " " * 70_000,
    ],
)
def test_a_document_without_a_usable_key_is_an_error(document: str) -> None:
    """An empty, foreign or oversized key set never replaces a good one."""
    with pytest.raises(ValueError, match=r".+"):
        StaticKeys(document)


def test_unusable_keys_are_ignored_beside_good_ones() -> None:
    """Other algorithms in the key set don't hurt."""
    issuer = TokenIssuer(audience="shop")
    others = [{"kty": "oct", "k": "AA", "kid": "a"}, {**issuer.key.public(), "kid": "enc", "use": "enc"}, {"kty": "EC"}]

    keys = StaticKeys(json.dumps({"keys": [*others, issuer.key.public()]}))

    assert keys.find(issuer.key.kid) is not None
    assert keys.find("enc") is None
    assert keys.find("a") is None


async def test_before_the_first_fetch_nothing_can_be_checked() -> None:
    """No keys yet means "try again", not "your token is bad"; the fetch is repeated until it succeeds."""
    clock, issuer = FakeClock(), TokenIssuer(audience="shop")
    endpoint = Endpoint(issuer)
    endpoint.down = True
    async with JwksCache(endpoint, clock=clock) as keys:
        verifier = TokenVerifier(issuer.issuer, issuer.audience, keys)
        await clock.settle()
        with pytest.raises(KeysUnavailable, match="refused") as unavailable:
            verifier.verify(issuer.token())
        assert unavailable.value.retry_after > 0
        assert not keys.ready

        endpoint.down = False
        await clock.run(10)

        assert verifier.verify(issuer.token()).id == "user-1"
        assert keys.ready


async def test_the_last_good_keys_survive_an_outage_but_not_for_ever() -> None:
    """While the issuer is down its keys stay in use until they are too old."""
    clock, issuer = FakeClock(), TokenIssuer(audience="shop")
    endpoint = Endpoint(issuer)
    async with JwksCache(endpoint, clock=clock, refresh=60, max_staleness=600) as keys:
        await clock.settle()
        endpoint.down = True

        await clock.run(590)
        assert keys.find(issuer.key.kid) is not None

        await clock.run(20)
        with pytest.raises(KeysUnavailable):
            keys.find(issuer.key.kid)


async def test_garbage_from_the_issuer_does_not_wipe_the_keys() -> None:
    """An answer that is no key set counts as a failed fetch."""
    clock, issuer = FakeClock(), TokenIssuer(audience="shop")
    answers = [issuer.jwks, b"<html>", b'{"keys": []}']

    async def fetch() -> bytes:
        return answers.pop(0) if len(answers) > 1 else answers[0]

    async with JwksCache(fetch, clock=clock, refresh=60) as keys:
        await clock.run(200)

        assert keys.find(issuer.key.kid) is not None
        assert keys.problem is not None


async def test_an_unknown_key_id_asks_for_a_fetch_now_and_then() -> None:
    """A rotated key is picked up at once, but a flood of made-up ids makes no flood of fetches."""
    clock, old, new = FakeClock(), TokenIssuer(audience="shop"), TokenIssuer(audience="shop")
    endpoint = Endpoint(old)
    async with JwksCache(endpoint, clock=clock, refresh=1000, refetch=10) as keys:
        await clock.settle()
        endpoint.issuers.append(new)
        for _ in range(100):
            assert keys.find(new.key.kid) is None
        await clock.settle()
        assert endpoint.calls == 1

        clock.advance(10)
        for _ in range(100):
            keys.find(new.key.kid)
        await clock.settle()

        assert endpoint.calls == 2
        assert keys.find(new.key.kid) is not None


async def test_a_key_that_left_the_set_is_refused_after_the_next_fetch() -> None:
    """Rotation reaches the verifier's memory of tokens too."""
    clock, old, new = FakeClock(), TokenIssuer(audience="shop"), TokenIssuer(audience="shop")
    endpoint = Endpoint(old, new)
    async with JwksCache(endpoint, clock=clock, refresh=60) as keys:
        await clock.settle()
        verifier = TokenVerifier(old.issuer, old.audience, keys)
        token = old.token()
        verifier.verify(token)
        endpoint.issuers.remove(old)

        await clock.run(61)

        with pytest.raises(InvalidToken, match="unknown key id"):
            verifier.verify(token)
        assert verifier.verify(new.token()).id == "user-1"


async def test_a_fetch_that_hangs_is_given_up() -> None:
    """A fetch has a time limit; the next one may succeed."""
    clock, issuer = FakeClock(), TokenIssuer(audience="shop")
    calls = 0

    async def fetch() -> bytes:
        nonlocal calls
        calls += 1
        if calls == 1:
            await asyncio.Event().wait()
        return issuer.jwks

    async with JwksCache(fetch, clock=clock, timeout=0.01) as keys:
        async with asyncio.timeout(5):
            while keys.problem is None:
                await asyncio.sleep(0.005)
        await clock.run(1)

        assert keys.ready
