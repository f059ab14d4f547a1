"""A coffee shop: the smallest service that uses everything."""
