"""Settings of the gateway."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

from msgspec import Meta

from backstay.auth.verifier import MAX_LIFETIME
from backstay.runtime.settings import NO_ADDRESS, NO_ADDRESSES, Address, FixedAddresses, KafkaSettings, Port, Seconds

ROUTES = Path(__file__).with_name("application.yml")


@dataclass(frozen=True, kw_only=True)
class GatewaySettings(KafkaSettings):
    """What the gateway can be told from outside. Durations are seconds, sizes bytes."""

    host: str = "127.0.0.1"
    """Address to listen on."""
    gateway_port: Port = 8080
    """Public port; 0 takes a free one."""
    management_host: str = "127.0.0.1"
    """Address of the management port, which nobody outside should reach."""
    management_port: Port = 0
    """Port of health, metrics, info and routes; 0 takes a free one and tells the registry."""
    advertised_host: str = ""
    """Address that the registry tells others; the one listened on if empty."""
    routes: str = str(ROUTES)
    """File with the routes, in Spring Cloud Gateway's form."""
    rate_limit_per_second: Annotated[float, Meta(gt=0)] = 100.0
    """Requests a second that each user (or address) may make for long."""
    rate_limit_burst: Annotated[float, Meta(ge=1)] = 200.0
    """Requests that each may make at once."""
    max_body: Annotated[int, Meta(ge=1)] = 1024 * 1024
    """Largest request body."""
    discovery_url: Address = NO_ADDRESS
    """Registry with user and password, or several separated by commas."""
    heartbeat_interval: Seconds = 30.0
    lease_duration: Seconds = 90.0
    fetch_interval: Seconds = 30.0
    token_issuer: str = ""
    """Issuer of access tokens."""
    token_audience: str = "shop"  # noqa: S105 - a name
    """Audience of customers' tokens."""
    token_max_lifetime: Seconds = MAX_LIFETIME
    """Longest lifetime of an access token that is accepted."""
    jwks_url: FixedAddresses = NO_ADDRESSES
    """Fixed addresses of the issuer's key set, tried in turn; required. `lb://` is refused."""
    access_token_life: Seconds = 300.0
    """How long tokens live, so how far back revocations are read."""
    service_window: Annotated[int, Meta(ge=1)] = 50
    """Calls that the circuit breaker of each service looks at."""
    service_min_calls: Annotated[int, Meta(ge=1)] = 20
    """Calls that it needs for a verdict."""
    service_failure_rate: Annotated[float, Meta(gt=0, le=100)] = 50.0
    """Percent of failed calls at which it opens."""
    service_wait_open: Seconds = 2.0
    """How long it stays open before it lets a few calls try."""
    response_timeout: Seconds = 10.0
    """How long a service may take to begin its answer; the longest deadline that is passed on."""
    connect_timeout: Seconds = 2.0
    drain_timeout: Seconds = 15.0
    """How long requests in flight may take to finish at a stop."""
    drain_delay: Annotated[float, Meta(ge=0)] = 0.0
    """How long to go on serving after leaving the registry."""
    log_format: Literal["json", "console"] = "json"
    log_level: Literal["debug", "info", "warning", "error"] = "info"
