"""Contracts between services: integration events and the bodies of internal calls.

Readers ignore fields they don't know, so adding an optional field is compatible; anything else is a new event
type with `.v2`. Each module is one topic's vocabulary.
"""
