"""The answer to a full fetch as ready bytes, plain and gzipped, made again only when something changed.

Heartbeats are no change: the `lastRenewalTimestamp` inside is that of the last change, as in Eureka's own cache.
"""

import gzip

from backstay.discovery import wire_json
from backstay.discovery.leases import LeaseRegistry

_LEVEL = 4


class FullAnswer:
    """Follows a lease registry by its version."""

    def __init__(self, leases: LeaseRegistry) -> None:
        self._leases = leases
        self._version = -1
        self._written: dict[tuple[str, str], tuple[int, bytes]] = {}
        self._plain = b""
        self._gzipped: bytes | None = None

    def plain(self) -> bytes:
        """The whole registry in JSON."""
        if self._version != self._leases.version:
            self._write()
        return self._plain

    def gzipped(self) -> bytes:
        """The same, compressed."""
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
                    entry = lease.serial, wire_json.write_instance(lease)
                self._written[key] = entry
                instances.append(entry[1])
            applications.append(wire_json.write_application(name, instances))
        self._plain = wire_json.write_applications(applications, wire_json.hash_code(self._leases.status_counts()))
        self._gzipped = None
        self._version = self._leases.version
