"""Errors of a server that can't listen, as mistakes in the settings that name its address."""

import errno
import socket
from collections.abc import Iterator
from contextlib import contextmanager

from backstay.errors import ConfigError


@contextmanager
def listening(host: str, port: int, *, host_name: str = "HOST", port_name: str = "PORT") -> Iterator[None]:
    """Raise ConfigError with the settings' names if the block can't listen on `host:port`."""
    try:
        yield
    except socket.gaierror as error:
        raise ConfigError(f"{host_name}={host!r} is unknown: {error.strerror}") from error
    except OSError as error:
        if error.errno == errno.EADDRINUSE:
            text = f"port {port} of {host} is taken; stop what listens there, or choose another (0: any)"
            raise ConfigError(f"{port_name}={port}: {text}") from error
        raise ConfigError(
            f"{port_name}={port}: can't listen on port {port} of {host} ({error.strerror or error})"
        ) from error


__all__ = ["listening"]
