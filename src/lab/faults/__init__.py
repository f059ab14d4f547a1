"""Faults to inject: their catalogue, a seeded schedule, and a run of one."""
