"""`shop audit`: what the auditor of the running system has on its list."""

import re
from datetime import UTC, datetime, timedelta
from typing import Any
from urllib.parse import quote

from backstay.dev.home import Home, Running
from backstay.dev.screen import Screen
from backstay.dev.web import Web
from lab.client.user import Shopper
from lab.system.environment import ADMIN_EMAIL

_AGO = re.compile(r"(\d{1,6})([smhd])")
_UNITS = {"s": "seconds", "m": "minutes", "h": "hours", "d": "days"}


def read_since(text: str, now: datetime) -> datetime | None:
    """Return the time that `--since` names: `30m`, `2h`, `1d` ago, or a time as in RFC 3339; None for an empty text.

    Raises ValueError that names what is allowed.
    """
    if not text:
        return None
    try:
        if ago := _AGO.fullmatch(text):
            return now - timedelta(**{_UNITS[ago[2]]: int(ago[1])})
        found = datetime.fromisoformat(text)
    except (ValueError, OverflowError):
        raise ValueError(f"--since {text!r}: allowed are 45s, 30m, 2h, 1d, or a time like 2026-01-31T12:00Z") from None
    return found if found.tzinfo else found.replace(tzinfo=UTC)


async def show(home: Home, running: Running, screen: Screen, since: datetime | None) -> bool:
    """Print the state of the audit and its list; return whether everything adds up and all services answered."""
    async with Web(running.gateway) as web:
        admin = Shopper(web, ADMIN_EMAIL, home.secret("admin"))
        summary = await admin.get("/api/v1/audit")
        query = "" if since is None else f"?since={quote(since.astimezone(UTC).isoformat().replace('+00:00', 'Z'))}"
        findings = await admin.every(f"/api/v1/audit/findings{query}")
    screen.title("Audit", f"{len(findings)} open findings{f' since {since:%Y-%m-%d %H:%M %Z}' if since else ''}")
    money = ", ".join(f"{one['amount']} {one['currency']}" for one in summary["unexplained"] if float(one["amount"]))
    screen.say(
        f"unexplained: {money or 'no money'}, {summary['unexplained_units']} units; "
        f"{summary['waiting']} orders are still under way or waiting for their comparison"
    )
    late = [f"{feed['name']}: {feed['error'] or 'never read'}" for feed in summary["feeds"] if not _is_read(feed)]
    for line in late:
        screen.problem(f"can't be read, so nothing new is compared: {line}")
    if findings:
        screen.rows(
            ("  order", "what", "amount", "units", "first seen", "detail"), list(map(_row, findings)), right=(2, 3)
        )
    return not findings and not late


def _is_read(feed: dict[str, Any]) -> bool:
    return feed["error"] is None and feed["age"] is not None


def _row(found: dict[str, Any]) -> tuple[str, ...]:
    amount = f"{found['amount']['amount']} {found['amount']['currency']}" if found["amount"] else ""
    return (
        f"  {found['subject']}",
        found["kind"],
        amount,
        str(found["units"] or ""),
        found["first_seen"][:19],
        found["detail"],
    )
