"""The laboratory: what starts, feeds, loads, hurts and audits the shop."""
