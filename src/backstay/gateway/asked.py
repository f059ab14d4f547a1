"""A request as predicates and filters see it."""

from collections.abc import Mapping
from functools import cached_property
from urllib.parse import parse_qs

from backstay.http.paths import Variables


class Asked:
    """A request as routes see it. Header names in `headers` are lower-case bytes, as received."""

    def __init__(self, method: bytes, path: str, query: str, host: bytes, headers: Mapping[bytes, bytes]) -> None:
        self.method = method
        self.path = path
        """Decoded; free of anything that could be read in two ways."""
        self.query = query
        self.host = host
        self.headers = headers
        self.variables: Variables = {}

    @cached_property
    def parameters(self) -> dict[str, list[str]]:
        """The query's parameters, decoded."""
        return parse_qs(self.query, keep_blank_values=True)

    @cached_property
    def cookies(self) -> dict[str, str]:
        """The cookies, as they came."""
        pairs = (part.partition("=") for part in self.headers.get(b"cookie", b"").decode("latin-1").split(";"))
        return {name.strip(): value.strip() for name, _, value in pairs}
