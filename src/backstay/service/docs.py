"""A page that shows an OpenAPI document to a person, without a script from elsewhere."""

import html
import string
from importlib import resources


def page(name: str, document: bytes) -> bytes:
    """Return the page, with the document inside."""
    template = string.Template(resources.files(__package__).joinpath("docs.html").read_text(encoding="utf-8"))
    # Inside a script element only `</` could end the data.
    data = document.decode().replace("</", "<\\/")
    return template.substitute(name=html.escape(name), document=data).encode()


__all__ = ["page"]
