"""Inventory: what is in stock, which order holds how much of it, and a ledger in which every change adds up."""
