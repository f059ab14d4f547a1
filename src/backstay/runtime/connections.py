"""What a process reaches others by, made from its settings: the registry, the issuer's keys, the broker."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from backstay.auth import FixedEndpoints, JwksCache, TokenVerifier, parse_jwks
from backstay.discovery import EurekaClient
from backstay.http import HttpClient
from backstay.runtime.composition import Composition
from backstay.runtime.settings import KafkaSettings, RegistrationSettings, TokenSettings

if TYPE_CHECKING:
    from backstay.messaging import KafkaBroker


def registry_client(settings: RegistrationSettings, http: HttpClient) -> EurekaClient | None:
    """Return the client of the registry that `DISCOVERY_URL` names; None if it names none."""
    if not settings.discovery_url:
        return None
    return EurekaClient(
        settings.discovery_url.split(","),
        heartbeat=settings.heartbeat_interval,
        lease=settings.lease_duration,
        fetch=settings.fetch_interval,
        http=http,
    )


async def enter_issuer_keys(parts: Composition, settings: TokenSettings, http: HttpClient) -> JwksCache:
    """Fetch the keys of `JWKS_URL` in the background from now on."""
    endpoints = FixedEndpoints(settings.jwks_url, http, variable="JWKS_URL", check=parse_jwks)
    return await parts.enter("keys", JwksCache(endpoints.get, timeout=endpoints.timeout))


def token_verifier(settings: TokenSettings, keys: JwksCache, *, service: str | None = None) -> TokenVerifier:
    """Return what checks access tokens; `service` is the audience of tokens for this process alone."""
    return TokenVerifier(
        settings.token_issuer,
        settings.token_audience,
        keys,
        service=service,
        max_lifetime=settings.token_max_lifetime,
    )


def missing_for_tokens(settings: TokenSettings, routes: Sequence[str] = ()) -> list[str]:
    """Return what is not set, but needed to check the access tokens of `routes`, a sentence each."""
    named = f" ({', '.join(routes)})" if routes else ""
    wanted = {
        "TOKEN_ISSUER": (settings.token_issuer, "name who signs them"),
        "TOKEN_AUDIENCE": (settings.token_audience, "name the audience that they must have"),
        "JWKS_URL": (settings.jwks_url, "name the fixed address of the issuer's keys"),
    }
    return [
        f"{name} is not set: there are routes that need an access token{named}; {what}"
        for name, (value, what) in wanted.items()
        if not value
    ]


def kafka_broker(
    settings: KafkaSettings, parts: Composition, *, client_id: str, protocol: str = "classic", instance: str = ""
) -> "KafkaBroker":
    """Return the broker that `KAFKA` names, closed with `parts`."""
    from backstay.messaging import KafkaBroker  # needs the extra `messaging`

    broker = KafkaBroker(
        settings.kafka,
        flavor=settings.kafka_flavor,
        client_id=client_id,
        options=settings.kafka_client_options(),
        protocol=protocol,  # type: ignore[arg-type]
        instance=instance or None,
    )
    parts.on_stop("broker", broker.aclose)
    return broker


__all__ = ["enter_issuer_keys", "kafka_broker", "missing_for_tokens", "registry_client", "token_verifier"]
