"""Settings of auth."""

from dataclasses import dataclass
from typing import Annotated

import msgspec
from msgspec import Meta

from backstay.service import Seconds, Secret
from shop.settings import ShopSettings

DAY = 86_400.0  # seconds
MAX_CLIENTS = 1000
SECRET_MIN = 16  # characters
NO_SECRET = Secret("")
NO_CLIENTS = Secret("[]")


class ServiceClient(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A service that may request tokens of its own: what they allow at most, and at which services (`a b` each)."""

    id: Annotated[str, Meta(min_length=1, max_length=100)]
    secret: Annotated[str, Meta(min_length=SECRET_MIN)]
    scope: str = ""
    audience: str = ""

    def __repr__(self) -> str:
        return f"ServiceClient(id={self.id!r}, secret='***', scope={self.scope!r}, audience={self.audience!r})"


@dataclass(frozen=True, kw_only=True)
class Settings(ShopSettings):
    """Settings of auth."""

    access_token_life: Seconds = 300.0
    service_token_life: Seconds = 600.0
    refresh_token_life: Seconds = 30 * DAY
    """How long a session may rest."""
    session_life: Seconds = 90 * DAY
    """How long a session may last, however busy it is."""
    refresh_grace: Seconds = 10.0
    """How long a refresh token is answered again with the same successor, while that is unused."""
    registration_beat: Seconds = 0.25
    """Registrations end on a multiple of this, so that how long one takes tells nothing about the address."""
    key_rotation: Seconds = 30 * DAY
    """Age at which the signing key is replaced by the next one."""
    jwks_max_age: Seconds = 60.0
    """How long others may keep the key set before they look again."""
    key_encryption_secret: Secret = NO_SECRET
    """Encrypts the private keys in the database; without it they are stored as they are."""
    clients: Secret = NO_CLIENTS
    """Services with tokens of their own: JSON list of {"id", "secret", "scope", "audience"}; `audience` are the
    services that it may call."""
    admin_email: str = ""
    """The first admin; none is made if empty."""
    admin_password: Secret = NO_SECRET
    argon2_memory_kib: Annotated[int, Meta(ge=8, le=4_194_304)] = 19_456
    argon2_time: Annotated[int, Meta(ge=1, le=100)] = 2
    argon2_parallelism: Annotated[int, Meta(ge=1, le=64)] = 1
    argon2_threads: Annotated[int, Meta(ge=1, le=64)] = 2
    """Passwords hashed at a time."""
    argon2_waiting: Annotated[int, Meta(ge=0)] = 64
    """Passwords that may wait for a thread; beyond it requests get 503."""

    def problems(self) -> list[str]:
        """Contradictions among auth's settings besides the base's own."""
        found = [*super().problems(), *_client_problems(self.clients, self.token_audience)]
        if not self.token_issuer:
            found.append("TOKEN_ISSUER is not set: tokens must name their issuer")
        if self.admin_email and not self.admin_password:
            found.append("ADMIN_PASSWORD is not set: the admin of ADMIN_EMAIL needs one")
        if self.key_encryption_secret and len(self.key_encryption_secret) < SECRET_MIN:
            found.append(f"KEY_ENCRYPTION_SECRET=***: must have at least {SECRET_MIN} characters")
        return found

    @property
    def service_clients(self) -> dict[str, ServiceClient]:
        """The clients by id."""
        return {client.id: client for client in msgspec.json.decode(self.clients.encode(), type=list[ServiceClient])}


def _client_problems(text: str, customers: str) -> list[str]:
    try:
        clients = msgspec.json.decode(text.encode(), type=Annotated[list[ServiceClient], Meta(max_length=MAX_CLIENTS)])
    except msgspec.MsgspecError as error:
        return [f'CLIENTS=***: must be a JSON list of {{"id", "secret", "scope", "audience"}} ({error})']
    if len({client.id for client in clients}) != len(clients):
        return ["CLIENTS=***: two clients have the same id"]
    problems = [
        f"CLIENTS=***: {client.id} has no audience; name the services that it may call"
        for client in clients
        if not client.audience.split()
    ]
    return problems + [
        f"CLIENTS=***: {client.id} has the audience {customers!r}, which is that of customers' tokens"
        for client in clients
        if customers in client.audience.split()
    ]
