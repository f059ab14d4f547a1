"""The service kit: a service on one page, with registration, health, metrics, logs, identity and an ordered stop.

from backstay.service import Answer, IdempotencyKey, Principal, Service, post
"""

from backstay.asgi.answers import Answer
from backstay.auth import Principal
from backstay.http.problems import (
    BadRequest,
    Conflict,
    DeadlineExceeded,
    FieldError,
    Forbidden,
    MethodNotAllowed,
    NotFound,
    PreconditionFailed,
    Problem,
    RequestTimeout,
    TooLarge,
    TooManyRequests,
    Unauthorized,
    Unavailable,
    Unprocessable,
    UnsupportedMedia,
)
from backstay.runtime.health import Check
from backstay.runtime.jobs import Job, every
from backstay.runtime.settings import Address, Port, Seconds, Secret, Settings
from backstay.service import idempotency
from backstay.service.app import ROLES, Role, Service
from backstay.service.client import Client, Response, client
from backstay.service.conditions import NO_CONDITIONS, TAGGED, Conditions, version_tag
from backstay.service.errors import ServiceCallError, UpstreamError, UpstreamRefused
from backstay.service.idempotency import IdempotencyKey
from backstay.service.injection import Body
from backstay.service.lifecycle import Running
from backstay.service.mounts import Mount, mount
from backstay.service.pages import Feed, Page, decode_cursor, encode_cursor
from backstay.service.requests import Request
from backstay.service.routing import Route, delete, get, patch, post, put
from backstay.service.settings import ServiceSettings

__all__ = [
    "NO_CONDITIONS",
    "ROLES",
    "TAGGED",
    "Address",
    "Answer",
    "BadRequest",
    "Body",
    "Check",
    "Client",
    "Conditions",
    "Conflict",
    "DeadlineExceeded",
    "Feed",
    "FieldError",
    "Forbidden",
    "IdempotencyKey",
    "Job",
    "MethodNotAllowed",
    "Mount",
    "NotFound",
    "Page",
    "Port",
    "PreconditionFailed",
    "Principal",
    "Problem",
    "Request",
    "RequestTimeout",
    "Response",
    "Role",
    "Route",
    "Running",
    "Seconds",
    "Secret",
    "Service",
    "ServiceCallError",
    "ServiceSettings",
    "Settings",
    "TooLarge",
    "TooManyRequests",
    "Unauthorized",
    "Unavailable",
    "Unprocessable",
    "UnsupportedMedia",
    "UpstreamError",
    "UpstreamRefused",
    "client",
    "decode_cursor",
    "delete",
    "encode_cursor",
    "every",
    "get",
    "idempotency",
    "mount",
    "patch",
    "post",
    "put",
    "version_tag",
]
