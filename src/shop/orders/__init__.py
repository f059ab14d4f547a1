"""Orders: checkout, the order's life, its timeline, and a copy of the catalog to price with."""
