"""The shop's entry point: its routes, limits and the composition around `backstay.gateway`."""
