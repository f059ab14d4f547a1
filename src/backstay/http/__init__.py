"""HTTP/1.1 without a framework: framing rules, an upstream pool, a client, and a small server.

The gateway's data plane, the service client and the registry stand on it.
"""

from backstay.http.client import HttpClient
from backstay.http.errors import (
    BadResponse,
    ConnectFailed,
    ConnectionLost,
    FramingError,
    HttpError,
    PoolFull,
    ResponseTimeout,
)
from backstay.http.framing import Limits
from backstay.http.messages import Headers, HttpReply, HttpRequest, HttpResponse
from backstay.http.pool import Pool, PoolStatistics
from backstay.http.problems import not_found, only_read, problem
from backstay.http.server import HttpServer

__all__ = [
    "BadResponse",
    "ConnectFailed",
    "ConnectionLost",
    "FramingError",
    "Headers",
    "HttpClient",
    "HttpError",
    "HttpReply",
    "HttpRequest",
    "HttpResponse",
    "HttpServer",
    "Limits",
    "Pool",
    "PoolFull",
    "PoolStatistics",
    "ResponseTimeout",
    "not_found",
    "only_read",
    "problem",
]
