"""A client with an account: registers, logs in, renews its token, and retries its requests."""

from typing import Any

from backstay.dev.web import Reply, Web
from lab.client.retrying import Retries, patiently

LOGIN_PATIENCE = 180.0  # seconds


class Shopper:
    """One account on one shop, customer or admin."""

    def __init__(self, web: Web, email: str, password: str, *, retries: Retries | None = None) -> None:
        self.email, self._password = email, password
        self._web, self._retries = web, retries
        self.token = ""
        self._refresh = ""

    async def register(self, name: str) -> None:
        """Register the account; a known address gets the same answer."""
        body = {"email": self.email, "password": self._password, "name": name}
        (await self._patiently("POST", "/api/v1/auth/register", body)).expect(202)

    async def login(self) -> None:
        """Get an access token."""
        body = {"email": self.email, "password": self._password}
        self._keep((await self._patiently("POST", "/api/v1/auth/login", body)).expect(200))

    async def renew(self) -> None:
        """A fresh access token: by the refresh token, which counts once, and by the password where that fails."""
        body, self._refresh = {"refresh_token": self._refresh}, ""
        if body["refresh_token"]:
            reply = await self._patiently("POST", "/api/v1/auth/refresh", body)
            if reply.status == 200:
                self._keep(reply)
                return
        await self.login()

    async def ask(self, method: str, path: str, body: Any = None, *, key: str | None = None) -> Reply:
        """One request as this person, repeated where that is right; a new token when the old one is over."""
        if not self.token:
            await self.login()
        reply = await self._authorised(method, path, body, key)
        if reply.status == 401:
            await self.renew()
            reply = await self._authorised(method, path, body, key)
        return reply

    async def get(self, path: str) -> Any:
        """Return the JSON at a path; Refused unless it is 200."""
        return (await self.ask("GET", path)).expect(200).body

    async def every(self, path: str) -> list[Any]:
        """All items of a list, page after page."""
        items, cursor = [], ""
        while True:
            mark = "&" if "?" in path else "?"
            page = await self.get(f"{path}{mark}limit=100{cursor}")
            items += page["items"]
            if not page.get("next"):
                return items
            cursor = f"&cursor={page['next']}"

    async def id(self) -> str:
        """Return the account's id."""
        me = await self.get("/api/v1/auth/me")
        return str(me["id"])

    def _keep(self, reply: Reply) -> None:
        self.token, self._refresh = reply.body["access_token"], reply.body["refresh_token"]

    async def _authorised(self, method: str, path: str, body: Any, key: str | None) -> Reply:
        return await patiently(
            lambda: self._web.call(method, path, body, token=self.token, key=key), retries=self._retries
        )

    async def _patiently(self, method: str, path: str, body: Any) -> Reply:
        return await patiently(
            lambda: self._web.call(method, path, body), retries=self._retries, patience=LOGIN_PATIENCE
        )
