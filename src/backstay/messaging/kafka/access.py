"""Access to a cluster: TLS, SASL and further librdkafka options, from settings that every process shares.

What this library promises rests on some options of its clients; they can't be changed from outside and are refused by
name, with the reason.
"""

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, fields
from typing import Any, Literal, Self, get_args

from backstay.errors import ConfigError

SecurityProtocol = Literal["PLAINTEXT", "SSL", "SASL_PLAINTEXT", "SASL_SSL"]
SaslMechanism = Literal["", "PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512", "OAUTHBEARER"]

_GROUPS: Mapping[str, tuple[str, ...]] = {
    "KAFKA and the service's name say it": ("bootstrap.servers", "metadata.broker.list", "client.id"),
    "no event may be lost, doubled or reordered": (
        "acks",
        "request.required.acks",
        "enable.idempotence",
        "enable.gapless.guarantee",
        "max.in.flight",
        "max.in.flight.requests.per.connection",
        "retries",
        "message.send.max.retries",
        "message.timeout.ms",
        "delivery.timeout.ms",
        "request.timeout.ms",
        "queuing.strategy",
        "produce.offset.report",
    ),
    "keys must land where every other producer puts them": ("partitioner", "msg_order_cmp"),
    "relays fence each other by it": ("transactional.id", "transaction.timeout.ms"),
    "the consumer's own settings name its group and its membership": (
        "group.id",
        "group.instance.id",
        "group.protocol",
        "group.protocol.type",
        "group.remote.assignor",
        "partition.assignment.strategy",
    ),
    "offsets are committed after the transaction that handled the events": (
        "enable.auto.commit",
        "auto.commit.enable",
        "auto.commit.interval.ms",
        "enable.auto.offset.store",
        "auto.offset.reset",
        "offset.store.method",
        "enable.partition.eof",
    ),
    "aborted events are never read": ("isolation.level",),
    "it loads code into the process": ("plugin.library.paths",),
}
REFUSED: Mapping[str, str] = {name: reason for reason, names in _GROUPS.items() for name in names}
"""Options that carry invariants, and why each can't be changed; librdkafka's other names for them included."""


