"""Limits of the registry and its client, in one place: a client accepts whatever a registry may answer."""

MAX_LEASES = 20_000
MAX_REGISTRATION = 16 * 1024  # bytes of one registration, as it is sent and as it is listed
MAX_METADATA = 64  # keys of one instance
MAX_NAME = 255  # characters of an application, an id, a host or a metadata key
MAX_LIST = 64 * 1024 * 1024  # bytes of the whole list in JSON, uncompressed; the registry refuses what goes beyond
