"""What may go wrong with discovery.

DiscoveryError
├── NoInstance      nobody to send to (also a ConnectionError)
├── BadInstance     a registration that cannot be read (400)
└── RegistryFault   the registry refused or could not be reached (also a ConnectionError)
"""

from backstay.errors import BackstayError


class DiscoveryError(BackstayError):
    """Discovery could not do what it was asked to do."""


class NoInstance(DiscoveryError, ConnectionError):
    """No instance of the application is up, or every one was ejected a moment ago."""

    def __init__(self, app: str) -> None:
        super().__init__(f"no instance of {app} is up")
        self.app = app


class BadInstance(DiscoveryError):
    """A registration that cannot be read; the message says what is missing or wrong."""


class TooManyLeases(DiscoveryError):
    """The registry holds as many leases as it may."""


class RegistryFault(DiscoveryError, ConnectionError):
    """The registry could not be reached, or answered something unexpected."""
