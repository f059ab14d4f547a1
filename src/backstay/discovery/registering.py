"""A registration as it comes in Eureka's JSON: read in every form in use, and refused unless each client can read it.

The registry hands every registration to everybody, and one that a single field makes unreadable hides all the others
from the clients that try. So whatever is accepted here is decoded by Netflix's own codecs (the strictest readers)
and survives XML: known enumerations, numbers within Java's int and long, no control characters, bounded sizes. A value
of another type, or out of range, is refused by name; fields that aren't Eureka's are left out. Numbers, texts and
booleans are met for the same fields in the wild, so each is read from any of them.
"""

import re
from collections.abc import Mapping
from typing import Any

import msgspec

from backstay.discovery.errors import BadInstance
from backstay.discovery.instance import STATUSES, UNKNOWN, UP
from backstay.discovery.limits import MAX_METADATA, MAX_NAME, MAX_REGISTRATION
from backstay.discovery.registration import (
    AMAZON_DATA_CENTER,
    DATA_CENTERS,
    DEFAULT_DATA_CENTER,
    DETAILS,
    DURATION,
    MAX_DURATION,
    RENEWAL,
    DataCenter,
    Registration,
)

MAX_INT = 2**31 - 1
MAX_LONG = 2**63 - 1
_MAX_PORT = 65_535
_SHOWN = 60  # characters of a wrong value in a message
_ACTIONS = ("ADDED", "MODIFIED", "DELETED")
_DEFAULT_CLASSES = ("", DEFAULT_DATA_CENTER, "com.netflix.appinfo.MyDataCenterInfo", "MyDataCenterInfo")
_AMAZON_CLASSES = (AMAZON_DATA_CENTER, "AmazonInfo")
_INTEGER = re.compile(r"-?[0-9]{1,19}")
_UNSPEAKABLE = re.compile("[\x00-\x08\x0b-\x1f\x7f\ud800-\udfff\ufffe\uffff]")
"""What XML 1.0 can't carry, and DEL. Tab and line feed are left for metadata, where they are met."""
_BREAKS = re.compile("[\t\n]")
Fields = Mapping[str, Any]


def read_registration(body: bytes) -> Registration:
    """Return the registration in a body; raises `BadInstance` with Eureka's own words for what is missing."""
    if len(body) > MAX_REGISTRATION:
        raise BadInstance(f"the registration has {len(body)} bytes, more than {MAX_REGISTRATION}")
    fields = _object(body).get("instance")
    if not isinstance(fields, dict):
        raise BadInstance("cannot parse request body")
    center = fields.get("dataCenterInfo")
    host, ip, app = _name(fields, "hostName"), _name(fields, "ipAddr"), _name(fields, "app")
    instance_id = _name(fields, "instanceId") or _amazon_id(center) or host
    for value, name in ((instance_id, "instanceId"), (host, "hostname"), (ip, "ip address"), (app, "appName")):
        if not value:
            raise BadInstance(f"Missing {name}")
    if center is None:
        raise BadInstance("Missing dataCenterInfo")
    return _registration(fields, app.upper(), instance_id, host, ip, _data_center(center))


def read_metadata(entries: Fields) -> dict[str, str]:
    """Metadata as the registry keeps it; raises `BadInstance`."""
    found: dict[str, str] = {}
    for key, value in entries.items():
        if key == "@class" or value is None:
            continue
        if not key or len(key) > MAX_NAME:
            raise BadInstance(f"a metadata key must have 1 to {MAX_NAME} characters, not {len(key)}")
        found[_clean(key, "a metadata key")] = _scalar(value, f"metadata {key[:_SHOWN]!r}")
    if len(found) > MAX_METADATA:
        raise BadInstance(f"metadata has {len(found)} keys, more than {MAX_METADATA}")
    return found


def read_timestamp(value: object, name: str = "lastDirtyTimestamp") -> int:
    """Milliseconds since the epoch, 0 for none; raises `BadInstance` beyond Java's long."""
    return _number(value, name, 0, 0, MAX_LONG)


def _registration(fields: Fields, app: str, instance_id: str, host: str, ip: str, center: DataCenter) -> Registration:
    port, port_enabled = _port(fields, "port", 0, enabled=True)
    secure_port, secure_enabled = _port(fields, "securePort", 443, enabled=False)
    lease = _mapping(fields, "leaseInfo")
    _choice(fields, "actionType", _ACTIONS, _ACTIONS[0])
    overridden = "overriddenstatus" if fields.get("overriddenStatus") is None else "overriddenStatus"
    return Registration(
        app=app,
        id=instance_id,
        host=host,
        ip=ip,
        port=port,
        port_enabled=port_enabled,
        secure_port=secure_port,
        secure_enabled=secure_enabled,
        status=_choice(fields, "status", STATUSES, UP),
        overridden=_choice(fields, overridden, STATUSES, UNKNOWN),
        country=_number(fields.get("countryId"), "countryId", 1, -MAX_INT, MAX_INT),
        sid=_text(fields, "sid") or None,
        data_center=center,
        renewal=_seconds(lease, "renewalIntervalInSecs", RENEWAL),
        duration=_seconds(lease, "durationInSecs", DURATION),
        metadata=read_metadata(_mapping(fields, "metadata")),
        details={name: text for name in DETAILS if (text := _text(fields, name))},
        asg=_text(fields, "asgName") or None,
        coordinating=_flag(fields.get("isCoordinatingDiscoveryServer"), "isCoordinatingDiscoveryServer", False),
        dirty_at=read_timestamp(fields.get("lastDirtyTimestamp")),
    )


