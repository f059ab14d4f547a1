"""Experiments on a fresh system: a fault, a load, and what must hold meanwhile and afterwards."""
