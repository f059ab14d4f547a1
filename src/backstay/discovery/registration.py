"""The contents of a registration: all fields of Eureka's formats, whatever the format."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from backstay.discovery.instance import UNKNOWN, UP, Instance

RENEWAL = 30  # seconds between heartbeats that a client without a say promises
DURATION = 90  # seconds a lease lives after its last heartbeat
MAX_DURATION = 86_400  # seconds
DEFAULT_DATA_CENTER = "com.netflix.appinfo.InstanceInfo$DefaultDataCenterInfo"
AMAZON_DATA_CENTER = "com.netflix.appinfo.AmazonInfo"
DATA_CENTERS = ("Amazon", "MyOwn", "Netflix")
DETAILS = (
    "appGroupName",
    "homePageUrl",
    "statusPageUrl",
    "healthCheckUrl",
    "secureHealthCheckUrl",
    "vipAddress",
    "secureVipAddress",
)
"""Optional texts, under their wire names, in the order in which Eureka writes them."""
_FRAME = 1200  # bytes of an instance in JSON without its texts: names of fields, numbers, braces
_QUOTES = 4  # bytes around a text in a list of texts


@dataclass(frozen=True, slots=True)
class DataCenter:
    """The data center of an instance: `MyOwn`, or `Amazon` with metadata."""

    class_name: str = DEFAULT_DATA_CENTER
    name: str = "MyOwn"
    metadata: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Registration:
    """One instance as it registered."""

    app: str
    """Upper case, as Eureka keeps it."""
    id: str
    host: str
    ip: str
    port: int = 0
    port_enabled: bool = True
    secure_port: int = 443
    secure_enabled: bool = False
    status: str = UP
    overridden: str = UNKNOWN
    """The status an operator set in its place; UNKNOWN when none did."""
    country: int = 1
    sid: str | None = None
    data_center: DataCenter = field(default_factory=DataCenter)
    renewal: int = RENEWAL
    """Seconds between heartbeats."""
    duration: int = DURATION
    """Seconds a lease lives after its last heartbeat."""
    metadata: Mapping[str, str] = field(default_factory=dict)
    details: Mapping[str, str] = field(default_factory=dict)
    """Those of `DETAILS` that are set."""
    asg: str | None = None
    coordinating: bool = False
    dirty_at: int = 0
    """Milliseconds since the epoch of the client's last change to itself."""

    def instance(self) -> Instance:
        """The instance as callers need it."""
        secure = self.secure_enabled and not self.port_enabled
        port = self.secure_port if secure else self.port if self.port_enabled else 0
        return Instance(
            self.app.lower(), self.id, self.host, port, self.status, dict(self.metadata), secure, self.dirty_at
        )

    def weight(self) -> int:
        """No fewer bytes than it takes in the list in JSON: each byte of a text may need an escape."""
        texts = [self.app, self.id, self.host, self.ip, self.sid or "", self.asg or "", *self.details.values()]
        for entries in (self.metadata, self.data_center.metadata):
            texts += [text for entry in entries.items() for text in entry]
        return _FRAME + sum(2 * len(text.encode()) + _QUOTES for text in texts)
