"""An issuer of tokens, and requests to an application without a socket."""

from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Any

import httpx
import pytest

from backstay.auth import StaticKeys, TokenVerifier
from backstay.testing.issuer import TokenIssuer

Calling = Callable[[Any], AbstractAsyncContextManager[httpx.AsyncClient]]


@pytest.fixture(scope="session")
def issuer() -> TokenIssuer:
    return TokenIssuer(audience="things")


@pytest.fixture
def verifier(issuer: TokenIssuer) -> TokenVerifier:
    return TokenVerifier(issuer.issuer, issuer.audience, StaticKeys(issuer.jwks))


@asynccontextmanager
async def calling(app: Any) -> AsyncIterator[httpx.AsyncClient]:
    """Yield a client of an ASGI application."""
    transport = httpx.ASGITransport(app)
    async with httpx.AsyncClient(transport=transport, base_url="http://test") as http:
        yield http
