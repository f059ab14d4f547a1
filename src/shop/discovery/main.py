"""Composition of the registry."""

from collections.abc import Mapping

from backstay.runtime.registry import RegistryProcess
from shop.discovery.config import DiscoverySettings


def settings(environ: Mapping[str, str]) -> DiscoverySettings:
    """Return the settings that the environment asks for; raises `ConfigError`."""
    return DiscoverySettings.read(environ)


def build(settings: DiscoverySettings) -> RegistryProcess:
    """Return the registry, ready to run."""
    return RegistryProcess(settings)
