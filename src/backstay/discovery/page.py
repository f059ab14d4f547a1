"""The page at `/`: every instance by application, its status, and the age of its last heartbeat."""

from html import escape

from backstay.discovery.leases import Lease, LeaseRegistry

HEADERS = (("content-security-policy", "default-src 'none'; style-src 'unsafe-inline'"), ("cache-control", "no-store"))
CONTENT_TYPE = "text/html; charset=utf-8"
_STYLE = """
body { font: 15px/1.5 system-ui, sans-serif; margin: 2rem auto; max-width: 72rem; padding: 0 1rem; color: #1d2733 }
h1 { font-size: 1.4rem } table { border-collapse: collapse; width: 100% }
th, td { text-align: left; padding: .35rem .7rem; border-bottom: 1px solid #dfe5ec }
th { color: #5b6b7d; font-weight: 600 } td { font-variant-numeric: tabular-nums }
.UP { color: #14733b } .DOWN, .UNKNOWN { color: #b3261e } .OUT_OF_SERVICE, .STARTING { color: #8a5a00 }
"""
_HEAD = ("application", "instance", "address", "status", "last heartbeat", "expires in", "up for")


def render(leases: LeaseRegistry, now: float) -> bytes:
    """Return the page; values that instances registered are escaped."""
    rows = "".join(_row(name, lease, now) for name, found in leases.apps() for lease in found)
    seen = leases.statistics()
    empty = f'<tr><td colspan="{len(_HEAD)}">Nobody has registered yet.</td></tr>'
    head = "".join(f"<th>{title}</th>" for title in _HEAD)
    return (
        '<!doctype html><html lang="en"><head><meta charset="utf-8"><meta http-equiv="refresh" content="5">'
        f"<title>Backstay registry</title><style>{_STYLE}</style></head><body><h1>Registry</h1>"
        f"<p>{seen.leases} instances of {seen.apps} applications</p>"
        f"<table><thead><tr>{head}</tr></thead><tbody>{rows or empty}</tbody></table></body></html>"
    ).encode()


def _row(name: str, lease: Lease, now: float) -> str:
    held = lease.registration
    port = held.port if held.port_enabled else held.secure_port
    up_for = f"{now - lease.up_since:.0f} s" if lease.up_since else "–"
    cells = (
        name.lower(),
        held.id,
        f"{held.host}:{port}",
        held.status,
        f"{now - lease.renewed_at:.1f} s ago",
        f"{lease.ends_at - now:.1f} s",
        up_for,
    )
    return "<tr>" + "".join(f'<td class="{escape(held.status)}">{escape(cell)}</td>' for cell in cells) + "</tr>"
