"""Every documented endpoint under generated requests, good and bad: no error of ours, no undocumented answer."""

import asyncio
from collections.abc import Callable
from typing import Any

import pytest
import schemathesis
from hypothesis import HealthCheck, Phase, given, settings
from schemathesis import GenerationMode
from schemathesis.checks import CHECKS, load_all_checks

pytestmark = [
    pytest.mark.acceptance,
    pytest.mark.kafka,
    pytest.mark.xdist_group("acceptance"),
    pytest.mark.timeout(300),
]

SERVICES = ("auth", "catalog", "orders", "payments", "inventory", "notifications", "analytics")
PROMISES = (
    "not_a_server_error",
    "status_code_conformance",
    "content_type_conformance",
    "response_headers_conformance",
    "response_schema_conformance",
)
REQUESTS = 20  # for each endpoint, of each kind
PATIENCE = 20.0  # seconds for an answer

load_all_checks()


@pytest.mark.parametrize("service", SERVICES)
async def test_answers_are_as_documented(world, customer, service: str, tools) -> None:
    """Whoever may do everything sends what the document allows, and what it forbids, past the gateway."""
    async with world.instance(service) as direct:
        document = await direct.get("/openapi.json")
        tokens = await almighty(world, customer, service, document, tools)
        send = sender(direct.base, *tokens)
        broken = await asyncio.to_thread(broken_promises, document, send)

    assert not broken, "\n".join(broken)


async def almighty(world, customer, service: str, document: dict[str, Any], tools) -> tuple[str, str]:
    """Tokens with every role and every scope that the document names: a customer's, and one of another service."""
    operations = [operation for verbs in document["paths"].values() for operation in verbs.values()]
    scopes = {scope for each in operations for scheme in each.get("security", ()) for scope in scheme.get("token", ())}
    said = tools.claims(customer.shopper.token)
    key = await tools.true_key(world)
    everything = {**said, "roles": ["customer", "admin"], "scope": " ".join(sorted(scopes))}
    own = {**everything, "sub": "another", "client_id": "another", "aud": service}
    return key.sign(everything), key.sign({name: value for name, value in own.items() if name != "sid"})


def sender(base: str, customers: str, services: str) -> Callable[[schemathesis.Case, tuple[str, ...]], None]:
    """Sends a request; raises with the promises that its answer breaks."""

    def send(case: schemathesis.Case, promises: tuple[str, ...]) -> None:
        checks = CHECKS.get_by_names(promises)
        token = services if case.operation.definition.raw.get("x-internal") else customers
        case.call_and_validate(
            base_url=base, headers={"Authorization": f"Bearer {token}"}, checks=checks, timeout=PATIENCE
        )

    return send


def broken_promises(document: dict[str, Any], send: Callable[..., None]) -> list[str]:
    """What went wrong, by endpoint."""
    broken = []
    for result in schemathesis.openapi.from_dict(document).get_all_operations():
        operation = result.ok()
        for mode in GenerationMode.POSITIVE, GenerationMode.NEGATIVE:
            promises = PROMISES
            if mode is GenerationMode.NEGATIVE:
                if operation.label.startswith("GET") and not operation.query:
                    continue  # nothing in it can be wrong
                if operation.body:
                    promises += ("negative_data_rejection",)
            try:
                tried(operation.as_strategy(generation_mode=mode), lambda case, p=promises: send(case, p))
            except BaseExceptionGroup as group:
                broken += [f"{operation.label}, {mode.name.lower()}: {error}" for error in group.exceptions]
    return broken


def tried(cases: Any, send: Callable[[schemathesis.Case], None]) -> None:
    """Send so many of these, the same in every run."""

    @settings(
        max_examples=REQUESTS,
        deadline=None,
        database=None,
        derandomize=True,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    @given(case=cases)
    def each(case: schemathesis.Case) -> None:
        send(case)

    each()