@dataclass(frozen=True, slots=True, kw_only=True)
class KafkaAccess:
    """TLS, SASL and other options of every client of a cluster.

    Raises ConfigError, when made, that lists what contradicts itself or isn't allowed, without any password.
    """

    security_protocol: SecurityProtocol = "PLAINTEXT"
    sasl_mechanism: SaslMechanism = ""
    sasl_username: str = ""
    sasl_password: str = field(default="", repr=False)
    ca: str = ""
    """File with the certificates of authorities to be trusted, in PEM; the system's by default."""
    options: str = field(default="", repr=False)
    """A JSON object of librdkafka options."""

    def __post_init__(self) -> None:
        if problems := [*self._problems()]:
            raise ConfigError(problems)

    @classmethod
    def read(cls, environ: Mapping[str, str]) -> Self:
        """From `KAFKA_SECURITY_PROTOCOL`, `KAFKA_SASL_MECHANISM`, …: `KAFKA_` and the fields' names in capitals."""
        given = {each.name: environ.get(f"KAFKA_{each.name.upper()}", "") for each in fields(cls)}
        return cls(**{name: value for name, value in given.items() if value})  # type: ignore[arg-type]

    def environ(self) -> dict[str, str]:
        """Return the variables that `read` understands, those that aren't at their defaults."""
        return {
            f"KAFKA_{each.name.upper()}": value
            for each in fields(self)
            if (value := getattr(self, each.name)) != each.default
        }

    def client_options(self) -> dict[str, Any]:
        """Return the options as librdkafka names them."""
        return {**self._own(), **self._others()}

    def _own(self) -> dict[str, Any]:
        named = {
            "security.protocol": "" if self.security_protocol == "PLAINTEXT" else self.security_protocol.lower(),
            "sasl.mechanism": self.sasl_mechanism,
            "sasl.username": self.sasl_username,
            "sasl.password": self.sasl_password,
            "ssl.ca.location": self.ca,
        }
        return {name: value for name, value in named.items() if value}

    def _others(self) -> dict[str, Any]:
        if not self.options:
            return {}
        try:
            found = json.loads(self.options)
        except (ValueError, RecursionError):
            found = None
        if not isinstance(found, dict):
            raise ConfigError("KAFKA_OPTIONS=***: must be a JSON object of librdkafka options")
        return found

    def _problems(self) -> Iterable[str]:
        for name, value, kind in (
            ("SECURITY_PROTOCOL", self.security_protocol, SecurityProtocol),
            ("SASL_MECHANISM", self.sasl_mechanism, SaslMechanism),
        ):
            if value not in get_args(kind):
                yield f"KAFKA_{name}={value!r}: must be one of {', '.join(filter(None, get_args(kind)))}"
        sasl = self.security_protocol.startswith("SASL")
        if not sasl and (self.sasl_mechanism or self.sasl_username or self.sasl_password):
            yield f"KAFKA_SASL_* has no effect with KAFKA_SECURITY_PROTOCOL={self.security_protocol}: use SASL_SSL"
        if sasl and not self.sasl_mechanism:
            yield f"KAFKA_SASL_MECHANISM is not set: KAFKA_SECURITY_PROTOCOL={self.security_protocol} needs one"
        if sasl and self.sasl_mechanism not in ("", "OAUTHBEARER") and not (self.sasl_username and self.sasl_password):
            yield f"KAFKA_SASL_USERNAME and KAFKA_SASL_PASSWORD: {self.sasl_mechanism} needs both"
        if sasl and self.sasl_mechanism == "OAUTHBEARER":
            yield from self._token_problems()
        if self.ca and not self.security_protocol.endswith("SSL"):
            yield f"KAFKA_CA has no effect with KAFKA_SECURITY_PROTOCOL={self.security_protocol}: use SSL or SASL_SSL"
        try:
            others = self._others()
        except ConfigError as error:
            yield from error.problems
        else:
            yield from (f"KAFKA_OPTIONS: {problem}" for problem in option_problems(others))
            twice = sorted(_canonical(others) & _canonical(self._own()))
            yield from (f"KAFKA_OPTIONS: {name} is given by a setting of its own, too" for name in twice)

    def _token_problems(self) -> Iterable[str]:
        """A client with OAUTHBEARER and no source of tokens would wait for one for ever."""
        if self.sasl_username or self.sasl_password:
            yield "KAFKA_SASL_USERNAME and KAFKA_SASL_PASSWORD have no effect with OAUTHBEARER: use KAFKA_OPTIONS"
        try:
            others = self._others()
        except ConfigError:
            return  # reported already
        if str(others.get("sasl.oauthbearer.method", "")).lower() != "oidc":
            yield (
                "KAFKA_OPTIONS: OAUTHBEARER needs sasl.oauthbearer.method=oidc with sasl.oauthbearer.client.id, "
                "sasl.oauthbearer.client.secret and sasl.oauthbearer.token.endpoint.url"
            )


def option_problems(options: Mapping[str, Any]) -> list[str]:
    """Return a sentence for each option that can't be changed from outside, and for each value that is none."""
    problems = []
    for name, value in options.items():
        if (reason := REFUSED.get(name)) is not None:
            problems.append(f"{name} can't be changed: {reason}")
        elif name == "logger" or name.endswith("_cb") or isinstance(value, dict | list) or value is None:
            problems.append(f"{name} must be an option of librdkafka with a text, a number, true or false")
    return problems


def _canonical(options: Iterable[str]) -> set[str]:
    return {"sasl.mechanism" if name == "sasl.mechanisms" else name for name in options}


__all__ = ["REFUSED", "KafkaAccess", "SaslMechanism", "SecurityProtocol", "option_problems"]
