"""An API gateway that reads Spring Cloud Gateway's routes: streaming, checked at the door, on one process.

routes = RouteTable(read_definition(Path("application.yml").read_text(), os.environ))
async with Gateway(routes, registry, verifier=verifier, port=8080):
    ...
"""

from backstay.gateway.accesslog import AccessLog
from backstay.gateway.definitions import GatewayDefinition, RouteDefinition, Step
from backstay.gateway.filters import FILTERS
from backstay.gateway.gateway import Gateway, GatewayStatistics
from backstay.gateway.limits import TokenBuckets
from backstay.gateway.management import Management
from backstay.gateway.options import IDENTITY_HEADERS, GatewayOptions
from backstay.gateway.predicates import PREDICATES
from backstay.gateway.revocations import DenyList, RevocationFeed, RevocationStream
from backstay.gateway.routes import Route, RouteTable
from backstay.gateway.spring import read_definition, read_definition_file

__all__ = [
    "FILTERS",
    "IDENTITY_HEADERS",
    "PREDICATES",
    "AccessLog",
    "DenyList",
    "Gateway",
    "GatewayDefinition",
    "GatewayOptions",
    "GatewayStatistics",
    "Management",
    "RevocationFeed",
    "RevocationStream",
    "Route",
    "RouteDefinition",
    "RouteTable",
    "Step",
    "TokenBuckets",
    "read_definition",
    "read_definition_file",
]
