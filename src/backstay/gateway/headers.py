"""The request headers that are forwarded, decided once for each name."""

from collections.abc import Collection

from backstay.gateway.forwarding import FORWARDING_HEADERS
from backstay.http.framing import HOP_BY_HOP

DEADLINE_HEADER = b"x-request-deadline-ms"
MAX_NAMES = 2048  # remembered; more are decided each time
_OURS = frozenset((b"host", b"expect", b"content-length", b"traceparent", DEADLINE_HEADER))


class RequestNames:
    """The request headers that a route forwards, cached by name."""

    __slots__ = ("_dropped", "_prefixes", "known")

    def __init__(self, identity_headers: Collection[str], dropped: Collection[bytes]) -> None:
        exact = {name.lower().encode() for name in identity_headers if not name.endswith("*")}
        self._prefixes = tuple(
            name[:-1].lower().encode() for name in (*identity_headers, "x-forwarded-*") if name.endswith("*")
        )
        self._dropped = HOP_BY_HOP | FORWARDING_HEADERS | _OURS | exact | frozenset(dropped)
        self.known: dict[bytes, bool] = {}
        """What was decided already."""

    def passes(self, name: bytes) -> bool:
        """Decide about a name (lower-case), and remember it in `known`."""
        # Some servers read an underscore as a hyphen.
        plain = name.replace(b"_", b"-")
        verdict = plain not in self._dropped and not plain.startswith(self._prefixes)
        if len(self.known) < MAX_NAMES:
            self.known[name] = verdict
        return verdict
