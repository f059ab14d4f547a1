"""Delays for batching under load: latency of what follows a checkout, given for CPU."""

GATHER = 0.1  # seconds
KEEP = 0.1  # seconds for which published events gather before they are deleted
