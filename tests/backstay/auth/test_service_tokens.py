"""A service's own token."""

import json
from urllib.parse import parse_qs

import pytest

from backstay.auth import ServiceTokens, TokenUnavailable, parse_token
from backstay.testing import FakeClock


class Endpoint:
    """A token endpoint that counts, and can be down."""

    def __init__(self) -> None:
        self.forms: list[dict[str, list[str]]] = []
        self.down = False

    async def __call__(self, form: bytes) -> bytes:
        if self.down:
            raise ConnectionError("refused")
        self.forms.append(parse_qs(form.decode()))
        return json.dumps({"access_token": f"token-{len(self.forms)}", "expires_in": 600}).encode()


async def test_the_form_is_that_of_client_credentials() -> None:
    """RFC 6749 §4.4: grant type, client and scope, urlencoded."""
    endpoint, clock = Endpoint(), FakeClock()
    async with ServiceTokens(endpoint, "orders", "s&cret", "payments:charge payments:read", clock=clock):
        await clock.settle()

    assert endpoint.forms == [
        {
            "grant_type": ["client_credentials"],
            "client_id": ["orders"],
            "client_secret": ["s&cret"],
            "scope": ["payments:charge payments:read"],
        }
    ]


async def test_the_form_names_the_service_to_be_called() -> None:
    """As the audience of the token (RFC 8707 with a service's name for its address)."""
    endpoint, clock = Endpoint(), FakeClock()
    async with ServiceTokens(endpoint, "orders", "secret", audience="payments", clock=clock):
        await clock.settle()

    assert endpoint.forms[0]["audience"] == ["payments"]


@pytest.mark.parametrize(
    "answer",
    [
        b"",
        b"[]",
        b'"x"',
        b"{}",
        b'{"access_token": "a"}',
        b'{"access_token": 7, "expires_in": 600}',
        b'{"access_token": "", "expires_in": 600}',
        b'{"access_token": "a\\r\\nx: y", "expires_in": 600}',
        b'{"access_token": "a", "expires_in": 0}',
        b'{"access_token": "a", "expires_in": "600"}',
        b'{"access_token": "a", "expires_in": true}',
        b'{"access_token": "a", "expires_in": 1e300}',
        b'{"access_token": "a", "expires_in": NaN}',
    ],
)
def test_what_is_no_token_is_refused(answer: bytes) -> None:
    """A token goes into a header as it is, and its life into a timer."""
    with pytest.raises(ValueError):  # noqa: PT011 - JSON's own error is one, too
        parse_token(answer)


async def test_a_token_is_renewed_at_half_of_its_life() -> None:
    """Callers never meet a token that is about to end while the issuer is there."""
    endpoint, clock = Endpoint(), FakeClock()
    async with ServiceTokens(endpoint, "orders", "secret", clock=clock) as tokens:
        await clock.settle()
        assert tokens.token() == "token-1"

        await clock.run(299)
        assert tokens.token() == "token-1"
        await clock.run(1)
        assert tokens.token() == "token-2"


async def test_a_token_is_kept_while_the_issuer_is_down_until_it_ends() -> None:
    """An outage of auth shorter than half a token's life is not noticed."""
    endpoint, clock = Endpoint(), FakeClock()
    async with ServiceTokens(endpoint, "orders", "secret", clock=clock) as tokens:
        await clock.settle()
        endpoint.down = True

        await clock.run(590)
        assert tokens.token() == "token-1"
        await clock.run(10)
        assert not tokens.ready
        with pytest.raises(TokenUnavailable, match=r"no service token for orders: ConnectionError: refused"):
            tokens.token()

        endpoint.down = False
        await clock.run(5)
        assert tokens.token() == "token-2"


async def test_without_an_issuer_the_start_does_not_wait() -> None:
    """Entering returns at once; asking for a token is a ConnectionError until there is one."""
    endpoint, clock = Endpoint(), FakeClock()
    endpoint.down = True
    async with ServiceTokens(endpoint, "orders", "secret", clock=clock) as tokens:
        with pytest.raises(ConnectionError, match="has not answered yet"):
            tokens.token()


async def test_a_refused_token_can_be_renewed_at_once() -> None:
    """`renew` fetches another one before it is due."""
    endpoint, clock = Endpoint(), FakeClock()
    async with ServiceTokens(endpoint, "orders", "secret", clock=clock) as tokens:
        await clock.settle()
        tokens.renew()
        await clock.settle()

        assert tokens.token() == "token-2"


def test_the_secret_is_not_in_the_repr() -> None:
    """A token source may be logged."""
    assert "s3cret" not in repr(ServiceTokens(Endpoint(), "orders", "s3cret"))
