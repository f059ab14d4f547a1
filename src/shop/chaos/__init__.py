"""Trouble on purpose: faults to order, storms of them with a seed, and what must be true after one."""
