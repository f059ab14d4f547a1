"""Options of `make up`, all of them environment variables; mistakes are reported together."""

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, Self
from urllib.parse import urlsplit

from backstay.dev.ports import HOST
from backstay.errors import ConfigError

GATEWAY_PORT = 8080
DISCOVERY_PORT = 8761
HOME = Path(__file__).parents[3] / ".backstay"
EMBEDDED: Literal["embedded"] = "embedded"
APACHE: Literal["apache"] = "apache"

_ADDRESSES = re.compile(r"[\w.\-\[\]:]+:\d+(,[\w.\-\[\]:]+:\d+)*\Z")
_NO = frozenset({"no", "0", "false", "off"})
_YES = frozenset({"yes", "1", "true", "on", ""})


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """One system to start. `kafka` is embedded, apache or host:port; an empty URL means our own."""

    home: Path = HOME
    kafka: str = EMBEDDED
    kafka_settings: Mapping[str, str] = field(default_factory=dict, repr=False)
    """KAFKA_SECURITY_PROTOCOL and the like for a broker that isn't ours, for every service and command."""
    database_url: str = field(default="", repr=False)
    smtp_url: str = field(default="", repr=False)
    smtp_settings: Mapping[str, str] = field(default_factory=dict)
    """SMTP_TLS and SMTP_CA, for a mail server that isn't ours."""
    gateway_port: int = GATEWAY_PORT
    discovery_port: int = DISCOVERY_PORT
    demo: bool = True
    fresh: bool = False
    """Whether what an earlier run left in our own databases and broker goes first."""
    faults: Path | None = None
    """A folder of fault files, `<process>` each."""
    kafka_proxy: tuple[int, int] | None = None
    """(port our broker listens on behind a proxy, port of that proxy, which services are told); only tests have one."""
    settings: Mapping[str, str] = field(default_factory=dict)
    """Settings for every service beyond the usual ones."""
    restart_delay: float = 30.0
    """The longest pause, in seconds, before a dead process is started again."""
    scale: Mapping[str, int] = field(default_factory=dict)
    """Instances by service, where it isn't one."""
    doors: bool = False
    """Whether services reach broker and database through doors that can be cut, shut, slowed and held."""

    @property
    def kafka_is_ours(self) -> bool:
        """True if we start the broker."""
        return self.kafka in (EMBEDDED, APACHE)

    @property
    def flavor(self) -> Literal["apache", "embedded"]:
        """The kind of broker, as in the services' settings."""
        return EMBEDDED if self.kafka == EMBEDDED else APACHE

    @classmethod
    def read(cls, environ: Mapping[str, str] = os.environ) -> Self:
        """From BACKSTAY_HOME, KAFKA, DATABASE_URL, SMTP_URL, GATEWAY_PORT, DISCOVERY_PORT and DEMO."""
        problems: list[str] = []
        options = cls(
            home=Path(environ.get("BACKSTAY_HOME") or HOME),
            kafka=_kafka(environ.get("KAFKA", ""), problems),
            kafka_settings=_kafka_settings(environ, problems),
            database_url=_database(environ, problems),
            smtp_settings=_smtp_settings(environ, problems),
            smtp_url=_smtp(environ.get("SMTP_URL", ""), problems),
            gateway_port=_port("GATEWAY_PORT", GATEWAY_PORT, environ, problems),
            discovery_port=_port("DISCOVERY_PORT", DISCOVERY_PORT, environ, problems),
            demo=_flag("DEMO", environ.get("DEMO", ""), problems),
        )
        if options.database_url and options.kafka == EMBEDDED:
            problems.append(
                "DATABASE_URL with the embedded broker: that broker keeps nothing on disk, so databases have to start "
                "empty with it, and nothing is ever dropped in a database that we did not create. "
                "Add KAFKA=apache or KAFKA=host:port"
            )
        if problems:
            raise ConfigError(problems)
        return options


def _kafka(text: str, problems: list[str]) -> str:
    if text in ("", EMBEDDED):
        return EMBEDDED
    if text != APACHE and not _ADDRESSES.match(text):
        problems.append(f"KAFKA={text!r}: allowed are apache, embedded and host:port[,host:port]")
    return text


def _kafka_settings(environ: Mapping[str, str], problems: list[str]) -> Mapping[str, str]:
    """Return the settings of TLS and SASL; there are none for a broker that we start ourselves."""
    from backstay.messaging import KafkaAccess

    try:
        found = KafkaAccess.read(environ).environ()
    except ConfigError as error:
        problems.extend(error.problems)
        return {}
    if found and environ.get("KAFKA", "") in ("", EMBEDDED, APACHE):
        problems.append(f"{', '.join(found)}: only for a broker of yours, KAFKA=host:port")
    return found


def _database(environ: Mapping[str, str], problems: list[str]) -> str:
    text = environ.get("DATABASE_URL", "")
    tls = {name: environ.get(f"DATABASE_{name.upper()}", "") for name in ("sslmode", "ca")}
    if not text and any(tls.values()):
        problems.append("DATABASE_SSLMODE and DATABASE_CA: only for databases of yours, DATABASE_URL")
    if text and ("{service}" not in text or urlsplit(text).scheme not in ("postgresql", "postgres")):
        problems.append("DATABASE_URL: must be postgresql://user:password@host:port/{service}, with {service} in it")
    elif text:
        from backstay.db import secured

        try:
            return secured(text, **tls)
        except ConfigError as error:
            problems.extend(error.problems)
    return text


def _smtp_settings(environ: Mapping[str, str], problems: list[str]) -> Mapping[str, str]:
    """Return the settings of an external mail server; notifications checks the values."""
    found = {name: environ[name] for name in ("SMTP_TLS", "SMTP_CA") if environ.get(name)}
    if found and not environ.get("SMTP_URL"):
        problems.append(f"{', '.join(found)}: only for a mail server of yours, SMTP_URL")
    return found


def _smtp(text: str, problems: list[str]) -> str:
    if text and text != "null:" and (urlsplit(text).scheme not in ("smtp", "smtps") or not urlsplit(text).hostname):
        problems.append("SMTP_URL: must be smtp://[user:password@]host:port, or null: for no mails at all")
    return text


def _port(name: str, default: int, environ: Mapping[str, str], problems: list[str]) -> int:
    text = environ.get(name, "").strip()
    if not text:
        return default
    if not text.isdigit() or int(text) > 65535:
        problems.append(f"{name}={text!r}: must be a port from 1 to 65535 on {HOST}, or 0 for a free one")
        return default
    return int(text)


def _flag(name: str, text: str, problems: list[str]) -> bool:
    if text.lower() not in _YES | _NO:
        problems.append(f"{name}={text!r}: allowed are yes and no")
    return text.lower() not in _NO
