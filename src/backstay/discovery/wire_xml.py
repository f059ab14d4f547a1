"""Eureka's XML as Netflix writes it by XStream, for clients that don't accept JSON.

A metadata key that is no name in XML is left out here (JSON has it): a document with it could be read by nobody.
"""

import re
from collections.abc import Iterable, Mapping
from xml.sax.saxutils import escape, quoteattr

from backstay.discovery.leases import Lease
from backstay.discovery.registration import DETAILS, DataCenter
from backstay.discovery.wire_json import flag, lease_info, millis

CONTENT_TYPE = "application/xml"
_NAME = re.compile(r"[A-Za-z_$][A-Za-z0-9_$.-]*")
_ESCAPES = str.maketrans({"_": "__", "$": "_-"})
_EMPTY_MAP = '<metadata class="java.util.Collections$EmptyMap"/>'


def write_instance(lease: Lease) -> bytes:
    """One `<instance>`."""
    held = lease.registration
    parts = [_element(name, value) for name, value in (("instanceId", held.id), ("hostName", held.host))]
    parts += [_element(name, value) for name, value in (("app", held.app), ("ipAddr", held.ip), ("sid", held.sid))]
    parts += [_element("status", held.status), _element("overriddenstatus", held.overridden)]
    parts += [_port("port", held.port, held.port_enabled), _port("securePort", held.secure_port, held.secure_enabled)]
    parts += [_element("countryId", held.country), _data_center(held.data_center)]
    times = "".join(_element(name, value) for name, value in lease_info(lease).items())
    parts += [f"<leaseInfo>{times}</leaseInfo>", _metadata(held.metadata) or _EMPTY_MAP]
    parts += [_element(name, held.details.get(name)) for name in DETAILS]
    parts += [_element("isCoordinatingDiscoveryServer", flag(held.coordinating))]
    parts += [_element("lastUpdatedTimestamp", millis(lease.updated_at)), _element("lastDirtyTimestamp", held.dirty_at)]
    parts += [_element("actionType", lease.action), _element("asgName", held.asg)]
    return f"<instance>{''.join(parts)}</instance>".encode()


def write_application(name: str, instances: Iterable[bytes]) -> bytes:
    """One `<application>` of already written instances."""
    return b"<application>%b%b</application>" % (_element("name", name).encode(), b"".join(instances))


def write_applications(applications: Iterable[bytes], hash_code: str) -> bytes:
    """Return the whole answer of a fetch of already written applications."""
    head = f"<versions__delta>1</versions__delta><apps__hashcode>{hash_code}</apps__hashcode>".encode()
    return b"<applications>%b%b</applications>" % (head, b"".join(applications))


def document(kind: str, written: bytes) -> bytes:  # noqa: ARG001 - as in wire_json
    """One written `instance` or `application` as a whole answer."""
    return written


def _element(name: str, value: str | int | None) -> str:
    return "" if value is None else f"<{name}>{escape(str(value))}</{name}>"


def _port(name: str, port: int, enabled: bool) -> str:
    return f'<{name} enabled="{flag(enabled)}">{port}</{name}>'


def _data_center(center: DataCenter) -> str:
    return (
        f"<dataCenterInfo class={quoteattr(center.class_name)}>{_element('name', center.name)}"
        f"{_metadata(center.metadata)}</dataCenterInfo>"
    )


def _metadata(entries: Mapping[str, str]) -> str:
    named = [(key.translate(_ESCAPES), value) for key, value in entries.items() if _NAME.fullmatch(key)]
    return f"<metadata>{''.join(_element(*entry) for entry in named)}</metadata>" if named else ""
