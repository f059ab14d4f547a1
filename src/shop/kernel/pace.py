"""How long work gathers under load before it is done together: latency of what happens afterwards, given for CPU."""

GATHER = 0.025  # seconds
