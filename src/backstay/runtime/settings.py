"""Settings: one frozen object, read from the environment once, every mistake reported at once.

A settings class is a frozen dataclass; a field `max_body: int = 1024` is read from `MAX_BODY`. Limits are written as
`Annotated[int, Meta(ge=1)]` (msgspec). A field without a default is required.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import MISSING, Field, dataclass, fields
from typing import Annotated, Any, Literal, Self, get_type_hints

import msgspec
from msgspec import Meta

from backstay.auth import parse_endpoints
from backstay.auth.verifier import MAX_LIFETIME
from backstay.errors import ConfigError, masked

Port = Annotated[int, Meta(ge=0, le=65535)]
Seconds = Annotated[float, Meta(gt=0)]


class Secret(str):
    """A string that never shows in a `repr`, so not in logs either."""

    __slots__ = ()

    def __repr__(self) -> str:
        return "'***'" if self else "''"


class Address(str):
    """A URL, or several separated by commas, whose passwords never show in a `repr`."""

    __slots__ = ()

    def __repr__(self) -> str:
        return repr(masked(str(self)))


class FixedAddresses(str):
    """Addresses of the issuer, separated by commas. Raises ValueError for `lb://` and what is no address."""

    __slots__ = ()

    def __new__(cls, text: str = "") -> Self:
        if text:
            parse_endpoints(text)
        return super().__new__(cls, text)

    def __repr__(self) -> str:
        return repr(masked(str(self)))


class Expression(str):
    """A regular expression. Raises ValueError for a text that is none."""

    __slots__ = ()

    def __new__(cls, text: str = "") -> Self:
        try:
            re.compile(text)
        except re.error as error:
            raise ValueError(f"{text!r} is no regular expression: {error}") from None
        return super().__new__(cls, text)


NO_ADDRESSES = FixedAddresses("")
NO_EXPRESSION = Expression("")
NO_SECRET = Secret("")
NO_ADDRESS = Address("")


class SettingsError(ConfigError):
    """Settings are wrong or missing.

    `usable` are the settings with the default in place of each wrong value, for a check of the rest; None where a wrong
    or missing one has no default.
    """

    def __init__(self, problems: Sequence[str], usable: "Settings | None") -> None:
        self.usable: Any = usable
        super().__init__(problems)


@dataclass(frozen=True, kw_only=True)
class Settings:
    """Base of every settings object."""

    @classmethod
    def read(cls, environ: Mapping[str, str]) -> Self:
        """Read the settings from the environment; a variable without text counts as not set.

        Raises:
            SettingsError: lists each missing or wrong variable with its value and what is allowed.
        """
        hints = get_type_hints(cls, include_extras=True)
        values: dict[str, Any] = {}
        problems: list[str] = []
        wrong: set[str] = set()
        for field in fields(cls):
            try:
                _read(field, hints[field.name], environ, values)
            except ValueError as error:
                problems.append(str(error))
                wrong.add(field.name)
        required = {field.name for field in fields(cls) if field.default is field.default_factory is MISSING}
        settings = None
        if not wrong & required:  # a wrong value stays at its default for the check of the rest
            settings = cls(**values)
            problems += settings.problems()
        if problems or settings is None:
            raise SettingsError(problems, settings)
        return settings

    def problems(self) -> list[str]:
        """What is wrong with the values together, a sentence each; a subclass adds its own to those of its base."""
        return []


def _read(field: Field[Any], kind: Any, environ: Mapping[str, str], values: dict[str, Any]) -> None:
    key = field.name.upper()
    text = environ.get(key)
    is_text = isinstance(kind, type) and issubclass(kind, str)
    if text is None or not text.strip():
        if field.default is MISSING and field.default_factory is MISSING:
            raise ValueError(f"{key} is not set: a value is required ({_allowed(kind)})")
        return
    try:
        values[field.name] = kind(text) if is_text else _convert(text.strip(), kind)
    except msgspec.ValidationError as error:
        shown = "***" if "secret" in field.name or "password" in field.name else repr(masked(text))
        raise ValueError(f"{key}={shown}: {_allowed(kind)} ({error})") from None
    except ValueError as error:
        raise ValueError(f"{key}: {error}") from None


def _convert(text: str, kind: Any) -> Any:
    if getattr(kind, "__origin__", None) is tuple:
        return msgspec.convert([part.strip() for part in text.split(",") if part.strip()], kind, strict=False)
    return msgspec.convert(text, kind, strict=False)


def _allowed(kind: Any) -> str:
    """What a value of this type may be, in words."""
    if getattr(kind, "__origin__", None) is Literal:
        return "one of " + ", ".join(map(str, kind.__args__))
    bounds = [
        f"{word} {limit}"
        for meta in getattr(kind, "__metadata__", ())
        if isinstance(meta, Meta)
        for word, limit in (("≥", meta.ge), (">", meta.gt), ("≤", meta.le), ("<", meta.lt), ("like", meta.pattern))
        if limit is not None
    ]
    base = getattr(kind, "__origin__", kind)
    name = getattr(base, "__name__", str(base))
    return " ".join([f"must be {name}", " and ".join(bounds)]).strip()


@dataclass(frozen=True, kw_only=True)
class KafkaSettings(Settings):
    """How a process reaches the broker."""

    kafka: str = ""
    """`host:port[,host:port]` of the broker."""
    kafka_flavor: Literal["apache", "embedded"] = "apache"
    """Which broker that is: a real one, or the demo's."""
    kafka_security_protocol: str = "PLAINTEXT"
    """`PLAINTEXT`, `SSL`, `SASL_SSL` or `SASL_PLAINTEXT`. With TLS the broker's certificate and name are verified."""
    kafka_sasl_mechanism: str = ""
    """`PLAIN`, `SCRAM-SHA-256`, `SCRAM-SHA-512`, or `OAUTHBEARER`, with its `sasl.oauthbearer.*` in `KAFKA_OPTIONS`."""
    kafka_sasl_username: str = ""
    kafka_sasl_password: Secret = NO_SECRET
    kafka_ca: str = ""
    """File with the certificates of authorities to be trusted (PEM); the system's by default."""
    kafka_options: Secret = NO_SECRET
    """JSON object of more librdkafka options for every client; those that carry invariants are refused by name."""

    def problems(self) -> list[str]:
        """Contradictions among the settings of the broker besides the base's own."""
        found = super().problems()
        try:
            self.kafka_client_options()
        except ConfigError as error:
            found.extend(error.problems)
        return found

    def kafka_client_options(self) -> dict[str, Any]:
        """TLS, SASL and the other options as librdkafka names them; raises ConfigError with every contradiction."""
        prefix = "kafka_"
        names = ("security_protocol", "sasl_mechanism", "sasl_username", "sasl_password", "ca", "options")
        given = {name: str(getattr(self, prefix + name)) for name in names}
        if given == {**dict.fromkeys(names, ""), "security_protocol": "PLAINTEXT"}:
            return {}
        from backstay.messaging.kafka.access import KafkaAccess  # its package needs the extra `kafka`

        return KafkaAccess(**given).client_options()  # type: ignore[arg-type]


