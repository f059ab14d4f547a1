"""Eureka's REST interface over a lease registry: one request in, one answer out, no I/O.

Both `/eureka/…` (Spring) and `/eureka/v2/…` or `/v2/…` (Netflix), with or without a slash at the end. A
registration is read from JSON only (XML gets 415). Answers are JSON if Accept asks for it, else XML, as Netflix's are:
some clients send `*/*` and read nothing but XML. The delta is answered 403, as by a Eureka server that has it
disabled: every client then takes the full list, which costs little here.

With credentials every change needs one that is bound to its application; without a valid one it gets 401, with that of
another application 403. Their bodies are empty: Netflix's client parses the body of any answer to a heartbeat as an
instance, whatever the status. A registration under another's virtual address is 403, too, and says so.
"""

from collections.abc import Callable, Sequence
from urllib.parse import parse_qsl, unquote

from backstay.discovery import registering, wire_json, wire_xml
from backstay.discovery.answers import FullAnswer, Wire
from backstay.discovery.credentials import CHALLENGE, Credentials
from backstay.discovery.errors import BadInstance, TooManyLeases
from backstay.discovery.instance import STATUSES, UNKNOWN
from backstay.discovery.leases import Lease, LeaseRegistry
from backstay.discovery.registration import Registration
from backstay.http.messages import HttpReply, HttpRequest

REGISTRY_HEADER = "x-backstay-registry"
"""Names the registry's present life in the answer to a fetch, so that clients see that it began anew."""
MAX_QUERY = 100  # fields
_PREFIXES = ("eureka", "v2")
_OK = HttpReply()
_NO_CONTENT = HttpReply(204)
_NOT_FOUND = HttpReply(404)
_DELTA_DISABLED = HttpReply(403)
_UNAUTHORIZED = HttpReply(401, headers=(CHALLENGE,))
_FORBIDDEN = HttpReply(403)
_READING = ("GET", "HEAD")
_ROOTS = ("apps", "vips", "svips", "instances")


