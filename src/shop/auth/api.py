"""HTTP in: accounts under the API's prefix, the key set at the root, tokens for services inside."""

import base64
import binascii
from datetime import datetime
from typing import Any
from urllib.parse import parse_qsl, unquote_plus
from uuid import UUID

import msgspec

from backstay.service import Answer, Principal, Request, Route, Unauthorized, get, post
from shop.auth.model import User
from shop.auth.service import Accounts, Clients, Grant, IssuedToken, KeyRing, TokenRefused

BODY_LIMIT = 16 * 1024  # bytes
NO_STORE = {"Cache-Control": "no-store"}
ACCEPTED = "If the address is new, you can log in now. If it is known, its owner gets a mail."


class NewAccount(msgspec.Struct, frozen=True, kw_only=True):
    """A new account."""

    email: str
    password: str
    name: str


class Accepted(msgspec.Struct, frozen=True):
    """The same answer for every registration."""

    status: str = "accepted"
    detail: str = ACCEPTED


class Credentials(msgspec.Struct, frozen=True, kw_only=True):
    """Credentials of a login."""

    email: str
    password: str


class KeySet(msgspec.Struct, frozen=True):
    """Public keys (RFC 7517)."""

    keys: list[dict[str, str]]


class RefreshRequest(msgspec.Struct, frozen=True, kw_only=True):
    """A refresh token; it counts once. For a few seconds a repeat is answered with the same new one."""

    refresh_token: str


class PasswordChange(msgspec.Struct, frozen=True, kw_only=True):
    """The password of now and the one to come."""

    current_password: str
    new_password: str


class TokenPair(msgspec.Struct, frozen=True, kw_only=True):
    """A login's tokens."""

    access_token: str
    refresh_token: str
    token_type: str
    expires_in: int


class UserView(msgspec.Struct, frozen=True, kw_only=True):
    """A user as he sees himself."""

    id: UUID
    email: str
    name: str
    roles: tuple[str, ...]
    created_at: datetime


class ServiceToken(msgspec.Struct, frozen=True, kw_only=True):
    """A service's own token (RFC 6749 §5.1)."""

    access_token: str
    token_type: str
    expires_in: int
    scope: str


class TokenError(msgspec.Struct, frozen=True, kw_only=True):
    """A refused token request (RFC 6749 §5.2)."""

    error: str
    error_description: str


def routes(accounts: Accounts, keys: KeyRing, clients: Clients) -> list[Route]:
    """Return the routes of auth."""
    return [*_doors(accounts), *_own(accounts), *_issuer(keys, clients)]


def _doors(accounts: Accounts) -> list[Route]:
    @post("/api/v1/auth/register", public=True, status=202, max_body=BODY_LIMIT)
    async def register(body: NewAccount, request: Request) -> Accepted:
        """Register; the answer is the same whether or not the address is known."""
        await accounts.register(body.email, body.password, body.name, request.address_key)
        return Accepted()

    @post("/api/v1/auth/login", public=True, max_body=BODY_LIMIT)
    async def login(body: Credentials, request: Request) -> Answer[TokenPair]:
        """Log in; too many failures have to wait."""
        return _pair(await accounts.login(body.email, body.password, request.address_key))

    @post("/api/v1/auth/refresh", public=True, max_body=BODY_LIMIT)
    async def refresh(body: RefreshRequest) -> Answer[TokenPair]:
        """Trade a refresh token for new tokens; a second use ends the session, unless it repeats a lost answer."""
        return _pair(await accounts.refresh(body.refresh_token))

    return [register, login, refresh]


