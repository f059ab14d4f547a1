"""Database, broker and mail of one system: our own where nothing else was named, ready when `start` returns."""

import asyncio
import shutil
from collections.abc import Mapping

from backstay.dev import account, apache, postgres, tansu
from backstay.dev.home import Home
from backstay.dev.mail_catcher import Mailbox
from backstay.dev.ports import HOST, free_port, is_open
from backstay.dev.screen import Screen
from backstay.dev.supervisor import Supervisor
from backstay.messaging import KafkaBroker
from lab.system import kafka
from lab.system.environment import Resources
from lab.system.options import APACHE, EMBEDDED, Options
from shop import topology

READY_TIMEOUT = 60.0  # seconds
TOPICS_TIMEOUT = 30.0  # seconds


async def start(
    options: Options, home: Home, supervisor: Supervisor, screen: Screen, mailbox: Mailbox | None
) -> Resources:
    """Everything that services stand on: database, broker with its topics, mail."""
    if options.kafka == APACHE:
        await _fetch_kafka(screen)
    if options.kafka == EMBEDDED:
        _forget(home, screen)
    elif options.fresh and options.kafka_is_ours:
        empty(home, options.kafka)
    with screen.step(_described(options)):
        databases, bootstrap = await asyncio.gather(
            _databases(options, home, supervisor), _broker(options, home, supervisor)
        )
    return Resources(
        bootstrap=bootstrap,
        flavor=options.flavor,
        smtp_url=options.smtp_url or (mailbox.url if mailbox else ""),
        databases=databases,
    )


def _described(options: Options) -> str:
    database = "your PostgreSQL" if options.database_url else "PostgreSQL"
    broker = {EMBEDDED: "the embedded broker", APACHE: f"Apache Kafka {apache.VERSION}"}
    return f"{database} and {broker.get(options.kafka, f'Kafka at {options.kafka}')}"


def _forget(home: Home, screen: Screen) -> None:
    """Databases and the embedded broker share a lifetime: the broker forgets, so they do."""
    folder = home.data(EMBEDDED)
    if folder.exists():
        screen.note(f"the embedded broker keeps nothing on disk: the databases under {folder} start empty with it")
        empty(home, EMBEDDED)


def empty(home: Home, broker: str) -> None:
    """Remove databases, broker and mails that a system left on this home; nothing may run on it."""
    folder = home.data(broker)
    if not folder.exists():
        return
    shutil.rmtree(folder / "kafka", ignore_errors=True)
    shutil.rmtree(account.reachable_base(folder / "postgres", account.unprivileged()) / "data", ignore_errors=True)
    shutil.rmtree(home.mail, ignore_errors=True)
    home.mail.mkdir(parents=True, mode=0o700)


def tidy(home: Home) -> None:
    """Remove databases that start empty next time where they lie outside of the home (root, and a private folder)."""
    folder = home.data(EMBEDDED) / "postgres"
    base = account.reachable_base(folder, account.unprivileged())
    if base != folder:
        shutil.rmtree(base, ignore_errors=True)


async def _databases(options: Options, home: Home, supervisor: Supervisor) -> Mapping[str, str]:
    if options.database_url:
        return {name: options.database_url.replace("{service}", name) for name in topology.DATABASES}
    cluster = await asyncio.to_thread(
        postgres.create,
        home.data(options.kafka) / "postgres",
        port=free_port(),
        password=home.secret("postgres"),
        log=home.logs / "postgres.log",
    )

    async def ready() -> bool:
        return await asyncio.to_thread(cluster.is_ready)

    await supervisor.add(cluster.program())
    await supervisor.ready("postgres", ready, timeout=READY_TIMEOUT)
    passwords = {name: home.secret(f"database.{name}") for name in topology.DATABASES}
    await asyncio.to_thread(cluster.create_databases, passwords)
    return {name: cluster.dsn(name, name, password) for name, password in passwords.items()}


async def _broker(options: Options, home: Home, supervisor: Supervisor) -> str:
    bootstrap = await _start_broker(options, home, supervisor) if options.kafka_is_ours else options.kafka
    broker = kafka.broker(bootstrap, options.flavor, options.kafka_settings, client_id="make-up")
    try:
        async with asyncio.timeout(TOPICS_TIMEOUT):
            await broker.create_topics(topology.TOPICS)
    finally:
        await broker.aclose()
    return bootstrap


async def _start_broker(options: Options, home: Home, supervisor: Supervisor) -> str:
    inside, outside = options.kafka_proxy or (free_port(), None)
    port, log = inside, home.logs / "kafka.log"
    if options.kafka == EMBEDDED:
        await supervisor.add(tansu.program(port, log, advertised=outside), vital=True)
    else:
        port = free_port() if outside else inside
        folder = home.data(APACHE) / "kafka"
        node = await asyncio.to_thread(apache.create, folder, log=log, port=port, proxied=options.kafka_proxy)
        await supervisor.add(node.program())

    async def ready() -> bool:
        return await asyncio.to_thread(is_open, port)

    await supervisor.ready("kafka", ready, timeout=READY_TIMEOUT)
    return f"{HOST}:{outside or port}"


async def _fetch_kafka(screen: Screen) -> None:
    if missing := apache.missing_programs():
        raise apache.KafkaError(
            f"Apache Kafka needs Java and Maven; not found in PATH: {', '.join(missing)}. Install them, or leave out "
            "KAFKA=apache for the embedded broker"
        )
    if not apache.is_fetched():
        with screen.step("Apache Kafka from Maven (45 MB, once)"):
            await asyncio.to_thread(apache.fetch)
    if not apache.has_archive():
        with screen.step("Java class archive (once; halves Kafka's start)"):
            await asyncio.to_thread(apache.make_archive, lambda bootstrap: asyncio.run(_exercise(bootstrap)))


async def _exercise(bootstrap: str) -> None:
    broker = KafkaBroker(bootstrap, client_id="make-up")
    try:
        await broker.create_topics({"warm": 1})
    finally:
        await broker.aclose()
