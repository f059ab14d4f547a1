"""A whole shop on this machine: its options, environment, processes and data."""
