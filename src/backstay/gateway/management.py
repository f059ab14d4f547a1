"""The gateway's management endpoints, on a port of their own so that no route leads to them or hides them."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import msgspec

from backstay.gateway.gateway import Gateway
from backstay.gateway.routes import Route
from backstay.http.messages import HttpReply, HttpRequest
from backstay.http.problems import only_read, problem
from backstay.resilience import Actuator
from backstay.resilience.endpoints import ENDPOINTS
from backstay.resilience.meters import exposition

Check = Callable[[], str | None]
"""Returns what is wrong with a part; None if nothing is."""

JSON = "application/json"
_POLICIES = tuple(f"/actuator/{path}" for each in ENDPOINTS for path in (each.path, each.events_path))


class Management:
    """Answers `/health/live`, `/health/ready`, `/metrics`, `/info`, `/actuator/gateway/routes`; give it to HttpServer.

    And below `/actuator` what Resilience4j's has: `circuitbreakers`, with their state by POST, `retries` and the like,
    and the last events of each.

    `required` must all be well for the gateway to be ready; `watched` is only reported. What the gateway can serve
    without belongs to the second: a broker or an issuer that is away must not take the only entry away too.
    """

    def __init__(
        self,
        gateway: Gateway,
        *,
        required: Mapping[str, Check] | None = None,
        watched: Mapping[str, Check] | None = None,
        info: Mapping[str, Any] | None = None,
    ) -> None:
        self._gateway = gateway
        self._required = dict(required or {})
        self._watched = dict(watched or {})
        self._info = dict(info or {})
        self._actuator = Actuator(gateway.policies)
        self._pages: dict[str, Callable[[], HttpReply]] = {
            "/health/live": lambda: _json({"status": "UP"}),
            "/health/ready": self._ready,
            "/metrics": self._metrics,
            "/info": lambda: _json(self._info),
            "/actuator/gateway/routes": lambda: _json([_described(route) for route in gateway.routes.routes]),
        }

    def __call__(self, request: HttpRequest) -> HttpReply:
        """Answer a request."""
        page = self._pages.get(request.path)
        if page is None and request.path.startswith(_POLICIES):
            status, shown = self._actuator.answer(request.method, request.path, request.body)
            return _json(shown, status)
        if page is None:
            detail = f"there is nothing at {request.path[:200]}; there are {', '.join(self._pages)}"
            return problem(404, "not-found", detail, request=request)
        return only_read(request) or page()

    def _ready(self) -> HttpReply:
        components = {name: _component(check()) for name, check in (*self._required.items(), *self._watched.items())}
        missing = [name for name in self._required if components[name]["status"] != "UP"]
        if self._gateway.draining:
            missing.append("draining")
        status = "DOWN" if missing else "UP"
        body = {"status": status, "missing": missing, "components": components}
        return _json(body, 503 if missing else 200)

    def _metrics(self) -> HttpReply:
        found = self._gateway.statistics()
        gauges = [
            ("backstay_gateway_clients", "Open client connections.", found.clients),
            ("backstay_gateway_in_flight", "Requests being answered.", found.in_flight),
            ("backstay_gateway_upstream_open", "Open upstream connections.", found.upstream.open),
            ("backstay_gateway_upstream_idle", "Idle upstream connections.", found.upstream.idle),
            ("backstay_gateway_revoked_sessions", "Sessions on the deny list.", len(self._gateway.guard.denied)),
        ]
        policies = self._gateway.policies
        addresses = self._gateway.guard.addresses
        limited = addresses.statistics().refused if addresses is not None else 0
        counters = [
            ("backstay_gateway_access_log_dropped_total", "Log lines whose reader stalled.", found.log_lines_dropped),
            ("backstay_gateway_turned_away_total", "Clients beyond the limit.", found.turned_away),
            (
                "backstay_gateway_turned_away_of_address_total",
                "Clients beyond the limit of their address.",
                found.turned_away_of_address,
            ),
            ("backstay_gateway_limited_of_address_total", "Requests beyond the limit of their address.", limited),
        ]
        text = self._gateway.metrics.text(gauges, counters) + exposition(policies, tags=policies.tags)
        return HttpReply(200, text.encode(), content_type="text/plain; version=0.0.4; charset=utf-8")


def _component(problem: str | None) -> dict[str, str]:
    return {"status": "UP"} if problem is None else {"status": "DOWN", "detail": problem}


def _described(route: Route) -> dict[str, Any]:
    """Return a route in the form of Spring's actuator."""
    written = route.definition
    return {
        "route_id": route.id,
        "uri": str(route.target),
        "order": route.order,
        "predicate": _steps(written.predicates),
        "filters": _steps(written.filters),
        "metadata": dict(written.metadata),
    }


def _steps(steps: Sequence[Any]) -> list[str]:
    return [f"{step.name}={step.args if isinstance(step.args, Mapping) else ','.join(step.args)}" for step in steps]


def _json(body: object, status: int = 200) -> HttpReply:
    return HttpReply(status, msgspec.json.encode(body), content_type=JSON)