def _own(accounts: Accounts) -> list[Route]:
    @post("/api/v1/auth/logout")
    async def logout(who: Principal) -> None:
        """End this session."""
        await accounts.logout(_of_user(who.session))

    @get("/api/v1/auth/me")
    async def me(who: Principal) -> UserView:
        """My account."""
        _of_user(who.session)
        return _view(await accounts.me(_of_user(who.id)))

    @post("/api/v1/auth/password", max_body=BODY_LIMIT)
    async def change_password(body: PasswordChange, who: Principal, request: Request) -> None:
        """Change my password; all my sessions end, this one too."""
        _of_user(who.session)
        await accounts.change_password(_of_user(who.id), body.current_password, body.new_password, request.address_key)

    return [logout, me, change_password]


def _issuer(keys: KeyRing, clients: Clients) -> list[Route]:
    @get("/.well-known/jwks.json", public=True)
    async def key_set() -> Answer[KeySet]:
        """Return the public keys of all tokens (RFC 7517)."""
        return Answer(keys.document, headers={"Cache-Control": f"public, max-age={int(keys.max_age)}"})

    @post("/oauth2/token", public=True, max_body=BODY_LIMIT, hidden=True)
    async def token(body: bytes, request: Request) -> Answer[Any]:
        """Return a token for a service, by client credentials (RFC 6749 §4.4)."""
        try:
            return _service_token(clients, body, request)
        except TokenRefused as refused:
            return _token_error(refused)

    return [key_set, token]


def _service_token(clients: Clients, body: bytes, request: Request) -> Answer[Any]:
    form = _form(body)
    if form.get("grant_type") != "client_credentials":
        raise TokenRefused("unsupported_grant_type", "grant_type must be client_credentials")
    client_id, secret = _client_of(request.header("authorization"), form)
    return _service_answer(clients.token(client_id, secret, form.get("scope"), form.get("audience")))


def _service_answer(issued: IssuedToken) -> Answer[Any]:
    body = ServiceToken(
        access_token=issued.value,
        token_type="Bearer",  # noqa: S106 - the type's name
        expires_in=issued.life,
        scope=issued.scope,
    )
    return Answer(body, headers=NO_STORE)


def _token_error(refused: TokenRefused) -> Answer[Any]:
    body = TokenError(error=refused.code, error_description=str(refused))
    if refused.code == "invalid_client":
        return Answer(body, 401, {**NO_STORE, "WWW-Authenticate": 'Basic realm="auth"'})
    return Answer(body, 400, NO_STORE)


def _form(body: bytes) -> dict[str, str]:
    try:
        pairs = parse_qsl(body.decode(), keep_blank_values=True, errors="strict", max_num_fields=20)
    except ValueError as error:
        raise TokenRefused("invalid_request", "the body is not application/x-www-form-urlencoded") from error
    if len(dict(pairs)) != len(pairs):
        raise TokenRefused("invalid_request", "a parameter is given twice")
    return dict(pairs)


def _client_of(authorization: str | None, form: dict[str, str]) -> tuple[str, str]:
    if authorization is None:
        return form.get("client_id", ""), form.get("client_secret", "")
    scheme, _, encoded = authorization.partition(" ")
    try:
        given = base64.b64decode(encoded, validate=True).decode()
    except (binascii.Error, UnicodeDecodeError):
        given = ""
    client_id, _, secret = given.partition(":")
    if scheme.lower() != "basic":
        raise TokenRefused("invalid_client", "clients authenticate by Basic, or in the body")
    return unquote_plus(client_id), unquote_plus(secret)


def _of_user(ident: str | None) -> UUID:
    """Return the id of a user or a session, as only a user's token has it; a service's has names."""
    try:
        return UUID(ident or "")
    except ValueError:
        raise Unauthorized("this needs a user's token") from None


def _pair(grant: Grant) -> Answer[TokenPair]:
    body = TokenPair(
        access_token=grant.access.value,
        refresh_token=grant.refresh_token,
        token_type="Bearer",  # noqa: S106 - the type's name
        expires_in=grant.access.life,
    )
    return Answer(body, headers=NO_STORE)


def _view(user: User) -> UserView:
    return UserView(id=user.id, email=user.email, name=user.name, roles=user.roles, created_at=user.created_at)
