"""Service discovery that speaks Eureka: who is up, where, and for how long."""

from backstay.discovery.balancer import Balancer
from backstay.discovery.errors import BadInstance, DiscoveryError, NoInstance, RegistryFault
from backstay.discovery.instance import Instance, Registry
from backstay.discovery.static import StaticRegistry

__all__ = [
    "BadInstance",
    "Balancer",
    "DiscoveryError",
    "Instance",
    "NoInstance",
    "Registry",
    "RegistryFault",
    "StaticRegistry",
]
