"""Spring's configuration: files, documents, profiles, relaxed names, placeholders, durations. YAML needs PyYAML."""

from backstay.spring.configuration import PROPERTIES, YAML, Configuration, Tree
from backstay.spring.durations import seconds
from backstay.spring.names import alphanumeric, canonical
from backstay.spring.placeholders import Unresolved, resolve
from backstay.spring.sources import lookup, text_of

__all__ = [
    "PROPERTIES",
    "YAML",
    "Configuration",
    "Tree",
    "Unresolved",
    "alphanumeric",
    "canonical",
    "lookup",
    "resolve",
    "seconds",
    "text_of",
]
