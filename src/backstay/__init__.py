"""Backstay: Spring-Cloud-class microservices for Python.

Each part stands alone and brings only what it needs: `backstay.resilience` is pure standard library,
`backstay.gateway` knows no database, `backstay.outbox` no web framework.
"""

__version__ = "0.2.0.dev0"
