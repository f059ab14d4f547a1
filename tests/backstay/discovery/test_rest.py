"""Eureka's REST interface, spoken over real sockets."""

import gzip
import json
import xml.etree.ElementTree as ElementTree
from collections.abc import AsyncIterator
from dataclasses import replace
from urllib.parse import quote

import pytest

from backstay.discovery import Registration, RegistryServer, wire_json
from backstay.http import HttpClient, HttpResponse
from backstay.testing import FakeClock

ORDERS = Registration("ORDERS", "orders-1", "127.0.0.1", "127.0.0.1", 80, duration=15, dirty_at=1000)
JSON = (("content-type", "application/json"), ("accept", "application/json"))


class Eureka:
    """A registry and somebody who speaks to it."""

    def __init__(self, server: RegistryServer, http: HttpClient, clock: FakeClock) -> None:
        self.server, self.http, self.clock = server, http, clock

    async def call(
        self, method: str, path: str, body: bytes = b"", headers: tuple[tuple[str, str], ...] = JSON
    ) -> HttpResponse:
        return await self.http.request(
            "127.0.0.1", self.server.port, method, path, headers=headers, body=body, timeout=5
        )

    async def register(self, registration: Registration = ORDERS) -> HttpResponse:
        path = f"/eureka/apps/{quote(registration.app)}"
        return await self.call("POST", path, wire_json.write_registration(registration))


@pytest.fixture
async def eureka() -> AsyncIterator[Eureka]:
    clock = FakeClock()
    async with RegistryServer(port=0, clock=clock) as server, HttpClient() as http:
        yield Eureka(server, http, clock)


async def test_a_life_from_registration_to_cancellation(eureka: Eureka) -> None:
    """204, 200, 200 and then 404: what every client expects."""
    registered = await eureka.register()
    beat = await eureka.call("PUT", "/eureka/apps/ORDERS/orders-1?status=UP&lastDirtyTimestamp=1000")
    cancelled = await eureka.call("DELETE", "/eureka/apps/ORDERS/orders-1")
    gone = await eureka.call("PUT", "/eureka/apps/ORDERS/orders-1?status=UP&lastDirtyTimestamp=1000")
    again = await eureka.call("DELETE", "/eureka/apps/ORDERS/orders-1")

    statuses = [answer.status for answer in (registered, beat, cancelled, gone, again)]
    assert statuses == [204, 200, 200, 404, 404]
    assert registered.body == beat.body == b""


@pytest.mark.parametrize("path", ["/eureka/apps", "/eureka/apps/", "/eureka/v2/apps", "/v2/apps/", "/apps"])
async def test_every_prefix_and_a_slash_at_the_end_work(eureka: Eureka, path: str) -> None:
    """Netflix and Spring clients use different roots, and some write a slash at the end."""
    await eureka.register()

    answer = await eureka.call("GET", path)

    assert answer.status == 200
    assert answer.headers["content-type"] == "application/json"
    assert json.loads(answer.body)["applications"]["apps__hashcode"] == "UP_1_"


async def test_one_application_one_instance_and_vips(eureka: Eureka) -> None:
    """Narrower reads; the unknown is 404, an unknown vip an empty list."""
    await eureka.register()

    application = await eureka.call("GET", "/eureka/apps/orders")
    instance = await eureka.call("GET", "/eureka/apps/ORDERS/orders-1")
    by_id = await eureka.call("GET", "/eureka/instances/orders-1")
    vip = await eureka.call("GET", "/eureka/vips/nobody")

    assert json.loads(application.body)["application"]["instance"][0]["instanceId"] == "orders-1"
    assert json.loads(instance.body) == json.loads(by_id.body)
    assert json.loads(vip.body)["applications"]["application"] == []
    for path in ("apps/payments", "apps/orders/orders-2", "instances/orders-2"):
        assert (await eureka.call("GET", f"/eureka/{path}")).status == 404


async def test_odd_ids_are_percent_decoded(eureka: Eureka) -> None:
    """Ids may hold any character, also a slash, if the client encodes it."""
    odd = Registration("ODD", "test#1.[3.?]!/ü", "h", "1.2.3.4", 80, dirty_at=1)
    await eureka.register(odd)

    beat = await eureka.call("PUT", f"/eureka/apps/ODD/{quote(odd.id, safe='')}?lastDirtyTimestamp=1")

    assert beat.status == 200