@dataclass(frozen=True, kw_only=True)
class DatabaseSettings(Settings):
    """How a process reaches its database."""

    database_url: Address = NO_ADDRESS
    """The process's own PostgreSQL database."""
    database_sslmode: Literal["", "disable", "allow", "prefer", "require", "verify-ca", "verify-full"] = ""
    """TLS to the database, as libpq names it; `verify-full` with `DATABASE_CA`, else `prefer`. Also in the URL."""
    database_ca: str = ""
    """File with the certificates of authorities that the database's is verified with (PEM)."""

    def problems(self) -> list[str]:
        """Contradictions in how the database is reached besides the base's own."""
        found = super().problems()
        try:
            self.database_dsn()
        except ConfigError as error:
            found.extend(error.problems)
        return found

    def database_dsn(self) -> str:
        """Return the database's URL with what is said of TLS; raises ConfigError for what contradicts itself."""
        if not (self.database_url and (self.database_sslmode or self.database_ca)):
            return str(self.database_url)
        from backstay.db import secured  # its package needs the extra `db`

        return secured(self.database_url, sslmode=self.database_sslmode, ca=self.database_ca)


@dataclass(frozen=True, kw_only=True)
class LogSettings(Settings):
    """What a process logs, and in which form."""

    log_format: Literal["json", "console"] = "json"
    """A JSON object a line, or lines for people."""
    log_level: Literal["debug", "info", "warning", "error"] = "info"
    """Least level that is logged."""


@dataclass(frozen=True, kw_only=True)
class RegistrationSettings(Settings):
    """How a process finds others and is found."""

    discovery_url: Address = NO_ADDRESS
    """Registry with user and password, or several separated by commas; if empty the process doesn't register."""
    heartbeat_interval: Seconds = 30.0
    """Between two heartbeats to the registry."""
    lease_duration: Seconds = 90.0
    """After the last heartbeat the registry removes the entry when this time is over."""
    fetch_interval: Seconds = 30.0
    """Between two reads of the registry's list."""
    advertised_host: str = ""
    """Address that the registry tells others; the one listened on if empty."""
    drain_delay: Annotated[float, Meta(ge=0)] = 0.0
    """How long to go on serving after leaving the registry, for callers that haven't noticed yet."""


@dataclass(frozen=True, kw_only=True)
class TokenSettings(Settings):
    """Whose access tokens are accepted."""

    token_issuer: str = ""
    """Issuer of access tokens; without it no route that needs a token can be served."""
    token_audience: str = ""
    """Audience of customers' tokens; required where a route needs a token."""
    token_max_lifetime: Seconds = MAX_LIFETIME
    """Longest lifetime of an access token that is accepted."""
    jwks_url: FixedAddresses = NO_ADDRESSES
    """Fixed addresses of the issuer's key set, tried in turn; required where a route needs a token. `lb://` is
    refused."""


@dataclass(frozen=True, kw_only=True)
class ManagementSettings(Settings):
    """Where health, metrics and info are served."""

    management_host: str = "127.0.0.1"
    """Address of the management port, which nobody outside should reach."""
    management_port: Port = 0
    """Port of health, metrics and info; 0 takes a free one."""


__all__ = [
    "NO_ADDRESS",
    "NO_ADDRESSES",
    "NO_EXPRESSION",
    "NO_SECRET",
    "Address",
    "DatabaseSettings",
    "Expression",
    "FixedAddresses",
    "KafkaSettings",
    "LogSettings",
    "ManagementSettings",
    "Port",
    "RegistrationSettings",
    "Seconds",
    "Secret",
    "Settings",
    "SettingsError",
    "TokenSettings",
]
