"""TLS to PostgreSQL: settings beside a database's URL are merged into it, so that every driver reads the same."""

from pathlib import Path
from urllib.parse import parse_qs, quote, urlencode, urlsplit, urlunsplit

from backstay.errors import ConfigError

MODES = ("disable", "allow", "prefer", "require", "verify-ca", "verify-full")
"""As libpq names them; only the last two know the server, and only the last one by its name."""


def secured(dsn: str, *, sslmode: str = "", ca: str = "") -> str:
    """Return the URL with `sslmode` and `sslrootcert`; an authority alone means `verify-full`.

    Raises ConfigError, without the password, for a mode that doesn't exist, an authority that can't be read or is
    missing, and for what the URL says otherwise.
    """
    parts = urlsplit(dsn)
    query = parse_qs(parts.query, keep_blank_values=True)
    known = {name: query[name][-1] for name in ("sslmode", "sslrootcert") if name in query}
    given = {"sslmode": sslmode, "sslrootcert": ca}
    problems = [
        f"{name} is {value!r} in the database's URL and {given[name]!r} beside it: leave one of them out"
        for name, value in known.items()
        if given[name] not in ("", value)
    ]
    found = {name: value for name, value in given.items() if value} | known
    if "sslrootcert" in found:
        found.setdefault("sslmode", "verify-full")
    problems += _problems(found.get("sslmode", ""), found.get("sslrootcert", ""))
    if problems:
        raise ConfigError(problems)
    if found == known:
        return dsn
    wanted = {name: value for name, value in found.items() if name not in known}
    more = urlencode(wanted, safe="/", quote_via=quote)  # libpq takes a plus sign for itself, not for a space
    return urlunsplit(parts._replace(query=f"{parts.query}&{more}" if parts.query else more))


def _problems(mode: str, ca: str) -> list[str]:
    if mode and mode not in MODES:
        return [f"the database's sslmode {mode!r}: must be one of {', '.join(MODES)}"]
    if ca and mode in MODES[:3]:
        return [f"the database's sslmode {mode!r} verifies nothing: with a certificate authority use verify-full"]
    if mode.startswith("verify") and not ca:
        return [f"the database's sslmode {mode!r} needs a certificate authority: DATABASE_CA or the URL's sslrootcert"]
    if ca and not Path(ca).is_file():
        return [f"the database's certificate authority {ca!r} is no file"]
    return []


__all__ = ["MODES", "secured"]
