"""Instructions that one request costs in the service kit, counted by callgrind, so that no other load disturbs them.

    python benchmarks/kit_instructions.py            # every kind of request
    python benchmarks/kit_instructions.py drive create 2000    # one run, in this process

A run feeds requests to an inbound connection of a service with a transport that keeps nothing; no socket is involved.
Counting is switched on after the start and some requests; what the switching costs is counted in a run of its own.
"""

import asyncio
import os
import re
import subprocess
import sys
from typing import Annotated, Any
from uuid import UUID

import msgspec

WARM_UP = 100
COUNTED = 1000
"""Requests of a run, before the counting begins and while it lasts."""

THING = "0190a0a0-0000-7000-8000-000000000000"
BODY = b'{"lines":[{"sku":"tea-green","quantity":2},{"sku":"tea-black","quantity":1}],"note":"for Monday"}'


class Line(msgspec.Struct):
    """One line of an order."""

    sku: str
    quantity: Annotated[int, msgspec.Meta(ge=1, le=10_000)]


class NewThing(msgspec.Struct):
    """A request's body."""

    lines: Annotated[list[Line], msgspec.Meta(min_length=1)]
    note: str | None = None


class Thing(msgspec.Struct):
    """An answer's body."""

    id: UUID
    lines: list[Line]


def head(line: str, token: str, *more: str) -> bytes:
    """Return a request's head, with the fields that a gateway sends along."""
    fields = [
        f"{line} HTTP/1.1",
        "host: things",
        "accept: */*",
        "user-agent: bench",
        "x-forwarded-for: 10.0.0.9",
        "x-request-deadline-ms: 9500",
        "traceparent: 00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-00",
        f"authorization: Bearer {token}",
        *more,
    ]
    return ("\r\n".join(fields) + "\r\n\r\n").encode()


def requests(token: str) -> dict[str, bytes]:
    """Return the kinds of request."""
    json = ("content-type: application/json", f"content-length: {len(BODY)}")
    return {
        "plain": head("GET /plain", token),
        "read": head(f"GET /things/{THING}?limit=7", token),
        "create": head("POST /things", token, *json) + BODY,
    }


class Transport(asyncio.Transport):
    """Takes what is written; `answered` is set with every write."""

    def __init__(self) -> None:
        super().__init__({"peername": ("127.0.0.1", 50000), "sockname": ("127.0.0.1", 8000)})
        self.answered = asyncio.Event()
        self.last = b""

    def write(self, data: Any) -> None:
        self.last = data
        self.answered.set()

    def get_write_buffer_size(self) -> int:
        return 0

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None: ...
    def is_closing(self) -> bool:
        return False

    def can_write_eof(self) -> bool:
        return True

    def write_eof(self) -> None: ...
    def pause_reading(self) -> None: ...
    def resume_reading(self) -> None: ...
    def close(self) -> None: ...
    def abort(self) -> None: ...


async def drive(kind: str, count: int) -> None:
    """Answer `count` requests of one kind."""
    from backstay.auth import Principal, StaticKeys, TokenVerifier
    from backstay.service import Service, ServiceSettings, get, post
    from backstay.testing.issuer import TokenIssuer

    async def create(body: NewThing, who: Principal) -> Thing:
        return Thing(UUID(THING), body.lines)

    async def read(thing_id: UUID, limit: Annotated[int, msgspec.Meta(ge=1, le=100)] = 20) -> Thing:
        return Thing(thing_id, [Line("tea-green", limit)])

    async def plain() -> Thing:
        return Thing(UUID(THING), [])

    issuer = TokenIssuer(audience="shop")
    verifier = TokenVerifier(issuer.issuer, issuer.audience, StaticKeys(issuer.jwks))
    routes = [post("/things", scope="orders:write", status=201)(create), get("/things/{thing_id}")(read)]
    service = Service(
        "things",
        routes=[*routes, get("/plain", public=True)(plain)],
        settings=ServiceSettings(host="127.0.0.1", port=0, log_level=os.environ.get("LOG_LEVEL", "warning")),
        verifier=verifier,
    )
    async with service.running() as running:
        server: Any = running._server
        connection = server.listener._connection()
        transport = Transport()
        connection.connection_made(transport)
        request = requests(issuer.token())[kind]

        async def answer(times: int) -> None:
            for _ in range(times):
                transport.answered.clear()
                connection.data_received(request)
                await transport.answered.wait()
                await asyncio.sleep(0)

        await answer(WARM_UP)
        count_instructions("on")
        await answer(count)
        count_instructions("off")
        sys.stderr.write(bytes(transport.last)[:15].decode() + "\n")


def count_instructions(state: str) -> None:
    """Switch callgrind's counting on or off, if this process runs under it."""
    if "CALLGRIND" in os.environ:
        command = ["callgrind_control", "--instr=" + state, str(os.getpid())]
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)


def instructions(kind: str, count: int) -> int:
    """Return the instructions of one run."""
    options = ["--tool=callgrind", "--instr-atstart=no", "--callgrind-out-file=/dev/null"]
    command = ["valgrind", *options, sys.executable, __file__]
    run = subprocess.run(
        [*command, "drive", kind, str(count)],
        check=True,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONHASHSEED": "0", "CALLGRIND": "yes"},
    )
    found = re.search(r"Collected : (\d+)", run.stderr)
    if found is None or "HTTP/1.1 20" not in run.stderr:
        raise RuntimeError(run.stderr[-2000:])
    return int(found[1])


def main() -> None:
    """Print the cost of each kind of request, and the mean."""
    costs = {}
    switching = instructions("plain", 0)
    for kind in requests(""):
        costs[kind] = (instructions(kind, COUNTED) - switching) / COUNTED
        print(f"{kind:8} {costs[kind] / 1000:8.1f} k instructions a request", flush=True)
    print(f"{'mean':8} {sum(costs.values()) / len(costs) / 1000:8.1f} k")


if __name__ == "__main__":
    if sys.argv[1:2] == ["drive"]:
        import uvloop

        uvloop.run(drive(sys.argv[2], int(sys.argv[3])))
    else:
        main()
