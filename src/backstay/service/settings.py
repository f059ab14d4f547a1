"""Settings that every service has, read from the environment."""

from dataclasses import dataclass
from typing import Annotated, Literal

from msgspec import Meta

from backstay.runtime.settings import (
    NO_ADDRESSES,
    NO_EXPRESSION,
    NO_SECRET,
    DatabaseSettings,
    Expression,
    FixedAddresses,
    KafkaSettings,
    LogSettings,
    Port,
    RegistrationSettings,
    Seconds,
    Secret,
    TokenSettings,
)


@dataclass(frozen=True, kw_only=True)
class ServiceSettings(KafkaSettings, DatabaseSettings, RegistrationSettings, TokenSettings, LogSettings):
    """What every service can be told from outside. Durations are seconds, sizes bytes."""

    host: str = "127.0.0.1"
    """Address to listen on."""
    port: Port = 0
    """Port to listen on; 0 takes a free one."""
    kafka_group_protocol: Literal["classic", "consumer"] = "classic"
    """How consumer groups share partitions: `consumer` is KIP-848, for Apache Kafka 4."""
    kafka_instance: str = ""
    """Name of this instance, kept over restarts and no other one's: makes its membership of groups static."""
    token_url: FixedAddresses = NO_ADDRESSES
    """Fixed addresses of the token endpoint, tried in turn; required with `CLIENT_ID`. `lb://` is refused."""
    client_id: str = ""
    """The service's own identity when it calls others; without it calls carry no token."""
    client_secret: Secret = NO_SECRET
    trusted_proxies: Expression = NO_EXPRESSION
    """Regular expression of the proxies before the gateway, as the gateway's `trusted-proxies`: who asks is the nearest
    address in `X-Forwarded-For` that doesn't match."""
    max_body: Annotated[int, Meta(ge=1)] = 1024 * 1024
    """Largest request body."""
    body_timeout: Seconds = 10.0
    """How long a whole request body may take to arrive."""
    request_deadline: Seconds = 10.0
    """Deadline of a request that brings none, and the longest one honoured."""
    max_requests: Annotated[int, Meta(ge=1)] = 1000
    """Requests being answered at the same moment; more get 503."""
    keep_alive: Seconds = 30.0
    """How long an idle connection stays open; longer than callers keep theirs."""
    drain_timeout: Seconds = 15.0
    """How long requests in flight may take to finish at a stop."""


__all__ = ["ServiceSettings"]
