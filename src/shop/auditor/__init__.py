"""Auditor: compares orders, payments, the provider's ledger, stock and mails by id, and names what doesn't add up."""
