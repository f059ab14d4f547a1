"""How long work gathers under load before it is done together: latency of what happens afterwards, given for CPU."""

GATHER = 0.1  # seconds
KEEP = 0.1  # seconds for which published events gather before they are deleted
