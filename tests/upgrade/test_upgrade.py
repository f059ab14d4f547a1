"""An upgrade from the earlier release loses nothing, doubles nothing, and answers repeats with the same bytes."""

import base64
import json
import subprocess
import sys
import tarfile
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from email import message_from_bytes, policy
from io import BytesIO
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

import pytest
from tests.world import World, agreed, running_system

from backstay.dev.web import Web
from backstay.http import HttpClient
from backstay.testing import eventually, scaled
from lab.client.user import Shopper

RELEASE = "2e33c58"
ROOT = Path(__file__).parents[2]
SERVICES = ("auth", "catalog", "orders", "payments", "inventory", "notifications")
SETTLE = 60.0  # seconds

pytestmark = [pytest.mark.upgrade, pytest.mark.apache, pytest.mark.timeout(600), pytest.mark.xdist_group("upgrade")]


@dataclass(frozen=True, slots=True)
class Left:
    """What the earlier release left behind, and the new one that runs on it."""

    world: World
    found: dict[str, Any]

    def answers(self) -> list[dict[str, Any]]:
        """Checkouts with what was answered, None where no answer came."""
        return list(self.found["answers"])


def release() -> Path:
    """The earlier release's tree with an environment of its own, made once."""
    tree = ROOT / ".cache" / f"release-{RELEASE}"
    if not (tree / ".venv" / "installed").exists():
        archive = subprocess.run(["git", "-C", str(ROOT), "archive", RELEASE], capture_output=True, check=False)
        assert archive.returncode == 0, f"this clone has no {RELEASE}: {archive.stderr.decode()}"
        with tarfile.open(fileobj=BytesIO(archive.stdout)) as files:
            files.extractall(tree, filter="data")
        subprocess.run([base_python(), str(tree / ".ci" / "install.py")], check=True)
    return tree


def base_python() -> str:
    """The interpreter that this environment was made with."""
    return str(Path(sys.base_prefix) / "bin" / f"python{sys.version_info.major}.{sys.version_info.minor}")


@pytest.fixture(scope="module")
def left() -> Iterator[Left]:
    """A home with a stopped system of the earlier release, and ours started on it."""
    home, tree = Path("/tmp") / f"backstay-upgrade-{uuid4().hex[:12]}", release()
    out = home.with_suffix(".json")
    home.mkdir(mode=0o755)
    before = [str(tree / ".venv" / "bin" / "python"), str(Path(__file__).parent / "before.py")]
    done = subprocess.run(
        [*before, str(home), str(out), str(scaled(1.0))], capture_output=True, text=True, check=False, cwd=tree
    )
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-4000:]
    found = json.loads(out.read_text())
    out.unlink()
    with running_system(home, "apache", seeded=False) as world:
        yield Left(world, found)


@pytest.fixture
async def customer(left: Left) -> AsyncIterator[Shopper]:
    """The customer of before, logged in with the password of before."""
    async with Web(left.world.running.gateway) as web:
        shopper = Shopper(web, left.found["email"], left.found["password"])
        await shopper.login()
        yield shopper


def test_every_state_was_left(left: Left) -> None:
    """The earlier release did leave what the other tests are about."""
    names = [each["name"] for each in left.answers()]

    assert set(json.loads(left.found["states"])) == {"created", "payment_pending", "confirmed", "cancelled"}
    assert left.found["unpublished"] > 0
    assert left.found["dead_letters"] > 0
    assert len(names) == len(set(names))


async def test_repeats_are_answered_with_the_same_bytes(left: Left, customer: Shopper) -> None:
    """A key stored by the earlier release answers what was answered then; one without an answer goes on."""
    async with HttpClient() as client:
        for each in left.answers():
            answer = await _repeat(left, client, customer.token, each)
            if each["status"] is None:
                assert answer.status in (201, 202), answer.body
            else:
                assert (answer.status, answer.body) == (each["status"], base64.b64decode(each["answer"])), each["name"]


async def _repeat(left: Left, client: HttpClient, token: str, each: dict[str, Any]) -> Any:
    host, _, port = left.world.running.gateway.removeprefix("http://").partition(":")
    headers = [
        ("content-type", "application/json"),
        ("authorization", f"Bearer {token}"),
        ("idempotency-key", each["key"]),
    ]
    body = each["body"].encode()

    async def answered() -> Any:
        answer = await client.request(
            host, int(port), "POST", "/api/v1/orders", headers=headers, body=body, timeout=15.0
        )
        return answer if answer.status not in (409, 429, 503) else None

    return await eventually(answered, timeout=SETTLE, interval=0.5)


async def test_everything_settles_and_every_ledger_agrees(left: Left, customer: Shopper) -> None:
    """Orders of before end as they would have, charged once or not at all; stock, mails and figures follow."""
    orders = [str(each["id"]) for each in await customer.every("/api/v1/orders")]
    by_name = {each["name"]: each["order"] for each in left.answers()}
    world = left.world
    async with (
        world.database("orders") as book,
        world.database("payments") as payments,
        world.database("inventory") as stock,
    ):
        ids = [UUID(order) for order in orders]
        states = await eventually(lambda: agreed(ids, book, payments, stock), timeout=SETTLE, interval=0.2)

    assert len(orders) == len(by_name)
    expected = {"declined": "cancelled", "cancelled": "cancelled", "pending, cancelled": "cancelled"}
    assert {name: states[order] for name, order in by_name.items() if order} == {
        name: expected.get(name, "confirmed") for name, order in by_name.items() if order
    }
    assert sorted(states.values()).count("confirmed") == 4


async def test_outboxes_empty_and_each_mail_is_sent_once(left: Left, customer: Shopper) -> None:
    """Rows that were left unpublished are published; consumer groups go on where they stood."""
    for service in SERVICES:
        async with left.world.database(service) as database:

            async def empty(database: Any = database) -> bool:
                return await database.fetchval("SELECT count(*) FROM outbox") == 0

            await eventually(empty, timeout=SETTLE, interval=0.2)
    orders = await customer.every("/api/v1/orders")
    confirmed = [each["id"] for each in orders if each["status"] == "confirmed"]

    async def mailed() -> bool:
        mails = [mail for mail in left.world.mails(left.found["email"]) if "confirmed" in mail.subject.lower()]
        texts = [
            str(message_from_bytes(mail.file.read_bytes(), policy=policy.default).get_body(("plain",)).get_content())
            for mail in mails
        ]
        sent = {each["id"]: sum(each["id"] in text for text in texts) for each in orders}
        assert max(sent.values()) == 1, f"a confirmation was sent again: {sent}"
        return all(sent[order] == 1 for order in confirmed)

    await eventually(mailed, timeout=SETTLE, interval=0.2)


async def test_dead_letters_are_kept(left: Left) -> None:
    """A dead letter of before is still there, with its bytes."""
    async with left.world.database("inventory") as database:
        values = [row["value"] for row in await database.fetch("SELECT value FROM dead_letters")]

    assert len(values) == left.found["dead_letters"]
    assert b'{"order_id": 5}' in [bytes(value) for value in values]


async def test_a_session_of_before_goes_on(left: Left) -> None:
    """A refresh token that the earlier release issued still counts, once."""
    async with Web(left.world.running.gateway) as web:
        body = {"refresh_token": left.found["refresh"]}
        reply = (await web.call("POST", "/api/v1/auth/refresh", body)).expect(200)
        again = {"refresh_token": reply.body["refresh_token"]}
        (await web.call("POST", "/api/v1/auth/refresh", again)).expect(200)
