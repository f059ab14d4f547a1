"""`python -m shop.contracts [FOLDER]`: renews events.json, asyncapi.json and events.md in docs/reference.

Before it writes, it compares with what was released there, and refuses a change that readers could not live with.
"""

import json
import sys
from pathlib import Path
from typing import Any

from shop.contracts.asyncapi import asyncapi
from shop.contracts.page import page
from shop.contracts.published import incompatibilities, schemas

FOLDER = Path("docs/reference")


def documents() -> dict[str, str]:
    """File name → text of everything that is published about the events."""
    return {"events.json": _json(schemas()), "asyncapi.json": _json(asyncapi()), "events.md": page()}


def main(folder: Path) -> int:
    """Renew the files; 1 if a released contract would be broken."""
    released = folder / "events.json"
    if released.exists() and (broken := incompatibilities(json.loads(released.read_text()), schemas())):
        sys.stderr.write("".join(f"{problem}\n" for problem in broken))
        sys.stderr.write("nothing was written: give an incompatible change a new type that ends in .v2\n")
        return 1
    for name, text in documents().items():
        (folder / name).write_text(text)
    return 0


def _json(document: dict[str, Any]) -> str:
    return json.dumps(document, indent=2, sort_keys=True) + "\n"


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1]) if len(sys.argv) > 1 else FOLDER))