async def test_the_delta_is_disabled_in_the_way_clients_know(eureka: Eureka) -> None:
    """403 makes every client take the full list."""
    assert (await eureka.call("GET", "/eureka/apps/delta")).status == 403


async def test_a_wrong_registration_is_told_what_is_wrong(eureka: Eureka) -> None:
    """400 with Eureka's own sentence; nothing is registered."""
    mismatch = await eureka.call("POST", "/eureka/apps/PAYMENTS", wire_json.write_registration(ORDERS))
    garbage = await eureka.call("POST", "/eureka/apps/ORDERS", b"{")
    plain = await eureka.call("POST", "/eureka/apps/ORDERS", b"{}", headers=(("content-type", "text/plain"),))

    assert (mismatch.status, mismatch.body) == (400, b"Mismatched appName, expecting PAYMENTS but was ORDERS")
    assert (garbage.status, garbage.body) == (400, b"cannot parse request body")
    assert plain.status == 415
    assert eureka.server.statistics().leases == 0


async def test_an_operator_takes_an_instance_out_and_brings_it_back(eureka: Eureka) -> None:
    """Override, heartbeat, removal: with the answers of a Eureka server."""
    await eureka.register()

    set_status = await eureka.call("PUT", "/eureka/apps/ORDERS/orders-1/status?value=OUT_OF_SERVICE")
    seen = json.loads((await eureka.call("GET", "/eureka/apps/ORDERS/orders-1")).body)["instance"]
    removed = await eureka.call("DELETE", "/eureka/apps/ORDERS/orders-1/status")
    beat = await eureka.call("PUT", "/eureka/apps/ORDERS/orders-1?status=UP&lastDirtyTimestamp=1000")
    wrong = await eureka.call("PUT", "/eureka/apps/ORDERS/orders-1/status?value=FINE")
    unknown = await eureka.call("PUT", "/eureka/apps/ORDERS/orders-9/status?value=UP")

    assert (seen["status"], seen["overriddenStatus"], seen["actionType"]) == (
        "OUT_OF_SERVICE",
        "OUT_OF_SERVICE",
        "MODIFIED",
    )
    assert [set_status.status, removed.status, beat.status] == [200, 200, 404]
    assert [wrong.status, unknown.status] == [400, 404]


async def test_metadata_is_merged(eureka: Eureka) -> None:
    """PUT …/metadata?key=value adds to what the instance registered."""
    await eureka.register()

    answer = await eureka.call("PUT", "/eureka/apps/ORDERS/orders-1/metadata?zone=b&weight=5")

    seen = json.loads((await eureka.call("GET", "/eureka/apps/ORDERS/orders-1")).body)["instance"]
    assert answer.status == 200
    assert seen["metadata"] == {"zone": "b", "weight": "5"}


async def test_a_silent_instance_disappears_after_its_lease(eureka: Eureka) -> None:
    """Within half a second of its lease's end nobody is sent there any more."""
    await eureka.register()

    await eureka.clock.run(14.9)
    assert (await eureka.call("GET", "/eureka/apps/orders")).status == 200
    await eureka.clock.run(0.6)

    assert (await eureka.call("GET", "/eureka/apps/orders")).status == 404


async def test_the_full_answer_follows_each_change_at_once(eureka: Eureka) -> None:
    """Cached bytes are never older than the last change, compressed or not."""
    for number in range(3):
        await eureka.register(Registration("ORDERS", f"orders-{number}", "h", "i", dirty_at=1))
        plain = await eureka.call("GET", "/eureka/apps")
        packed = await eureka.call("GET", "/eureka/apps", headers=(*JSON, ("accept-encoding", "gzip, deflate")))

        assert packed.headers["content-encoding"] == "gzip"
        assert gzip.decompress(packed.body) == plain.body
        (application,) = json.loads(plain.body)["applications"]["application"]
        assert len(application["instance"]) == number + 1

    await eureka.call("DELETE", "/eureka/apps/ORDERS/orders-0")
    assert b"orders-0" not in (await eureka.call("GET", "/eureka/apps")).body


