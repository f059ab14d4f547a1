"""The answer to a full fetch as ready bytes in one form, plain and gzipped, made again only when something changed.

Heartbeats are no change: the `lastRenewalTimestamp` inside is that of the last change, as in Eureka's own cache.
"""

import gzip
from collections.abc import Iterable
from typing import Protocol

from backstay.discovery.leases import Lease, LeaseRegistry
from backstay.discovery.wire_json import hash_code

_LEVEL = 4


class Wire(Protocol):
    """A form of answers: `wire_json`, `wire_xml`."""

    CONTENT_TYPE: str

    def write_instance(self, lease: Lease) -> bytes:
        """One instance."""

    def write_application(self, name: str, instances: Iterable[bytes]) -> bytes:
        """One application of written instances."""

    def write_applications(self, applications: Iterable[bytes], hash_code: str) -> bytes:
        """All of them."""

    def document(self, kind: str, written: bytes) -> bytes:
        """One written `instance` or `application` as a whole answer."""


class FullAnswer:
    """Follows a lease registry by its version."""

    def __init__(self, leases: LeaseRegistry, wire: Wire) -> None:
        self._leases = leases
        self._wire = wire
        self._version = -1
        self._written: dict[tuple[str, str], tuple[int, bytes]] = {}
        self._plain = b""
        self._gzipped: bytes | None = None

    def plain(self) -> bytes:
        """Return the whole registry."""
        if self._version != self._leases.version:
            self._write()
        return self._plain

    def gzipped(self) -> bytes:
        """Return the same, compressed."""
        plain = self.plain()
        if self._gzipped is None:
            self._gzipped = gzip.compress(plain, _LEVEL, mtime=0)
        return self._gzipped

    def _write(self) -> None:
        kept, self._written = self._written, {}
        applications = []
        for name, leases in self._leases.apps():
            instances = []
            for lease in leases:
                key = name, lease.registration.id
                entry = kept.get(key)
                if entry is None or entry[0] != lease.serial:
                    entry = lease.serial, self._wire.write_instance(lease)
                self._written[key] = entry
                instances.append(entry[1])
            applications.append(self._wire.write_application(name, instances))
        self._plain = self._wire.write_applications(applications, hash_code(self._leases.status_counts()))
        self._gzipped = None
        self._version = self._leases.version
