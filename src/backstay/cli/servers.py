"""`backstay gateway` and `backstay registry`: servers of their own."""

import asyncio
import os
from contextlib import AbstractAsyncContextManager, AsyncExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from backstay.cli.common import listening, log_to_stderr, reported, run, say, until_stopped
from backstay.errors import ConfigError

if TYPE_CHECKING:
    from backstay.auth import TokenVerifier
    from backstay.discovery import Credentials
    from backstay.gateway import RouteTable


@dataclass(frozen=True, slots=True)
class Issuer:
    """Who signs the access tokens that a gateway accepts; all empty when nobody does."""

    name: str
    audience: str
    jwks: str

    def check(self) -> None:
        """Raise ConfigError unless all that is needed is there, or nothing at all."""
        if (self.name or self.jwks or self.audience) and not (self.name and self.audience):
            raise ConfigError("--issuer and --audience go together; --jwks needs both")

    @property
    def keys(self) -> str:
        """Where the keys are."""
        return self.jwks or self.name.rstrip("/") + "/.well-known/jwks.json"


def gateway(
    file: Path,
    host: str = "127.0.0.1",
    port: int = 8080,
    eureka: str = "",
    profile: str = "",
    issuer: str = "",
    audience: str = "",
    jwks: str = "",
    open: bool = False,  # noqa: A002 - the option's name
) -> None:
    """Serve the routes of a Spring Cloud Gateway FILE (application.yml or .properties), until SIGTERM.

    EUREKA is the address of the registry for lb:// routes, such as http://127.0.0.1:8761/eureka; PROFILE is a list of
    active profiles, separated by commas, in place of SPRING_PROFILES_ACTIVE and of the file's own. Routes that aren't
    public want an access token of ISSUER for AUDIENCE, signed by a key found at JWKS (fixed addresses, separated by
    commas, tried in turn; default: the issuer's /.well-known/jwks.json); --open makes every route public.
    """
    run(_gateway(file, host, port, eureka, profile, Issuer(issuer, audience, jwks), open))


def registry(
    host: str = "127.0.0.1",
    port: int = 8761,
    credentials: Path | None = None,
    private_reads: bool = False,
    open: bool = False,  # noqa: A002 - the option's name
) -> None:
    """Serve a Eureka registry, until SIGTERM.

    CREDENTIALS is a file with the users that may register, else they are read from REGISTRY_CREDENTIALS: a JSON array
    such as [{"user": "orders", "passwords": ["…"], "apps": ["orders"]}]. --private-reads asks for one also to read.
    Without credentials only a loopback HOST is served, unless --open lets everybody register.
    """
    from backstay.discovery import RegistryServer

    log_to_stderr()
    with reported():
        users = _credentials(credentials, private_reads)
        server = RegistryServer(host, port, credentials=users, open=open)
        with listening(host, port):
            server.run()


def _credentials(file: Path | None, private_reads: bool) -> "Credentials | None":
    from backstay.discovery import Credentials

    try:
        text = os.environ.get("REGISTRY_CREDENTIALS", "") if file is None else file.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"--credentials {file}: {getattr(error, 'strerror', None) or error}") from error
    if file is not None or text:
        try:
            return Credentials.read(text, private_reads=private_reads)
        except ConfigError as error:
            origin = "REGISTRY_CREDENTIALS" if file is None else f"--credentials {file}"
            raise ConfigError(f"{origin}: {error}") from error
    if private_reads:
        raise ConfigError("--private-reads needs credentials: give --credentials or set REGISTRY_CREDENTIALS")
    return None


async def _gateway(file: Path, host: str, port: int, eureka: str, profile: str, issuer: Issuer, is_open: bool) -> None:
    from backstay.discovery import EurekaClient, Registry, StaticRegistry
    from backstay.gateway import Gateway
    from backstay.resilience import Registry as Policies

    issuer.check()
    routes = await _routes(file, profile, issuer, is_open)
    active = _profiles(profile)
    policies = await asyncio.to_thread(Policies.from_yaml, file, only=routes.breakers, profiles=active)
    async with AsyncExitStack() as stack:
        known: Registry = await stack.enter_async_context(EurekaClient(eureka)) if eureka else StaticRegistry({})
        verifier = await _verifier(stack, issuer) if issuer.name else None
        gateway = Gateway(routes, known, verifier=verifier, policies=policies, host=host, port=port)
        with listening(host, port):
            await _serve(gateway, f"gateway for {file}")


def _profiles(given: str) -> list[str] | None:
    """Return the profiles that are asked for; None leaves them to the environment and the file."""
    return [name for part in given.split(",") if (name := part.strip())] or None


async def _routes(file: Path, profile: str, issuer: Issuer, is_open: bool) -> "RouteTable":
    from backstay.gateway import RouteTable, read_definition_file

    found = await asyncio.to_thread(read_definition_file, file, os.environ, profiles=_profiles(profile))
    table = RouteTable(found)
    guarded = [route for route in table.routes if not route.public]
    if is_open:
        for route in guarded:
            route.public = True
    elif guarded and not issuer.name:
        names = ", ".join(route.id for route in guarded)
        raise ConfigError(
            f"{file}: these routes want an access token, but nobody is named who signs one: {names}. Give --issuer and "
            "--audience, or make a route public (metadata: public: true), or all of them (--open)"
        )
    return table


async def _verifier(stack: AsyncExitStack, issuer: Issuer) -> "TokenVerifier":
    from backstay.auth import FixedEndpoints, JwksCache, TokenVerifier, parse_jwks
    from backstay.http import HttpClient

    http = await stack.enter_async_context(HttpClient())
    endpoints = FixedEndpoints(issuer.keys, http, variable="--jwks", check=parse_jwks)
    keys = await stack.enter_async_context(JwksCache(endpoints.get, timeout=endpoints.timeout))
    return TokenVerifier(issuer.name, issuer.audience, keys)


async def _serve(server: AbstractAsyncContextManager[Any], what: str) -> None:
    async with server as running:
        say(f"{what} on http://{running.host}:{running.port}")
        await until_stopped()
