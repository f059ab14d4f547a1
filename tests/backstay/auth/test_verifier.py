"""The check of bearer tokens."""

import base64
import hmac
import json
import time
from dataclasses import dataclass

import pytest
from hypothesis import given
from hypothesis import strategies as st

from backstay.auth import Forbidden, InvalidToken, Principal, StaticKeys, TokenVerifier, require
from backstay.errors import ConfigError
from backstay.testing.issuer import TokenIssuer

issuer = TokenIssuer(audience="shop")
kid = issuer.key.kid


def verifier(**options: object) -> TokenVerifier:
    return TokenVerifier(issuer.issuer, issuer.audience, StaticKeys(issuer.jwks), **options)  # type: ignore[arg-type]


def test_a_good_token_tells_who_asks() -> None:
    """Subject, roles, scopes, session and client come from the claims, as str or bytes."""
    token = issuer.token(iat=1_999_999_000, exp=2_000_000_000, scope="orders:read orders:write")

    who = verifier(now=lambda: 1_999_999_500.0).verify(token)

    assert who == Principal(
        "user-1",
        frozenset({"customer"}),
        frozenset({"orders:read", "orders:write"}),
        "session-of-user-1",
        "web",
        2_000_000_000.0,
    )
    assert who == verifier(now=lambda: 1_999_999_500.0).verify(token.encode())
    assert not who.is_service


def test_a_client_credentials_token_is_a_service() -> None:
    """A token whose subject is its client and that has no session belongs to a service."""
    who = verifier().verify(issuer.service_token("orders", scope="payments:charge"))

    assert who.is_service
    assert frozenset() == who.roles


def test_several_audiences_are_fine_if_ours_is_among_them() -> None:
    """RFC 7519 allows a list of audiences."""
    assert verifier().verify(issuer.token(aud=["bank", issuer.audience])).id == "user-1"


def test_a_services_token_counts_at_its_target_and_nowhere_else() -> None:
    """Stolen from the calls of one service, it opens no other."""
    token = issuer.service_token("orders", scope="payments:charge", audience="payments")

    who = verifier(service="payments").verify(token)

    assert (who.internal, who.is_service, who.id) == (True, True, "orders")
    for other in (verifier(service="inventory"), verifier(service="auth"), verifier()):
        with pytest.raises(InvalidToken, match="wrong audience"):
            other.verify(token)


def test_a_customers_token_is_never_internal() -> None:
    """Whatever it names: it belongs to no service."""
    checked = verifier(service="payments")

    assert not checked.verify(issuer.token()).internal
    assert not checked.verify(issuer.token(aud=["payments", issuer.audience])).internal
    for claims in ({"aud": "payments"}, {"aud": "payments", "sid": None}, {"aud": "payments", "client_id": "user-1"}):
        with pytest.raises(InvalidToken, match="wrong audience"):
            checked.verify(issuer.token(**claims))


def test_a_services_token_of_customers_audience_is_not_internal() -> None:
    """It was not issued for calls of this service."""
    assert not verifier(service="payments").verify(issuer.service_token("orders", scope="a")).internal


def test_the_audiences_of_customers_and_services_differ() -> None:
    """Else every customer's audience would be a service's."""
    with pytest.raises(ConfigError, match="TOKEN_AUDIENCE='shop'"):
        verifier(service="shop")


@dataclass(frozen=True)
class From:
    """A time, in seconds from the moment at which the test runs."""

    seconds: int


@pytest.mark.parametrize(
    ("claims", "reason"),
    [
        ({"iss": "https://evil.test"}, "wrong issuer"),
        ({"iss": None}, "wrong issuer"),
        ({"aud": "bank"}, "wrong audience"),
        ({"aud": None}, "wrong audience"),
        ({"aud": ["bank"]}, "wrong audience"),
        ({"exp": From(-61)}, "expired"),
        ({"exp": None}, "claim exp is missing"),
        ({"exp": "tomorrow"}, "claim exp is not a time"),
        ({"exp": True}, "claim exp is not a time"),
        ({"nbf": From(+86_400)}, "not valid yet"),
        ({"iat": From(+86_400)}, "not valid yet"),
        ({"sub": None}, "claim sub is missing"),
        ({"sub": ""}, "claim sub is missing"),
        ({"iat": None}, "claim iat is missing"),
        ({"jti": None}, "claim jti is missing"),
        ({"jti": 7}, "claim jti is missing"),
        ({"client_id": None}, "claim client_id is missing"),
        ({"client_id": ""}, "claim client_id is missing"),
        ({"iat": From(-3300), "exp": From(+301)}, "lifetime is not between 0 and 3600 seconds"),
        ({"iat": From(+20), "exp": From(+10)}, "lifetime is not between 0 and 3600 seconds"),
        ({"aud": 7}, "wrong audience"),
        ({"aud": [["shop"]]}, "wrong audience"),
        ({"scope": ["orders:read"]}, "claim scope is not a string"),
        ({"roles": "admin"}, "claim roles is not a list of strings"),
        ({"roles": [1]}, "claim roles is not a list of strings"),
    ],
)
def test_wrong_claims_are_refused(claims: dict[str, object], reason: str) -> None:
    """Each claim that matters is checked, and the refusal says which."""
    now = int(time.time())
    claims = {name: now + value.seconds if isinstance(value, From) else value for name, value in claims.items()}
    with pytest.raises(InvalidToken) as refused:
        verifier().verify(issuer.token(**claims))

    assert refused.value.reason == reason


