"""Eureka's JSON, compared with recorded conversations of a Spring client and a Spring server."""

import json
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from backstay.discovery import BadInstance, DataCenter, Lease, Registration, wire_json
from backstay.discovery.listing import read_applications
from backstay.discovery.registering import read_registration
from backstay.discovery.registration import AMAZON_DATA_CENTER

RECORDED_REQUEST = json.dumps(
    {
        "instance": {
            "instanceId": "svc-a:8081",
            "app": "SVC-A",
            "appGroupName": None,
            "ipAddr": "127.0.0.1",
            "sid": "na",
            "homePageUrl": "http://127.0.0.1:8081/",
            "statusPageUrl": "http://127.0.0.1:8081/actuator/info",
            "healthCheckUrl": "http://127.0.0.1:8081/actuator/health",
            "secureHealthCheckUrl": None,
            "vipAddress": "svc-a",
            "secureVipAddress": "svc-a",
            "countryId": 1,
            "dataCenterInfo": {
                "@class": "com.netflix.appinfo.InstanceInfo$DefaultDataCenterInfo",
                "name": "MyOwn",
            },
            "hostName": "127.0.0.1",
            "status": "UP",
            "overriddenStatus": "UNKNOWN",
            "leaseInfo": {
                "renewalIntervalInSecs": 5,
                "durationInSecs": 15,
                "registrationTimestamp": 0,
                "lastRenewalTimestamp": 0,
                "evictionTimestamp": 0,
                "serviceUpTimestamp": 0,
            },
            "isCoordinatingDiscoveryServer": False,
            "lastUpdatedTimestamp": 1795352886503,
            "lastDirtyTimestamp": 1795352887820,
            "actionType": None,
            "asgName": None,
            "port": {"$": 8081, "@enabled": "true"},
            "securePort": {"$": 443, "@enabled": "false"},
            "metadata": {"zone": "z1", "management.port": "8081", "version": "1.0"},
        }
    }
).encode()

RECORDED_ANSWER = (
    '{"instanceId":"svc-a:8081","hostName":"127.0.0.1","app":"SVC-A","ipAddr":"127.0.0.1","sid":"na","status":"UP",'
    '"overriddenStatus":"UNKNOWN","port":{"$":8081,"@enabled":"true"},"securePort":{"$":443,"@enabled":"false"},'
    '"countryId":1,"dataCenterInfo":{"@class":"com.netflix.appinfo.InstanceInfo$DefaultDataCenterInfo",'
    '"name":"MyOwn"},"leaseInfo":{"renewalIntervalInSecs":5,"durationInSecs":15,'
    '"registrationTimestamp":1795352888940,"lastRenewalTimestamp":1795352928065,"evictionTimestamp":0,'
    '"serviceUpTimestamp":1795352888946},"metadata":{"zone":"z1","management.port":"8081","version":"1.0"},'
    '"homePageUrl":"http://127.0.0.1:8081/","statusPageUrl":"http://127.0.0.1:8081/actuator/info",'
    '"healthCheckUrl":"http://127.0.0.1:8081/actuator/health","vipAddress":"svc-a","secureVipAddress":"svc-a",'
    '"isCoordinatingDiscoveryServer":"false","lastUpdatedTimestamp":"1795352888947",'
    '"lastDirtyTimestamp":"1795352887820","actionType":"ADDED"}'
)


def test_a_recorded_registration_is_written_as_the_recorded_server_wrote_it() -> None:
    """Field order, and which values are numbers and which are texts, are Netflix's."""
    held = read_registration(RECORDED_REQUEST)
    lease = Lease(held, 1795352888.940, 1795352928.065, 1795352888.947, up_since=1795352888.946)

    assert wire_json.write_instance(lease).decode() == RECORDED_ANSWER


def test_the_whole_answer_carries_versions_and_hash() -> None:
    """Clients need `versions__delta` and `apps__hashcode`, also when nobody is registered."""
    one = wire_json.write_application("SVC-A", [RECORDED_ANSWER.encode()])

    full = json.loads(wire_json.write_applications([one], wire_json.hash_code({"UP": 8, "DOWN": 2})))

    assert full["applications"]["versions__delta"] == "1"
    assert full["applications"]["apps__hashcode"] == "DOWN_2_UP_8_"
    assert full["applications"]["application"][0]["instance"] == [json.loads(RECORDED_ANSWER)]
    empty = b'{"applications":{"versions__delta":"1","apps__hashcode":"","application":[]}}'
    assert wire_json.write_applications([], wire_json.hash_code({})) == empty


def test_empty_metadata_is_written_as_javas_empty_map() -> None:
    """Java clients expect the class of an empty map; reading strips it."""
    held = Registration("A", "a", "h", "i")

    written = wire_json.write_registration(held)

    assert json.loads(written)["instance"]["metadata"] == {"@class": "java.util.Collections$EmptyMap"}
    assert read_registration(written).metadata == {}


@pytest.mark.parametrize(
    ("missing", "says"),
    [
        ({"instanceId": None, "hostName": None}, "Missing instanceId"),
        ({"hostName": None}, "Missing hostname"),
        ({"ipAddr": ""}, "Missing ip address"),
        ({"app": None}, "Missing appName"),
        ({"dataCenterInfo": None}, "Missing dataCenterInfo"),
        ({"dataCenterInfo": {"@class": "x"}}, "Missing dataCenterInfo Name"),
        ({"port": {"$": 99999, "@enabled": "true"}}, "port must be a whole number from 0 to 65535, not 99999"),
    ],
)
def test_what_is_missing_is_said_in_eurekas_words(missing: dict[str, object], says: str) -> None:
    """Clients and people know these sentences."""
    fields = {**json.loads(RECORDED_REQUEST)["instance"], **missing}

    with pytest.raises(BadInstance) as refused:
        read_registration(json.dumps({"instance": fields}).encode())

    assert str(refused.value) == says


