"""Selection of documents: profile expressions (`!prod`, `dev & eu`) and cloud platforms."""

import re
from collections.abc import Collection, Mapping

_TOKEN = re.compile(r"\s*([()&|!]|[^()&|!\s][^()&|!]*)")
AZURE = ("WEBSITE_HOSTNAME", "WEBSITE_INSTANCE_ID", "WEBSITE_RESOURCE_GROUP", "WEBSITE_SKU")


def matches(expression: str, active: Collection[str]) -> bool:
    """Return whether an expression holds for the active profiles; raises ValueError for a malformed one.

    `!`, `&`, `|` and parentheses, as in Spring's `Profiles.of`: `&` and `|` are mixed only with parentheses.
    """
    tokens = [token.strip() for token in _TOKEN.findall(expression)]
    held, rest = _expression(expression, tokens, active)
    if rest:
        raise _malformed(expression)
    return held


def _expression(expression: str, tokens: list[str], active: Collection[str]) -> tuple[bool, list[str]]:
    held, tokens = _operand(expression, tokens, active)
    used: set[str] = set()
    while tokens and tokens[0] in "&|":
        operator = tokens[0]
        used.add(operator)
        if len(used) > 1:
            raise _malformed(expression)
        other, tokens = _operand(expression, tokens[1:], active)
        held = (held and other) if operator == "&" else (held or other)
    return held, tokens


def _operand(expression: str, tokens: list[str], active: Collection[str]) -> tuple[bool, list[str]]:
    if not tokens or tokens[0] in "&|)":
        raise _malformed(expression)
    if tokens[0] == "!":
        held, rest = _operand(expression, tokens[1:], active)
        return not held, rest
    if tokens[0] == "(":
        held, rest = _expression(expression, tokens[1:], active)
        if not rest or rest[0] != ")":
            raise _malformed(expression)
        return held, rest[1:]
    return tokens[0] in active, tokens[1:]


def _malformed(expression: str) -> ValueError:
    return ValueError(
        f"{expression!r} is not a profile expression; allowed are names, !, &, | and (), with & and | only mixed by ()"
    )


def cloud_platform(environ: Mapping[str, str]) -> str | None:
    """Return the platform that the environment shows, by Spring Boot's rules; None without one."""
    if "VCAP_APPLICATION" in environ or "VCAP_SERVICES" in environ:
        return "cloudfoundry"
    if "DYNO" in environ:
        return "heroku"
    if "HC_LANDSCAPE" in environ:
        return "sap"
    if "NOMAD_ALLOC_ID" in environ:
        return "nomad"
    if _in_kubernetes(environ):
        return "kubernetes"
    return "azureappservice" if all(name in environ for name in AZURE) else None


def _in_kubernetes(environ: Mapping[str, str]) -> bool:
    if "KUBERNETES_SERVICE_HOST" in environ and "KUBERNETES_SERVICE_PORT" in environ:
        return True
    hosts = [name.removesuffix("_SERVICE_HOST") for name in environ if name.endswith("_SERVICE_HOST")]
    return any(f"{host}_SERVICE_PORT" in environ for host in hosts)


__all__ = ["cloud_platform", "matches"]
