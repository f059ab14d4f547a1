"""Drills: a fresh system, its dependency failing in every way, and what must hold meanwhile and afterwards."""
