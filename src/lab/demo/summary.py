"""The last page of `make up`: addresses, accounts, three commands to try."""

import shlex
from pathlib import Path

from lab.system.context import Stage
from lab.system.environment import ADMIN_EMAIL
from lab.system.options import HOME

LABEL = 10  # columns


def show(stage: Stage, *, filled: bool = True) -> None:
    """Print where everything is and how to go on; `filled`: there are products and the demo's customer."""
    running, home = stage.running, stage.home
    shop = shop_command(home.path)
    filling = [f"{shop} demo    fills the shop, places an order and tells its story", f"{shop} seed    only fills it"]
    stage.screen.title("Ready", "Ctrl-C stops everything")
    rows = [
        ("gateway", ", ".join(running.gateways or [running.gateway])),
        ("registry", running.discovery),
        ("API docs", f"{running.gateway}/docs/orders  (or catalog, auth, …)"),
        ("Kafka", running.kafka),
        ("mails", running.mail or "at your mail server"),
        ("logs", f"{home.logs}  ({shop} logs orders -f)"),
        *([("customer", f"{stage.customer().email}   password in {home.path / 'secrets' / 'customer'}")] * filled),
        ("admin", f"{ADMIN_EMAIL}   password in {home.path / 'secrets' / 'admin'}"),
    ]
    for label, text in rows:
        stage.screen.plain(f"  {label:<{LABEL}}{text}")
    stage.screen.plain("\n  Try:\n")
    for line in curl_lines(stage) if filled else filling:
        stage.screen.plain(f"    {line}")
    stage.screen.plain("")


def shop_command(home: Path) -> str:
    """Return how a shell in the repository's folder reaches the system on this home."""
    return "./shop" if home == HOME.resolve() else f"BACKSTAY_HOME={shlex.quote(str(home))} ./shop"


def curl_lines(stage: Stage) -> list[str]:
    """Return commands that show a product, log in, and order it: each line runs in a shell as it is."""
    gateway, secret = stage.running.gateway, shlex.quote(str(stage.home.path / "secrets" / "customer"))
    login = f'{{\\"email\\":\\"{stage.customer().email}\\",\\"password\\":\\"$(cat {secret})\\"}}'
    order = '{"lines":[{"sku":"NW-001","quantity":1}],"payment_method":"pm_card_ok"}'
    return [
        f"curl {gateway}/api/v1/products/NW-001",
        f'TOKEN=$(curl -s {gateway}/api/v1/auth/login -H "Content-Type: application/json" -d "{login}"'
        ' | sed \'s/.*"access_token":"\\([^"]*\\).*/\\1/\')',
        f'curl {gateway}/api/v1/orders -H "Authorization: Bearer $TOKEN" -H "Idempotency-Key: $(date +%s%N)"'
        f" -H \"Content-Type: application/json\" -d '{order}'",
    ]
