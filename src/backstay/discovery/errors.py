"""Errors of discovery.

DiscoveryError
├── NoInstance      nobody to send to (also a ConnectionError)
│   └── Unreachable those that are up can't be spoken to: TLS only, or no port
├── BadInstance     a registration that cannot be read (400)
└── RegistryFault   the registry refused or could not be reached (also a ConnectionError)
"""

from backstay.errors import BackstayError


class DiscoveryError(BackstayError):
    """Discovery failed."""


class NoInstance(DiscoveryError, ConnectionError):
    """No instance of the application is up, or every one was ejected a moment ago."""

    def __init__(self, app: str, reason: str = "") -> None:
        super().__init__(reason or f"no instance of {app} is up")
        self.app = app


class Unreachable(NoInstance):
    """Instances of the application are up, but none may be used in plain HTTP, for the reason in the message."""


class BadInstance(DiscoveryError):
    """A registration that cannot be read; the message names what is missing or wrong."""


class TooManyLeases(DiscoveryError):
    """The registry holds as many leases as it may."""


class RegistryFault(DiscoveryError, ConnectionError):
    """The registry could not be reached, or answered something unexpected."""