@pytest.mark.parametrize("accept", ["application/xml", "*/*", ""])
async def test_who_does_not_ask_for_json_gets_xml(eureka: Eureka, accept: str) -> None:
    """As from Netflix's server: some clients send `*/*` and read XML only."""
    await eureka.register(replace(ORDERS, metadata={"zone_1": "<a&b>", "no name": "x", "m.port": "9"}, sid="na"))
    headers = (("accept", accept),) if accept else ()

    every = await eureka.call("GET", "/eureka/apps", headers=headers)
    packed = await eureka.call("GET", "/eureka/apps", headers=(*headers, ("accept-encoding", "gzip")))
    app = await eureka.call("GET", "/eureka/apps/orders", headers=headers)
    one = await eureka.call("GET", "/eureka/apps/ORDERS/orders-1", headers=headers)
    vip = await eureka.call("GET", "/eureka/vips/nobody", headers=headers)

    assert {each.headers["content-type"] for each in (every, packed, app, one, vip)} == {"application/xml"}
    assert gzip.decompress(packed.body) == every.body
    root = ElementTree.fromstring(every.body)
    assert (root.findtext("versions__delta"), root.findtext("apps__hashcode")) == ("1", "UP_1_")
    (seen,) = root.iterfind("application/instance")
    assert ElementTree.tostring(seen) == ElementTree.tostring(ElementTree.fromstring(one.body))
    assert ElementTree.fromstring(app.body).findtext("name") == "ORDERS"
    assert [(each.text, each.attrib) for each in seen.iterfind("port")] == [("80", {"enabled": "true"})]
    assert {each.tag: each.text for each in seen.iterfind("metadata/*")} == {"zone__1": "<a&b>", "m.port": "9"}
    assert ElementTree.fromstring(vip.body).findtext("apps__hashcode") == ""


@pytest.mark.parametrize(
    "path",
    [
        "apps/ORDERS/orders-1/metadata?" + "&".join(f"k{n}=v" for n in range(65)),
        "apps/ORDERS/orders-1/metadata?" + "&".join(f"k{n}=v" for n in range(101)),
        "apps/ORDERS/orders-1/metadata?k=" + "v" * 5000 + "&l=" + "v" * 5000 + "&m=" + "v" * 5000 + "&n=" + "v" * 5000,
        "apps/ORDERS/orders-1/metadata?k=%00",
        "apps/ORDERS/orders-1/metadata?=v",
        "apps/ORDERS/orders-1/status?value=DOWN&lastDirtyTimestamp=9223372036854775808",
        "apps/ORDERS/orders-1/status?value=DOWN&lastDirtyTimestamp=" + "9" * 5000,
        "apps/ORDERS/orders-1?status=UP&lastDirtyTimestamp=-1",
        "apps/ORDERS/orders-1?status=UP&lastDirtyTimestamp=x",
    ],
    ids=range(9),
)
async def test_later_changes_are_bounded_like_the_registration(eureka: Eureka, path: str) -> None:
    """400 with the reason; the instance stays as it was."""
    await eureka.register()
    before = await eureka.call("GET", "/eureka/apps")

    answer = await eureka.call("PUT", f"/eureka/{path}")

    assert (answer.status, answer.body == b"") in ((400, False), (414, False))
    assert (await eureka.call("GET", "/eureka/apps")).body == before.body


async def test_the_page_shows_instances_and_escapes_what_they_say(eureka: Eureka) -> None:
    """A hostile registration can't run anything in an operator's browser."""
    await eureka.register(Registration("EVIL", "<script>alert(1)</script>", "h", "i", 80, dirty_at=1))

    page = await eureka.call("GET", "/", headers=(("accept", "text/html"),))

    assert page.status == 200
    assert "text/html" in page.headers["content-type"]
    assert b"&lt;script&gt;" in page.body
    assert b"<script>" not in page.body


@pytest.mark.parametrize("path", ["/health/live", "/health/ready", "/info", "/metrics"])
async def test_operators_endpoints_answer(eureka: Eureka, path: str) -> None:
    """Every service has them."""
    assert (await eureka.call("GET", path)).status == 200


async def test_unknown_paths_and_methods(eureka: Eureka) -> None:
    """404 and 405, never a guess."""
    unknown = await eureka.call("GET", "/nothing")
    posted = await eureka.call("POST", "/health/live")

    assert (unknown.status, json.loads(unknown.body)["instance"]) == (404, "/nothing")
    assert (posted.status, posted.headers["allow"]) == (405, "GET, HEAD")
    assert unknown.headers["content-type"] == posted.headers["content-type"] == "application/problem+json"
    assert (await eureka.call("PATCH", "/eureka/apps/ORDERS")).status == 405
