"""What the shop lets in from outside, and what it doesn't."""

import pytest

from backstay.errors import ConfigError
from backstay.gateway.asked import Asked
from shop.gateway.main import build, routes, settings
from shop.topology import SERVICES

TABLE = routes(settings({}))


def find(request: str):
    method, path = request.split(" ")
    return TABLE.find(Asked(method.encode(), path, "", b"shop", {}))


@pytest.mark.parametrize(
    ("request_line", "target"),
    [
        ("POST /api/v1/auth/register", "lb://auth"),
        ("POST /api/v1/auth/login", "lb://auth"),
        ("POST /api/v1/auth/refresh", "lb://auth"),
        ("GET /.well-known/jwks.json", "lb://auth"),
        ("GET /api/v1/products", "lb://catalog"),
        ("GET /api/v1/products/chai", "lb://catalog"),
        ("HEAD /api/v1/products", "lb://catalog"),
    ],
)
def test_what_needs_no_token(request_line, target):
    """Only registering, logging in, keys and product reads are public."""
    route = find(request_line)

    assert (str(route.target), route.public) == (target, True)


@pytest.mark.parametrize(
    ("request_line", "target"),
    [
        ("POST /api/v1/auth/logout", "lb://auth"),
        ("GET /api/v1/auth/me", "lb://auth"),
        ("POST /api/v1/auth/password", "lb://auth"),
        ("GET /api/v1/auth/login", "lb://auth"),
        ("POST /api/v1/products", "lb://catalog"),
        ("PUT /api/v1/products/chai", "lb://catalog"),
        ("PATCH /api/v1/products/chai", "lb://catalog"),
        ("DELETE /api/v1/products/chai", "lb://catalog"),
        ("POST /api/v1/orders", "lb://orders"),
        ("GET /api/v1/orders/1/timeline", "lb://orders"),
        ("GET /api/v1/stock", "lb://inventory"),
        ("PUT /api/v1/stock/chai", "lb://inventory"),
        ("GET /api/v1/notifications", "lb://notifications"),
        ("GET /api/v1/analytics/revenue", "lb://analytics"),
    ],
)
def test_what_needs_a_token(request_line, target):
    """Everything else that can be reached needs one."""
    route = find(request_line)

    assert (str(route.target), route.public) == (target, False)


@pytest.mark.parametrize(
    "request_line",
    [
        "POST /payments",
        "POST /api/v1/payments",
        "GET /api/v1/payments/1",
        "POST /payments/payments",
        "POST /oauth2/token",
        "POST /api/v1/oauth2/token",
        "POST /auth/oauth2/token",
        "GET /eureka/apps",
        "GET /discovery/eureka/apps",
        "GET /orders",
        "GET /orders/api/v1/orders",
        "GET /metrics",
        "GET /info",
        "GET /actuator/gateway/routes",
        "GET /api/v1/openapi/discovery.json",
        "GET /api/v1/ordersx",
        "POST /docs/payments",
        "GET /",
    ],
)
def test_what_cannot_be_reached(request_line):
    """Internal routes have no way in, under no name."""
    assert find(request_line) is None


@pytest.mark.parametrize("service", [s.name for s in SERVICES if s.name not in ("gateway", "discovery")])
def test_every_service_shows_its_api(service):
    """Each service's OpenAPI document and page are public under the service's name."""
    document, page = find(f"GET /api/v1/openapi/{service}.json"), find(f"GET /docs/{service}")

    assert (str(document.target), document.public) == (f"lb://{service}", True)
    assert document.forwarded_path("/x", {}) == "/openapi.json"
    assert (str(page.target), page.public, page.forwarded_path("/x", {})) == (f"lb://{service}", True, "/docs")


def test_limits_come_from_the_environment():
    """The rate limit and the largest body are settings."""
    table = routes(settings({"RATE_LIMIT_PER_SECOND": "5", "RATE_LIMIT_BURST": "9", "MAX_BODY": "77"}))
    route = table.routes[0]

    assert (route.limits[0].buckets.rate, route.limits[0].buckets.burst, route.actions.max_body) == (5, 9, 77)
    assert all(other.limits == route.limits for other in table.routes)


def test_wrong_settings_are_named():
    """Each wrong variable is named with its value and what is allowed."""
    with pytest.raises(ConfigError) as wrong:
        settings({"RATE_LIMIT_PER_SECOND": "0", "GATEWAY_PORT": "99999", "LOG_FORMAT": "xml"})

    assert len(wrong.value.problems) == 3
    for part in ("RATE_LIMIT_PER_SECOND='0'", "GATEWAY_PORT='99999'", "LOG_FORMAT='xml'", "json, console"):
        assert part in str(wrong.value)


def test_missing_routes_are_named(tmp_path):
    """A file that isn't there, or holds no routes, is said before anything starts."""
    empty = tmp_path / "empty.yml"
    empty.write_text("spring: {}")

    with pytest.raises(ConfigError, match="can't be read"):
        build(settings({"ROUTES": str(tmp_path / "none.yml")}))
    with pytest.raises(ConfigError, match="no routes"):
        build(settings({"ROUTES": str(empty)}))
