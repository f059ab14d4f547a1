"""Settings of auth."""

import pytest

from backstay.errors import ConfigError
from shop.auth.main import settings

ENVIRON = {"TOKEN_ISSUER": "https://auth.test"}


def test_defaults_are_those_recommended() -> None:
    """OWASP's Argon2id, five minutes, no client."""
    read = settings(ENVIRON)

    assert (read.argon2_memory_kib, read.argon2_time, read.argon2_parallelism) == (19_456, 2, 1)
    assert read.access_token_life == 300
    assert read.service_clients == {}


def test_clients_are_read_and_never_shown() -> None:
    """Their secrets are in no repr."""
    read = settings(
        {**ENVIRON, "CLIENTS": '[{"id": "orders", "secret": "0123456789abcdef", "scope": "a b", "audience": "c"}]'}
    )

    assert read.service_clients["orders"].scope == "a b"
    assert read.service_clients["orders"].audience == "c"
    assert "0123456789abcdef" not in repr(read)
    assert "0123456789abcdef" not in repr(read.service_clients)


def test_every_mistake_is_named_without_its_secret() -> None:
    """All at once, and nothing secret among it."""
    wrong = {
        "CLIENTS": '[{"id": "orders", "secret": "tiny-secret"}]',
        "ADMIN_EMAIL": "admin@shop.example",
        "ADMIN_PASSWORD": "",
        "KEY_ENCRYPTION_SECRET": "small",
    }
    with pytest.raises(ConfigError) as refused:
        settings(wrong)

    named = "\n".join(refused.value.problems)
    assert len(refused.value.problems) == 4
    for key in (*wrong, "TOKEN_ISSUER"):
        assert key in named
    assert not any(secret in named for secret in ("tiny-secret", "small"))


def test_two_clients_of_one_id_are_a_mistake() -> None:
    """One of them would be unreachable."""
    twice = '[{"id": "a", "secret": "0123456789abcdef"}, {"id": "a", "secret": "0123456789abcdee"}]'

    with pytest.raises(ConfigError, match="same id"):
        settings({**ENVIRON, "CLIENTS": twice})


@pytest.mark.parametrize(
    ("more", "reason"),
    [
        ("", "orders has no audience"),
        (', "audience": " "', "orders has no audience"),
        (', "audience": "payments shop"', "orders has the audience 'shop'"),
        (', "audiences": "payments"', "audiences"),
    ],
)
def test_a_client_names_the_services_that_it_may_call(more: str, reason: str) -> None:
    """And never the audience of customers."""
    clients = f'[{{"id": "orders", "secret": "0123456789abcdef"{more}}}]'

    with pytest.raises(ConfigError, match=reason):
        settings({**ENVIRON, "CLIENTS": clients})
