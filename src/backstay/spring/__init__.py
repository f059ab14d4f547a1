"""Spring's way to write configuration: relaxed keys, documents, placeholders, durations. Needs PyYAML when it reads."""

from backstay.spring.document import Tree, canonical, lookup, read_document
from backstay.spring.durations import seconds
from backstay.spring.placeholders import Unresolved, resolve

__all__ = ["Tree", "Unresolved", "canonical", "lookup", "read_document", "resolve", "seconds"]
