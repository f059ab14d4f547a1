"""Settings of the gateway."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from msgspec import Meta

from backstay.runtime import gateway
from backstay.runtime.settings import Seconds

ROUTES = Path(__file__).with_name("application.yml")


@dataclass(frozen=True, kw_only=True)
class GatewaySettings(gateway.GatewaySettings):
    """What the gateway can be told from outside. Durations are seconds, sizes bytes."""

    routes: str = str(ROUTES)
    """File with the routes, in Spring Cloud Gateway's form."""
    token_audience: str = "shop"  # noqa: S105 - a name
    """Audience of customers' tokens."""
    max_body: Annotated[int, Meta(ge=1)] = 1024 * 1024
    """Largest request body."""
    rate_limit_per_second: Annotated[float, Meta(gt=0)] = 100.0
    """Requests a second that each user (or address) may make for long."""
    rate_limit_burst: Annotated[float, Meta(ge=1)] = 200.0
    """Requests that each may make at once."""
    service_window: Annotated[int, Meta(ge=1)] = 50
    """Calls that the circuit breaker of each service looks at."""
    service_min_calls: Annotated[int, Meta(ge=1)] = 20
    """Calls that it needs for a verdict."""
    service_failure_rate: Annotated[float, Meta(gt=0, le=100)] = 50.0
    """Percent of failed calls at which it opens."""
    service_wait_open: Seconds = 2.0
    """How long it stays open before it lets a few calls try."""
