"""Settings that every service has, read from the environment."""

from dataclasses import dataclass
from typing import Annotated, Literal

from msgspec import Meta

from backstay.auth.verifier import MAX_LIFETIME
from backstay.errors import ConfigError
from backstay.runtime.settings import (
    NO_ADDRESS,
    NO_ADDRESSES,
    NO_EXPRESSION,
    NO_SECRET,
    Address,
    Expression,
    FixedAddresses,
    KafkaSettings,
    Port,
    Seconds,
    Secret,
)


@dataclass(frozen=True, kw_only=True)
class ServiceSettings(KafkaSettings):
    """What every service can be told from outside. Durations are seconds, sizes bytes."""

    host: str = "127.0.0.1"
    """Address to listen on."""
    port: Port = 0
    """Port to listen on; 0 takes a free one."""
    advertised_host: str = ""
    """Address that the registry tells others; the one listened on if empty."""
    database_url: Address = NO_ADDRESS
    """The service's own PostgreSQL database."""
    database_sslmode: Literal["", "disable", "allow", "prefer", "require", "verify-ca", "verify-full"] = ""
    """TLS to the database, as libpq names it; `verify-full` with `DATABASE_CA`, else `prefer`. Also in the URL."""
    database_ca: str = ""
    """File with the certificates of authorities that the database's is verified with (PEM)."""
    kafka_group_protocol: Literal["classic", "consumer"] = "classic"
    """How consumer groups share partitions: `consumer` is KIP-848, for Apache Kafka 4."""
    kafka_instance: str = ""
    """Name of this instance, kept over restarts and no other one's: makes its membership of groups static."""
    discovery_url: Address = NO_ADDRESS
    """Registry with user and password, or several separated by commas; if empty the service doesn't register."""
    heartbeat_interval: Seconds = 30.0
    lease_duration: Seconds = 90.0
    fetch_interval: Seconds = 30.0
    token_issuer: str = ""
    """Issuer of access tokens; without it no route that needs a token can be served."""
    token_audience: str = ""
    """Audience of customers' tokens; required where a route needs a token. Tokens of other services name this service
    instead."""
    token_max_lifetime: Seconds = MAX_LIFETIME
    """Longest lifetime of an access token that is accepted."""
    jwks_url: FixedAddresses = NO_ADDRESSES
    """Fixed addresses of the issuer's key set, tried in turn; required where a route needs a token. `lb://` is
    refused."""
    token_url: FixedAddresses = NO_ADDRESSES
    """Fixed addresses of the token endpoint, tried in turn; required with `CLIENT_ID`. `lb://` is refused."""
    client_id: str = ""
    """The service's own identity when it calls others; without it calls carry no token."""
    client_secret: Secret = NO_SECRET
    log_format: Literal["json", "console"] = "json"
    log_level: Literal["debug", "info", "warning", "error"] = "info"
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
    drain_delay: Annotated[float, Meta(ge=0)] = 0.0
    """How long to go on serving after leaving the registry, for callers that haven't noticed yet."""

    def problems(self) -> list[str]:
        """Contradictions in how the database is reached besides the base's own."""
        found = super().problems()
        try:
            self.database_dsn()
        except ConfigError as error:
            found.extend(error.problems)
        return found

    def database_dsn(self) -> str:
        """Return the database's URL with what is said of TLS; raises ConfigError for what contradicts itself."""
        if not (self.database_url and (self.database_sslmode or self.database_ca)):
            return str(self.database_url)
        from backstay.db import secured  # its package needs the extra `db`

        return secured(self.database_url, sslmode=self.database_sslmode, ca=self.database_ca)

    def missing(self) -> list[str]:
        """What a service of this kind needs besides what its parts do: reported with that at the start."""
        return []


__all__ = ["ServiceSettings"]
