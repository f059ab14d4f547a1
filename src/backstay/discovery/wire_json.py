"""Eureka's JSON as Netflix writes it, field by field."""

from collections.abc import Iterable, Mapping
from typing import Any

import msgspec

from backstay.discovery.leases import Lease
from backstay.discovery.registration import DETAILS, DataCenter, Registration

CONTENT_TYPE = "application/json"
_EMPTY_MAP = {"@class": "java.util.Collections$EmptyMap"}


def write_instance(lease: Lease) -> bytes:
    """Return the fields of one instance, without a root."""
    held = lease.registration
    fields: dict[str, Any] = {"instanceId": held.id, "hostName": held.host, "app": held.app, "ipAddr": held.ip}
    if held.sid is not None:
        fields["sid"] = held.sid
    fields |= {
        "status": held.status,
        "overriddenStatus": held.overridden,
        "port": {"$": held.port, "@enabled": flag(held.port_enabled)},
        "securePort": {"$": held.secure_port, "@enabled": flag(held.secure_enabled)},
        "countryId": held.country,
        "dataCenterInfo": _data_center(held.data_center),
        "leaseInfo": lease_info(lease),
        "metadata": dict(held.metadata) or _EMPTY_MAP,
        **{name: held.details[name] for name in DETAILS if name in held.details},
        "isCoordinatingDiscoveryServer": flag(held.coordinating),
        "lastUpdatedTimestamp": str(millis(lease.updated_at)),
        "lastDirtyTimestamp": str(held.dirty_at),
        "actionType": lease.action,
    }
    if held.asg is not None:
        fields["asgName"] = held.asg
    return msgspec.json.encode(fields)


def write_application(name: str, instances: Iterable[bytes]) -> bytes:
    """One application of already written instances, without a root."""
    return b'{"name":%b,"instance":[%b]}' % (msgspec.json.encode(name), b",".join(instances))


def write_applications(applications: Iterable[bytes], hash_code: str) -> bytes:
    """Return the whole answer of a fetch of already written applications."""
    head = b'{"applications":{"versions__delta":"1","apps__hashcode":"%b","application":[' % hash_code.encode()
    return b"%b%b]}}" % (head, b",".join(applications))


def document(kind: str, written: bytes) -> bytes:
    """One written `instance` or `application` as a whole answer."""
    return b'{"%b":%b}' % (kind.encode(), written)


def hash_code(status_counts: Mapping[str, int]) -> str:
    """Return the summary that clients compare with their own count: `DOWN_2_UP_8_`."""
    return "".join(f"{status}_{count}_" for status, count in sorted(status_counts.items()))


def write_registration(held: Registration) -> bytes:
    """Return the body a client registers with."""
    return b'{"instance":%b}' % write_instance(Lease(held, 0, 0, held.dirty_at / 1000))


def _data_center(center: DataCenter) -> dict[str, Any]:
    fields: dict[str, Any] = {"@class": center.class_name, "name": center.name}
    return {**fields, "metadata": dict(center.metadata)} if center.metadata else fields


def lease_info(lease: Lease) -> dict[str, int]:
    """Return the times of a lease under their wire names, in their order."""
    return {
        "renewalIntervalInSecs": lease.registration.renewal,
        "durationInSecs": lease.registration.duration,
        "registrationTimestamp": millis(lease.registered_at),
        "lastRenewalTimestamp": millis(lease.renewed_at),
        "evictionTimestamp": 0,
        "serviceUpTimestamp": millis(lease.up_since),
    }


def flag(value: bool) -> str:
    """Return a boolean as Netflix writes it."""
    return "true" if value else "false"


def millis(seconds: float) -> int:
    """Milliseconds."""
    return int(seconds * 1000)
