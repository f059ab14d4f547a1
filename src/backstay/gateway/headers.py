"""Which headers pass, decided once for each name."""

from collections.abc import Collection

from backstay.gateway.forwarding import FORWARDING_HEADERS
from backstay.http.framing import HOP_BY_HOP

DEADLINE_HEADER = b"x-request-deadline-ms"
MAX_NAMES = 2048  # remembered; more are decided each time
_OURS = frozenset((b"host", b"expect", b"content-length", b"traceparent", DEADLINE_HEADER))


class RequestNames:
    """Which request headers pass on a route, remembered by name."""

    __slots__ = ("_dropped", "_known", "_prefixes")

    def __init__(self, identity_headers: Collection[str], dropped: Collection[bytes]) -> None:
        exact = {name.lower().encode() for name in identity_headers if not name.endswith("*")}
        self._prefixes = tuple(name[:-1].lower().encode() for name in identity_headers if name.endswith("*"))
        self._dropped = HOP_BY_HOP | FORWARDING_HEADERS | _OURS | exact | frozenset(dropped)
        self._known: dict[bytes, bool] = {}

    def passes(self, name: bytes) -> bool:
        """Whether a header of this name (lower-case) is sent on."""
        verdict = self._known.get(name)
        if verdict is None:
            # Some servers read an underscore as a hyphen.
            plain = name.replace(b"_", b"-")
            verdict = plain not in self._dropped and not plain.startswith(self._prefixes)
            if len(self._known) < MAX_NAMES:
                self._known[name] = verdict
        return verdict


class ResponseNames:
    """Which response headers pass, remembered by the spelling they come in."""

    __slots__ = ("_known",)

    def __init__(self) -> None:
        self._known: dict[bytes, bytes | None] = {}

    def passes(self, name: bytes) -> bytes | None:
        """The lower-case name of a header that passes, None for one that ends here."""
        try:
            return self._known[name]
        except KeyError:
            lower = name.lower()
            verdict = None if lower in HOP_BY_HOP else lower
            if len(self._known) < MAX_NAMES:
                self._known[name] = verdict
            return verdict
