"""What a registration must be, so that every client can read the list that it appears in."""

import json
from typing import Any

import pytest

from backstay.discovery import BadInstance, LeaseRegistry, Registration, TooManyLeases
from backstay.discovery.registering import read_registration
from backstay.discovery.registration import AMAZON_DATA_CENTER, DEFAULT_DATA_CENTER

MY_OWN = {"@class": DEFAULT_DATA_CENTER, "name": "MyOwn"}
GOOD = {"instanceId": "a-1", "hostName": "h", "app": "A", "ipAddr": "10.0.0.1", "dataCenterInfo": MY_OWN}


def body(**fields: Any) -> bytes:
    return json.dumps({"instance": {**GOOD, **fields}}).encode()


@pytest.mark.parametrize(
    ("fields", "says"),
    [
        ({"dataCenterInfo": {**MY_OWN, "metadata": {"zone": "z1"}}}, "only AmazonInfo may have"),
        ({"dataCenterInfo": {**MY_OWN, "name": "Moon"}}, "Amazon, MyOwn, Netflix, not 'Moon'"),
        ({"dataCenterInfo": {**MY_OWN, "name": "myown"}}, "Amazon, MyOwn, Netflix"),
        ({"dataCenterInfo": {**MY_OWN, "@class": "org.example.Mine"}}, "@class 'org.example.Mine' is unknown"),
        ({"dataCenterInfo": {"@class": AMAZON_DATA_CENTER, "name": "Amazon"}}, "and metadata"),
        ({"dataCenterInfo": {"@class": AMAZON_DATA_CENTER, "name": "MyOwn", "metadata": {"a": "b"}}}, "name Amazon"),
        ({"dataCenterInfo": "MyOwn"}, "must be an object"),
        ({"status": "FINE"}, "status must be one of DOWN, OUT_OF_SERVICE, STARTING, UNKNOWN, UP, not 'FINE'"),
        ({"overriddenstatus": "FINE"}, "overriddenstatus must be one of"),
        ({"overriddenStatus": ["UP"]}, "overriddenStatus must be one of"),
        ({"actionType": "CHANGED"}, "actionType must be one of ADDED, DELETED, MODIFIED"),
        ({"port": {"$": 2**31, "@enabled": "true"}}, "port must be a whole number from 0 to 65535"),
        ({"port": -1}, "port must be a whole number"),
        ({"port": True}, "port must be a whole number"),
        ({"port": [80]}, "port must be a whole number"),
        ({"securePort": {"$": 443, "@enabled": "yes"}}, "securePort @enabled must be true or false"),
        ({"countryId": 2**31}, "countryId"),
        ({"countryId": 1.5}, "countryId"),
        ({"leaseInfo": {"durationInSecs": 2**31}}, "durationInSecs"),
        ({"leaseInfo": []}, "leaseInfo must be an object"),
        ({"lastDirtyTimestamp": str(2**63)}, "lastDirtyTimestamp"),
        ({"lastDirtyTimestamp": "9" * 5000}, "lastDirtyTimestamp"),
        ({"lastDirtyTimestamp": 1e300}, "lastDirtyTimestamp"),
        ({"lastDirtyTimestamp": "\u0663"}, "lastDirtyTimestamp"),
        ({"isCoordinatingDiscoveryServer": 1}, "isCoordinatingDiscoveryServer"),
        ({"hostName": "a\0b"}, "hostName has a control character"),
        ({"hostName": "a\nb"}, "hostName has a control character"),
        ({"vipAddress": "\ufffe"}, "vipAddress has a control character"),
        ({"homePageUrl": 7}, "homePageUrl must be text, not 7"),
        ({"hostName": {"a": 1}}, "hostName must be text"),
        ({"app": "A" * 256}, "app has more than 255 characters"),
        ({"metadata": {"a": "\x1f"}}, "control character"),
        ({"metadata": {"a\x01": "b"}}, "control character"),
        ({"metadata": {"": "b"}}, "1 to 255 characters"),
        ({"metadata": {"a": {"b": 1}}}, "metadata 'a' must be text"),
        ({"metadata": {"a": ["b"]}}, "metadata 'a' must be text"),
        ({"metadata": "a=b"}, "metadata must be an object"),
        ({"metadata": {str(n): "v" for n in range(65)}}, "65 keys, more than 64"),
        ({"metadata": {"a": "v" * 16384}}, "more than 16384"),
    ],
)
def test_what_some_client_could_not_read_is_refused_by_name(fields: dict[str, Any], says: str) -> None:
    """The message says what is wrong, and what is allowed, in few words."""
    with pytest.raises(BadInstance) as refused:
        read_registration(body(**fields))

    assert says in str(refused.value)
    assert len(str(refused.value)) < 250


def test_half_a_surrogate_pair_is_refused() -> None:
    """UTF-8 can't carry it."""
    with pytest.raises(BadInstance):
        read_registration(body().replace(b'"h"', rb'"\ud800"'))


def test_what_is_met_in_the_wild_is_read() -> None:
    """Texts for numbers, numbers and booleans in metadata, a class that is left out, an empty map."""
    held = read_registration(
        body(
            dataCenterInfo={"name": "MyOwn", "metadata": {}},
            leaseInfo={"durationInSecs": "15", "renewalIntervalInSecs": 5.0},
            metadata={"@class": "java.util.HashMap", "weight": 5, "secure": True, "note": "a\tb\nc", "none": None},
            isCoordinatingDiscoveryServer="",
            unknown={"left": "out"},
        )
    )

    assert (held.data_center.class_name, held.duration, held.renewal) == (DEFAULT_DATA_CENTER, 15, 5)
    assert held.metadata == {"weight": "5", "secure": "true", "note": "a\tb\nc"}


def test_the_whole_list_is_bounded() -> None:
    """What a client would refuse to read isn't taken; room comes back when a lease ends or shrinks."""
    first, second = (Registration("A", name, "h", "i", metadata={"k": "v" * 1000}) for name in "ab")
    leases = LeaseRegistry(max_list=first.weight() + second.weight() - 1)
    leases.register(first, 0)
    leases.register(first, 1)

    with pytest.raises(TooManyLeases, match="bytes"):
        leases.register(second, 1)
    with pytest.raises(TooManyLeases, match="bytes"):
        leases.add_metadata("A", "a", {"more": "v" * 3000}, 1)
    leases.add_metadata("A", "a", {"k": ""}, 1)
    leases.register(second, 2)
    leases.cancel("A", "a")
    leases.cancel("A", "b")

    assert leases._weight == 0