class EurekaRest:
    """Answers requests; `now` gives seconds since the epoch and never goes back. Without credentials it trusts all."""

    def __init__(
        self, leases: LeaseRegistry, now: Callable[[], float], *, life: str, credentials: Credentials | None = None
    ) -> None:
        self._leases = leases
        self._now = now
        self._life = life
        self._credentials = credentials
        self.unauthorized = 0
        """Requests refused for want of a valid credential."""
        self.forbidden = 0
        """Changes refused since the credential is another application's."""
        self._full: dict[Wire, FullAnswer] = {wire: FullAnswer(leases, wire) for wire in (wire_json, wire_xml)}

    def handle(self, request: HttpRequest) -> HttpReply | None:
        """Return the answer, or None if the path isn't one of Eureka's."""
        segments = [unquote(part) for part in request.path.strip("/").split("/")]
        while segments and segments[0] in _PREFIXES:
            del segments[0]
        if segments and segments[0] in _ROOTS and (refusal := self.refusal(request, segments)) is not None:
            return refusal
        try:
            return self._route(request, segments)
        except BadInstance as error:
            return _text(400, str(error))
        except TooManyLeases as error:
            return _text(503, str(error))

    def refusal(self, request: HttpRequest, segments: Sequence[str] = ()) -> HttpReply | None:
        """Return the answer to a request that lacks the right credential; None if it may go on."""
        credentials = self._credentials
        if credentials is None:
            return None
        reading = request.method in _READING
        if reading and not credentials.private_reads:
            return None
        user = credentials.identify(request.headers.get("authorization"))  # sent twice, the framing refuses it
        if user is None:
            self.unauthorized += 1
            return _UNAUTHORIZED
        if reading or (len(segments) > 1 and user.may_change(segments[1])):
            return None
        self.forbidden += 1
        return _FORBIDDEN

    def _route(self, request: HttpRequest, segments: list[str]) -> HttpReply | None:
        method = "GET" if request.method == "HEAD" else request.method
        match method, segments:
            case "PUT", ["apps", app, instance_id]:
                return self._renew(request, app, instance_id)
            case "GET", ["apps" | "vips" | "svips" | "instances", *_]:
                return self._fetch(request, segments)
            case "POST", ["apps", app]:
                return self._register(request, app)
            case "DELETE", ["apps", app, instance_id]:
                return _found(self._leases.cancel(app, instance_id))
            case "PUT", ["apps", app, instance_id, "status"]:
                return self._override(request, app, instance_id)
            case "DELETE", ["apps", app, instance_id, "status"]:
                return self._remove_override(request, app, instance_id)
            case "PUT", ["apps", app, instance_id, "metadata"]:
                entries = registering.read_metadata(_query(request))
                return _found(self._leases.add_metadata(app, instance_id, entries, self._now()))
            case _, ["apps", *_]:
                return HttpReply(405)
        return None

    def _register(self, request: HttpRequest, app: str) -> HttpReply:
        if "json" not in (request.headers.get("content-type") or ""):
            return _text(415, "register with Content-Type: application/json")
        registration = registering.read_registration(request.body)
        if registration.app != app.upper():
            raise BadInstance(f"Mismatched appName, expecting {app.upper()} but was {registration.app}")
        if (foreign := self._foreign_address(request, registration)) is not None:
            self.forbidden += 1
            return _text(
                403, f"the credential is not bound to the virtual address {foreign!r}, neither by apps nor vips"
            )
        self._leases.register(registration, self._now())
        return _NO_CONTENT

    def _foreign_address(self, request: HttpRequest, registration: Registration) -> str | None:
        user = self._credentials and self._credentials.identify(request.headers.get("authorization"))
        return user.foreign_address(registration) if user else None

    def _renew(self, request: HttpRequest, app: str, instance_id: str) -> HttpReply:
        dirty_at = registering.read_timestamp(_query(request).get("lastDirtyTimestamp")) or None
        return _found(self._leases.renew(app, instance_id, self._now(), dirty_at=dirty_at))

    def _override(self, request: HttpRequest, app: str, instance_id: str) -> HttpReply:
        query = _query(request)
        status = query.get("value", "")
        if status not in STATUSES:
            return _text(400, f"value must be one of {', '.join(sorted(STATUSES))}, not {status!r}")
        dirty = registering.read_timestamp(query.get("lastDirtyTimestamp"))
        return _found(self._leases.override(app, instance_id, status, self._now(), dirty_at=dirty))

    def _remove_override(self, request: HttpRequest, app: str, instance_id: str) -> HttpReply:
        status = _query(request).get("value", UNKNOWN)
        if status not in STATUSES:
            return _text(400, f"value must be one of {', '.join(sorted(STATUSES))}, not {status!r}")
        return _found(self._leases.remove_override(app, instance_id, self._now(), status=status))

    def _fetch(self, request: HttpRequest, segments: list[str]) -> HttpReply | None:
        wire: Wire = wire_json if "json" in (request.headers.get("accept") or "") else wire_xml
        match segments:
            case ["apps"]:
                return self._all(request, wire)
            case ["apps", "delta"]:
                return _DELTA_DISABLED
            case ["apps", app]:
                return self._application(app, wire)
            case ["apps", app, instance_id]:
                return _instance(self._leases.get(app, instance_id), wire)
            case ["instances", instance_id]:
                return _instance(self._leases.find(instance_id), wire)
            case ["vips", vip]:
                return self._vip(vip, "vipAddress", wire)
            case ["svips", vip]:
                return self._vip(vip, "secureVipAddress", wire)
        return None

    def _all(self, request: HttpRequest, wire: Wire) -> HttpReply:
        headers = (REGISTRY_HEADER, self._life), ("vary", "accept, accept-encoding")
        full = self._full[wire]
        if "gzip" in (request.headers.get("accept-encoding") or ""):
            return HttpReply(200, full.gzipped(), (*headers, ("content-encoding", "gzip")), wire.CONTENT_TYPE)
        return HttpReply(200, full.plain(), headers, wire.CONTENT_TYPE)

    def _application(self, app: str, wire: Wire) -> HttpReply:
        leases = self._leases.app(app)
        if not leases:
            return _NOT_FOUND
        written = wire.write_application(app.upper(), map(wire.write_instance, leases))
        return _answer(wire, wire.document("application", written))

    def _vip(self, vip: str, detail: str, wire: Wire) -> HttpReply:
        applications, counts = [], dict[str, int]()
        for name, leases in self._leases.apps():
            found = [lease for lease in leases if vip in lease.registration.details.get(detail, "").split(",")]
            if found:
                applications.append(wire.write_application(name, map(wire.write_instance, found)))
            for lease in found:
                counts[lease.registration.status] = counts.get(lease.registration.status, 0) + 1
        return _answer(wire, wire.write_applications(applications, wire_json.hash_code(counts)))


def _instance(lease: Lease | None, wire: Wire) -> HttpReply:
    return _NOT_FOUND if lease is None else _answer(wire, wire.document("instance", wire.write_instance(lease)))


def _query(request: HttpRequest) -> dict[str, str]:
    try:
        return dict(parse_qsl(request.query, keep_blank_values=True, max_num_fields=MAX_QUERY))
    except ValueError as error:
        raise BadInstance(f"the query has more than {MAX_QUERY} fields") from error


def _found(found: bool) -> HttpReply:
    return _OK if found else _NOT_FOUND


def _answer(wire: Wire, body: bytes) -> HttpReply:
    return HttpReply(200, body, (("vary", "accept"),), wire.CONTENT_TYPE)


def _text(status: int, message: str) -> HttpReply:
    return HttpReply(status, message.encode(), content_type="text/plain; charset=utf-8")