@pytest.mark.parametrize(
    ("header", "reason"),
    [
        ({"typ": "JWT"}, "type is not at+jwt"),
        ({"typ": None}, "type is not at+jwt"),
        ({"kid": "unknown"}, "unknown key id"),
        ({"kid": None}, "key id is missing"),
        ({"jku": "https://evil.test/jwks.json"}, "header names a key or an extension"),
        ({"x5u": "https://evil.test/cert.pem"}, "header names a key or an extension"),
        ({"jwk": issuer.key.public()}, "header names a key or an extension"),
        ({"crit": ["b64"], "b64": True}, "header names a key or an extension"),
    ],
)
def test_wrong_headers_are_refused(header: dict[str, object], reason: str) -> None:
    """A token neither chooses its type nor brings its own key, nor asks for an extension."""
    good_header, payload, signature = issuer.token().split(".")
    fields = {**json.loads(_decode(good_header)), **header}
    forged = _encode({name: value for name, value in fields.items() if value is not None})

    with pytest.raises(InvalidToken) as refused:
        verifier().verify(f"{forged}.{payload}.{signature}")

    assert refused.value.reason == reason


def test_no_algorithm_but_ours() -> None:
    """`none`, and HS256 keyed with the public key, are refused before any key is looked at."""
    header, payload, _ = issuer.token().split(".")
    unsigned = _encode({**json.loads(_decode(header)), "alg": "none"})

    signed = f"{_encode({'alg': 'HS256', 'typ': 'at+jwt', 'kid': kid})}.{payload}"
    mac = hmac.digest(issuer.key.public_pem(), signed.encode(), "sha256")
    confused = f"{signed}.{base64.urlsafe_b64encode(mac).rstrip(b'=').decode()}"

    for token in (f"{unsigned}.{payload}.", confused):
        with pytest.raises(InvalidToken, match="algorithm is not ES256"):
            verifier().verify(token)


def test_a_changed_payload_is_refused() -> None:
    """The signature covers the claims."""
    header, payload, signature = issuer.token().split(".")
    claims = {**json.loads(_decode(payload)), "roles": ["admin"]}

    with pytest.raises(InvalidToken, match="bad signature"):
        verifier().verify(f"{header}.{_encode(claims)}.{signature}")


def test_another_issuers_key_of_the_same_id_is_refused() -> None:
    """The key id only names a key, the signature proves it."""
    stranger = TokenIssuer(audience="shop")

    with pytest.raises(InvalidToken, match="bad signature"):
        verifier().verify(stranger.token(header={"kid": kid}))


def test_clocks_may_differ_by_the_leeway() -> None:
    """A token that ended within the leeway still counts, a second later it doesn't."""
    token = issuer.token(iat=1000, exp=1300)

    assert verifier(now=lambda: 1329.0).verify(token).id == "user-1"
    with pytest.raises(InvalidToken, match="expired"):
        verifier(now=lambda: 1330.0).verify(token)


def test_a_token_is_checked_once_until_it_expires() -> None:
    """The second check is a look-up; after its end the remembered token is refused too."""
    time_now = [1000.0]
    checked = verifier(now=lambda: time_now[0])
    token = issuer.token(iat=1000, exp=1300)

    first, second = checked.verify(token), checked.verify(token)

    assert first is second
    assert checked.statistics().verified == checked.statistics().cache_hits == 1
    time_now[0] = 1331.0
    with pytest.raises(InvalidToken, match="expired"):
        checked.verify(token)
    assert checked.statistics().cached == 0


def test_the_cache_is_bounded() -> None:
    """However many tokens come, no more than `cache` are kept."""
    checked = verifier(cache=3)

    for number in range(10):
        checked.verify(issuer.token(jti=str(number)))

    assert checked.statistics().cached == 3


def test_a_retired_key_ends_its_tokens() -> None:
    """When the key set changes, what was remembered is checked again with the keys of now."""

    class Changing(StaticKeys):
        version = 1

    keys = Changing(issuer.jwks)
    checked = TokenVerifier(issuer.issuer, issuer.audience, keys)
    token = issuer.token()
    checked.verify(token)

    keys.__init__(TokenIssuer(audience="shop").jwks)  # type: ignore[misc]
    keys.version = 2

    with pytest.raises(InvalidToken, match="unknown key id"):
        checked.verify(token)


@given(st.one_of(st.text(), st.binary(), st.from_regex(r"[A-Za-z0-9_-]*\.[A-Za-z0-9_-]*\.[A-Za-z0-9_-]*")))
def test_nothing_but_a_refusal_comes_from_garbage(token: str | bytes) -> None:
    """No input makes the verifier raise anything but InvalidToken."""
    with pytest.raises(InvalidToken):
        verifier().verify(token)


@given(st.dictionaries(st.sampled_from(["alg", "typ", "kid", "crit", "x"]), st.recursive(st.text(), st.lists)))
def test_nothing_but_a_refusal_comes_from_odd_headers(header: dict[str, object]) -> None:
    """A header of any shape is refused, never an error of another kind."""
    with pytest.raises(InvalidToken):
        verifier().verify(f"{_encode(header)}.e30.c2ln")


def test_too_long_a_token_is_refused_unread() -> None:
    """Size is checked before anything is decoded."""
    with pytest.raises(InvalidToken, match="longer than"):
        verifier().verify("a" * 9000)


def test_require_names_what_is_missing() -> None:
    """A missing scope or role is said by name; what is there passes."""
    who = verifier().verify(issuer.token())

    require(who, scope="orders:read", role="customer")
    with pytest.raises(Forbidden) as missing_scope:
        require(who, scope="catalog:write")
    with pytest.raises(Forbidden) as missing_role:
        require(who, role="admin")

    assert missing_scope.value.scope == "catalog:write"
    assert missing_role.value.role == "admin"


def _encode(value: object) -> str:
    return base64.urlsafe_b64encode(json.dumps(value).encode()).rstrip(b"=").decode()


def _decode(part: str) -> bytes:
    return base64.urlsafe_b64decode(part + "=" * (-len(part) % 4))
