"""Eureka's JSON: read tolerantly (numbers, strings or booleans; one object or a list), written as Netflix writes it."""

from collections.abc import Iterable, Mapping
from typing import Any

import msgspec

from backstay.discovery.errors import BadInstance
from backstay.discovery.instance import Instance
from backstay.discovery.leases import Lease
from backstay.discovery.registration import (
    DEFAULT_DATA_CENTER,
    DETAILS,
    DURATION,
    MAX_DURATION,
    RENEWAL,
    DataCenter,
    Registration,
    known_status,
)

CONTENT_TYPE = "application/json"
_EMPTY_MAP = {"@class": "java.util.Collections$EmptyMap"}
_MAX_PORT = 65_535


def write_instance(lease: Lease) -> bytes:
    """The fields of one instance, without a root."""
    held = lease.registration
    fields: dict[str, Any] = {"instanceId": held.id, "hostName": held.host, "app": held.app, "ipAddr": held.ip}
    if held.sid is not None:
        fields["sid"] = held.sid
    fields |= {
        "status": held.status,
        "overriddenStatus": held.overridden,
        "port": {"$": held.port, "@enabled": _flag(held.port_enabled)},
        "securePort": {"$": held.secure_port, "@enabled": _flag(held.secure_enabled)},
        "countryId": held.country,
        "dataCenterInfo": _data_center(held.data_center),
        "leaseInfo": _lease_info(lease),
        "metadata": dict(held.metadata) or _EMPTY_MAP,
        **{name: held.details[name] for name in DETAILS if name in held.details},
        "isCoordinatingDiscoveryServer": _flag(held.coordinating),
        "lastUpdatedTimestamp": str(_millis(lease.updated_at)),
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
    """The whole answer of a fetch of already written applications."""
    head = b'{"applications":{"versions__delta":"1","apps__hashcode":"%b","application":[' % hash_code.encode()
    return b"%b%b]}}" % (head, b",".join(applications))


def hash_code(status_counts: Mapping[str, int]) -> str:
    """What clients compare their own count with: `DOWN_2_UP_8_`."""
    return "".join(f"{status}_{count}_" for status, count in sorted(status_counts.items()))


def write_registration(held: Registration) -> bytes:
    """The body a client registers with."""
    return b'{"instance":%b}' % write_instance(Lease(held, 0, 0, held.dirty_at / 1000))


def read_registration(body: bytes) -> Registration:
    """The registration in a body; raises `BadInstance` with Eureka's own words for what is missing."""
    fields = _object(body).get("instance")
    if not isinstance(fields, dict):
        raise BadInstance("cannot parse request body")
    center = fields.get("dataCenterInfo")
    instance_id = _text(fields, "instanceId") or _amazon_id(center) or _text(fields, "hostName")
    host, ip, app = _text(fields, "hostName"), _text(fields, "ipAddr"), _text(fields, "app")
    for value, name in ((instance_id, "instanceId"), (host, "hostname"), (ip, "ip address"), (app, "appName")):
        if not value:
            raise BadInstance(f"Missing {name}")
    if not isinstance(center, dict):
        raise BadInstance("Missing dataCenterInfo")
    if not _text(center, "name"):
        raise BadInstance("Missing dataCenterInfo Name")
    return _registration(fields, app.upper(), instance_id, host, ip)


def read_applications(body: bytes) -> dict[str, list[Instance]]:
    """The instances of a fetch by application in lower case; raises `BadInstance` if it is no such answer.

    A single instance that can't be read is left out.
    """
    root = _object(body).get("applications")
    if not isinstance(root, dict):
        raise BadInstance("the answer holds no applications")
    found: dict[str, list[Instance]] = {}
    for application in _listed(root.get("application")):
        for fields in _listed(application.get("instance")):
            registration = _lenient(fields)
            if registration is not None:
                found.setdefault(registration.app.lower(), []).append(registration.instance())
    return found


def _lenient(fields: Mapping[str, Any]) -> Registration | None:
    host, app = _text(fields, "hostName"), _text(fields, "app")
    if not host or not app:
        return None
    ip = _text(fields, "ipAddr") or host
    try:
        return _registration(fields, app.upper(), _text(fields, "instanceId") or host, host, ip)
    except BadInstance:
        return None


def _registration(fields: Mapping[str, Any], app: str, instance_id: str, host: str, ip: str) -> Registration:
    port, port_enabled = _port(fields.get("port"), 0, default_enabled=True)
    secure_port, secure_enabled = _port(fields.get("securePort"), 443, default_enabled=False)
    lease = fields.get("leaseInfo")
    lease = lease if isinstance(lease, dict) else {}
    return Registration(
        app=app,
        id=instance_id,
        host=host,
        ip=ip,
        port=port,
        port_enabled=port_enabled,
        secure_port=secure_port,
        secure_enabled=secure_enabled,
        status=known_status(fields.get("status", "UP")),
        overridden=known_status(fields.get("overriddenStatus", fields.get("overriddenstatus"))),
        country=_number(fields.get("countryId"), 1),
        sid=_text(fields, "sid") or None,
        data_center=_read_data_center(fields.get("dataCenterInfo")),
        renewal=_seconds(lease.get("renewalIntervalInSecs"), RENEWAL),
        duration=_seconds(lease.get("durationInSecs"), DURATION),
        metadata=_strings(fields.get("metadata")),
        details={name: text for name in DETAILS if (text := _text(fields, name))},
        asg=_text(fields, "asgName") or None,
        coordinating=_is_true(fields.get("isCoordinatingDiscoveryServer")),
        dirty_at=_number(fields.get("lastDirtyTimestamp"), 0),
    )


def _object(body: bytes) -> dict[str, Any]:
    try:
        content = msgspec.json.decode(body)
    except (msgspec.DecodeError, RecursionError, UnicodeDecodeError) as error:
        raise BadInstance("cannot parse request body") from error
    if not isinstance(content, dict):
        raise BadInstance("cannot parse request body")
    return content


def _listed(value: object) -> list[dict[str, Any]]:
    entries = value if isinstance(value, list) else [value]
    return [entry for entry in entries if isinstance(entry, dict)]


def _text(fields: Mapping[str, Any], name: str) -> str:
    value = fields.get(name)
    return value.strip() if isinstance(value, str) else ""


def _amazon_id(center: object) -> str:
    metadata = center.get("metadata") if isinstance(center, dict) else None
    return _text(metadata, "instance-id") if isinstance(metadata, dict) else ""


def _number(value: object, default: int) -> int:
    if isinstance(value, str) and value.lstrip("-").isdecimal() and len(value) < 20:
        return int(value)
    return int(value) if isinstance(value, int | float) and abs(value) < 1e18 else default


def _seconds(value: object, default: int) -> int:
    seconds = _number(value, default)
    return min(seconds, MAX_DURATION) if seconds > 0 else default


def _port(value: object, default: int, *, default_enabled: bool) -> tuple[int, bool]:
    if not isinstance(value, dict):
        return _checked_port(_number(value, default)), default_enabled
    enabled = value.get("@enabled")
    return _checked_port(_number(value.get("$"), default)), default_enabled if enabled is None else _is_true(enabled)


def _checked_port(port: int) -> int:
    if not 0 <= port <= _MAX_PORT:
        raise BadInstance(f"port {port} is not between 0 and {_MAX_PORT}")
    return port


def _is_true(value: object) -> bool:
    return value is True or (isinstance(value, str) and value.lower() == "true")


def _strings(value: object) -> dict[str, str]:
    if not isinstance(value, dict):
        return {}
    return {key: _string(each) for key, each in value.items() if key != "@class" and each is not None}


def _string(value: object) -> str:
    return value if isinstance(value, str) else msgspec.json.encode(value).decode()


def _read_data_center(value: object) -> DataCenter:
    if not isinstance(value, dict):
        return DataCenter()
    metadata = _strings(value.get("metadata"))
    return DataCenter(_text(value, "@class") or DEFAULT_DATA_CENTER, _text(value, "name") or "MyOwn", metadata)


def _data_center(center: DataCenter) -> dict[str, Any]:
    fields: dict[str, Any] = {"@class": center.class_name, "name": center.name}
    return {**fields, "metadata": dict(center.metadata)} if center.metadata else fields


def _lease_info(lease: Lease) -> dict[str, int]:
    return {
        "renewalIntervalInSecs": lease.registration.renewal,
        "durationInSecs": lease.registration.duration,
        "registrationTimestamp": _millis(lease.registered_at),
        "lastRenewalTimestamp": _millis(lease.renewed_at),
        "evictionTimestamp": 0,
        "serviceUpTimestamp": _millis(lease.up_since),
    }


def _flag(value: bool) -> str:
    return "true" if value else "false"


def _millis(seconds: float) -> int:
    return int(seconds * 1000)
