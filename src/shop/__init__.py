"""The shop: a checkout back end of independent services, built on Backstay."""
