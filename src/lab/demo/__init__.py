"""The demonstration that `make up` gives: a filled shop, an order, an outage of payments."""
