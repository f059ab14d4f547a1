"""Who sends a request: the owner of its bearer token (RFC 6750), verified here."""

from collections.abc import Collection

from backstay.asgi.errors import invalid_token
from backstay.asgi.replies import refusal
from backstay.asgi.types import App, Receive, Scope, Send
from backstay.auth import Principal, TokenVerifier
from backstay.http.problems import Unauthorized

STATE = "principal"
"""Key of the caller in the state of the ASGI scope: `request.state.principal` in Starlette and FastAPI."""


def caller_of(authorization: bytes | None, verifier: TokenVerifier) -> Principal | None:
    """Return the owner of the bearer token in an `Authorization` header; None without a header.

    Raises:
        Unauthorized: the scheme isn't Bearer.
        InvalidToken: the token isn't acceptable.
        KeysUnavailable: it can't be verified at the moment.
    """
    if authorization is None:
        return None
    scheme, _, token = authorization.partition(b" ")
    if scheme.lower() != b"bearer":
        raise invalid_token("the scheme must be Bearer")
    return verifier.verify(token.strip())


def token_needed() -> Unauthorized:
    """Return the refusal of a request without a token."""
    return Unauthorized("an access token is needed; send `Authorization: Bearer <token>`")


class Identity:
    """Middleware: the caller is `request.state.principal`, a `Principal`, or None without a token.

    A token that isn't acceptable is answered 401, one that can't be verified at the moment 503. Scopes and roles are
    for the handler: `backstay.auth.require(principal, scope="orders:write")`.
    """

    def __init__(
        self, app: App, *, verifier: TokenVerifier, required: bool = False, public: Collection[str] = ()
    ) -> None:
        """`required`: a request without a token is answered 401, except under the path prefixes in `public`."""
        self.app = app
        self.verifier = verifier
        self.required = required
        self.public = tuple(public)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """ASGI."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        try:
            caller = caller_of(dict(scope["headers"]).get(b"authorization"), self.verifier)
            if caller is None and self.required and not scope["path"].startswith(self.public):
                raise token_needed()
        except Exception as error:  # noqa: BLE001 - the client gets a problem, whatever happened
            await refusal(error, scope).send(send)
            return
        scope.setdefault("state", {})[STATE] = caller
        await self.app(scope, receive, send)


__all__ = ["STATE", "Identity", "caller_of", "token_needed"]