def _object(body: bytes) -> dict[str, Any]:
    try:
        content = msgspec.json.decode(body)
    except (msgspec.DecodeError, RecursionError, UnicodeDecodeError) as error:
        raise BadInstance("cannot parse request body") from error
    if not isinstance(content, dict):
        raise BadInstance("cannot parse request body")
    return content


def _data_center(center: object) -> DataCenter:
    if not isinstance(center, dict):
        raise BadInstance(f"dataCenterInfo must be an object, not {_shown(center)}")
    name, class_name = _text(center, "name"), _text(center, "@class")
    metadata = read_metadata(_mapping(center, "metadata"))
    if not name:
        raise BadInstance("Missing dataCenterInfo Name")
    if name not in DATA_CENTERS:
        raise BadInstance(f"dataCenterInfo name must be one of {', '.join(DATA_CENTERS)}, not {_shown(name)}")
    if class_name in _AMAZON_CLASSES or (not class_name and metadata):
        if name != "Amazon" or not metadata:
            raise BadInstance("dataCenterInfo of class AmazonInfo must have the name Amazon, and metadata")
        return DataCenter(AMAZON_DATA_CENTER, name, metadata)
    if class_name not in _DEFAULT_CLASSES:
        raise BadInstance(f"dataCenterInfo @class {_shown(class_name)} is unknown; use {DEFAULT_DATA_CENTER}")
    if metadata:
        raise BadInstance("dataCenterInfo has metadata, which only AmazonInfo may have; put it into the instance's own")
    return DataCenter(DEFAULT_DATA_CENTER, name)


def _amazon_id(center: object) -> str:
    metadata = center.get("metadata") if isinstance(center, dict) else None
    return _name(metadata, "instance-id") if isinstance(metadata, dict) else ""


def _text(fields: Fields, name: str) -> str:
    value = fields.get(name)
    if value is None:
        return ""
    if not isinstance(value, str):
        raise BadInstance(f"{name} must be text, not {_shown(value)}")
    text = _clean(value, name).strip()
    if _BREAKS.search(text):
        raise BadInstance(f"{name} has a control character")
    return text


def _name(fields: Fields, name: str) -> str:
    text = _text(fields, name)
    if len(text.upper()) > MAX_NAME:
        raise BadInstance(f"{name} has more than {MAX_NAME} characters")
    return text


def _clean(text: str, name: str) -> str:
    if _UNSPEAKABLE.search(text):
        raise BadInstance(f"{name} has a control character or half a surrogate pair")
    return text


def _scalar(value: object, name: str) -> str:
    if isinstance(value, str):
        return _clean(value, name)
    if isinstance(value, bool | int | float):
        return msgspec.json.encode(value).decode()
    raise BadInstance(f"{name} must be text, not {_shown(value)}")


def _mapping(fields: Fields, name: str) -> Fields:
    value = fields.get(name)
    if value is None:
        return {}
    if not isinstance(value, dict):
        raise BadInstance(f"{name} must be an object, not {_shown(value)}")
    return value


def _choice(fields: Fields, name: str, allowed: "frozenset[str] | tuple[str, ...]", default: str) -> str:
    value = fields.get(name)
    if value is None or value == "":
        return default
    if not isinstance(value, str) or value not in allowed:
        raise BadInstance(f"{name} must be one of {', '.join(sorted(allowed))}, not {_shown(value)}")
    return value


def _number(value: object, name: str, default: int, least: int, most: int) -> int:
    if value is None or value == "":
        return default
    number = least - 1
    if isinstance(value, str):
        number = int(value) if _INTEGER.fullmatch(value) else number
    elif isinstance(value, int | float) and not isinstance(value, bool) and value % 1 == 0:
        number = int(value)
    if not least <= number <= most:
        raise BadInstance(f"{name} must be a whole number from {least} to {most}, not {_shown(value)}")
    return number


def _seconds(lease: Fields, name: str, default: int) -> int:
    seconds = _number(lease.get(name), name, default, -MAX_INT, MAX_INT)
    return min(seconds, MAX_DURATION) if seconds > 0 else default


def _port(fields: Fields, name: str, default: int, *, enabled: bool) -> tuple[int, bool]:
    value = fields.get(name)
    if not isinstance(value, dict):
        return _number(value, name, default, 0, _MAX_PORT), enabled
    port = _number(value.get("$"), name, default, 0, _MAX_PORT)
    return port, _flag(value.get("@enabled"), f"{name} @enabled", enabled)


def _flag(value: object, name: str, default: bool) -> bool:
    if value is None or value == "":
        return default
    if isinstance(value, bool):
        return value
    if isinstance(value, str) and value.lower() in ("true", "false"):
        return value.lower() == "true"
    raise BadInstance(f"{name} must be true or false, not {_shown(value)}")


def _shown(value: object) -> str:
    text = repr(value)
    return text if len(text) <= _SHOWN else text[:_SHOWN] + "…"
