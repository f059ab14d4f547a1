"""`python -m shop`."""

from shop.cli import app

app()
