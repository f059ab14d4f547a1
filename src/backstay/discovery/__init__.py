"""Service discovery that speaks Eureka: a registry, its client, and the choice of an instance."""

from backstay.discovery.balancer import Balancer
from backstay.discovery.client import EurekaClient, EurekaClientStatistics
from backstay.discovery.credentials import Credential, Credentials
from backstay.discovery.errors import BadInstance, DiscoveryError, NoInstance, RegistryFault, TooManyLeases, Unreachable
from backstay.discovery.instance import Instance, Registry
from backstay.discovery.leases import Lease, LeaseRegistry, LeaseStatistics
from backstay.discovery.registration import DataCenter, Registration
from backstay.discovery.server import RegistryServer
from backstay.discovery.static import StaticRegistry

__all__ = [
    "BadInstance",
    "Balancer",
    "Credential",
    "Credentials",
    "DataCenter",
    "DiscoveryError",
    "EurekaClient",
    "EurekaClientStatistics",
    "Instance",
    "Lease",
    "LeaseRegistry",
    "LeaseStatistics",
    "NoInstance",
    "Registration",
    "Registry",
    "RegistryFault",
    "RegistryServer",
    "StaticRegistry",
    "TooManyLeases",
    "Unreachable",
]
