"""Settings of the registry."""

from backstay.runtime.registry import RegistrySettings as DiscoverySettings

__all__ = ["DiscoverySettings"]
