"""Payments: one payment per order, charged at most once, whatever dies in between."""
