"""Checks on a shop's books after an experiment."""
