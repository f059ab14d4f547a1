"""Catalog: the products of the shop and what they cost. Everyone else works from copies kept by its events."""
