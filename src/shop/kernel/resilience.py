"""The policies of the shop's calls to others, from one file in Resilience4j's form."""

from collections.abc import Collection, Mapping
from pathlib import Path

from backstay.resilience import Registry

FILE = Path(__file__).with_name("resilience.yaml")


class Seconds(float):
    """A duration among the values."""

    def __str__(self) -> str:
        return f"{float(self):f}s"


def policies(
    only: Collection[str], values: Mapping[str, object], errors: Mapping[str, type[BaseException]]
) -> Registry:
    """Return the registry for one caller: `only` are the names of what it calls, `values` fill the file's placeholders.

    Raises ConfigError with file, key and what is allowed.
    """
    environ = {name.upper(): str(value) for name, value in values.items()}
    return Registry.from_yaml(FILE, only=only, environ=environ, errors=errors)


__all__ = ["FILE", "Seconds", "policies"]