def test_the_id_falls_back_to_amazons_then_to_the_host() -> None:
    """As Netflix's getId does."""
    fields = {**json.loads(RECORDED_REQUEST)["instance"], "instanceId": None}
    assert read_registration(json.dumps({"instance": fields}).encode()).id == "127.0.0.1"

    fields["dataCenterInfo"] = {"@class": "AmazonInfo", "name": "Amazon", "metadata": {"instance-id": "i-7"}}
    assert read_registration(json.dumps({"instance": fields}).encode()).id == "i-7"


@pytest.mark.parametrize(
    ("port", "read"),
    [
        ({"$": "8080", "@enabled": True}, (8080, True)),
        ({"$": 8080, "@enabled": "false"}, (8080, False)),
        ({"$": 8080}, (8080, True)),
        (8080, (8080, True)),
        ("8080", (8080, True)),
        (None, (0, True)),
    ],
)
def test_ports_are_read_in_every_form_in_use(port: object, read: tuple[int, bool]) -> None:
    """Numbers, texts and booleans are all met in the wild."""
    fields = {**json.loads(RECORDED_REQUEST)["instance"], "port": port}

    held = read_registration(json.dumps({"instance": fields}).encode())

    assert (held.port, held.port_enabled) == read


def test_py_eureka_clients_spelling_is_read() -> None:
    """`overriddenstatus` in lower case, timestamps and lease times as texts."""
    fields = json.loads(RECORDED_REQUEST)["instance"]
    del fields["overriddenStatus"]
    fields |= {"overriddenstatus": "DOWN", "lastDirtyTimestamp": "17"}
    fields["leaseInfo"] = {"renewalIntervalInSecs": "5", "durationInSecs": "0"}

    held = read_registration(json.dumps({"instance": fields}).encode())

    assert (held.overridden, held.dirty_at, held.status) == ("DOWN", 17, "UP")
    assert (held.renewal, held.duration) == (5, 90)


@pytest.mark.parametrize("body", [b"", b"{", b"[]", b"null", b'{"instance":[]}', b"\xff", b"[" * 10_000], ids=range(7))
def test_an_unreadable_body_is_refused(body: bytes) -> None:
    """Never an error of another kind."""
    with pytest.raises(BadInstance, match="cannot parse request body"):
        read_registration(body)


clean = st.text(st.characters(codec="utf-8", exclude_categories=["Cc"], exclude_characters="\ufffe\uffff"), max_size=20)
texts = clean.map(str.strip).filter(bool)
AMAZON = DataCenter(AMAZON_DATA_CENTER, "Amazon", {"instance-id": "i-7", "ami-id": "x"})
registrations = st.builds(
    Registration,
    app=texts.map(str.upper).filter(lambda app: app == app.upper()),
    id=texts,
    host=texts,
    ip=texts,
    port=st.integers(0, 65_535),
    port_enabled=st.booleans(),
    secure_port=st.integers(0, 65_535),
    secure_enabled=st.booleans(),
    status=st.sampled_from(["UP", "DOWN", "STARTING", "OUT_OF_SERVICE", "UNKNOWN"]),
    data_center=st.builds(DataCenter, name=st.sampled_from(["MyOwn", "Netflix"])) | st.just(AMAZON),
    renewal=st.integers(1, 1000),
    duration=st.integers(1, 1000),
    metadata=st.dictionaries(texts, clean, max_size=64),
    details=st.dictionaries(st.sampled_from(["vipAddress", "homePageUrl"]), texts),
    coordinating=st.booleans(),
    dirty_at=st.integers(0, 10**13),
)


@given(registrations)
def test_the_weight_is_never_less_than_what_is_written(held: Registration) -> None:
    """So the list that a client gets stays within the bound that it knows."""
    written = wire_json.write_instance(Lease(held, 2e9, 2e9, 2e9, up_since=2e9))

    assert len(written) <= held.weight()


@given(registrations)
def test_what_is_written_is_read_again(held: Registration) -> None:
    """Nothing gets lost or changed on the way."""
    assert read_registration(wire_json.write_registration(held)) == held


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.text(),
        lambda x: (
            st.lists(x)
            | st.dictionaries(
                st.sampled_from(
                    ["applications", "application", "instance", "hostName", "app", "port", "$", "metadata"]
                ),
                x,
            )
        ),
    )
)
def test_an_answer_of_any_shape_is_read_or_refused(content: object) -> None:
    """A strange registry can't break a client."""
    try:
        found = read_applications(json.dumps({"applications": content}))
    except BadInstance:
        return
    assert all(each.app == app for app, instances in found.items() for each in instances)


def test_an_answer_may_hold_single_objects_instead_of_lists() -> None:
    """Older servers write a list of one as its only element."""
    body = b'{"applications":{"application":{"name":"SVC-A","instance":' + RECORDED_ANSWER.encode() + b"}}}"

    (instance,) = read_applications(body.decode())["svc-a"]

    assert (instance.id, instance.host, instance.port, instance.status) == ("svc-a:8081", "127.0.0.1", 8081, "UP")
    assert instance.metadata["zone"] == "z1"


def test_a_secure_only_instance_is_called_on_its_secure_port() -> None:
    """If only TLS is enabled, that is the port."""
    held = replace(Registration("A", "a", "h", "i", 80), port_enabled=False, secure_enabled=True)

    assert (held.instance().port, held.instance().secure) == (443, True)
