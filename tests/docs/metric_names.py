"""All metric families that the code can show, found by its records of statistics."""

import dataclasses
import importlib
import inspect
import pkgutil
import re
from collections.abc import Iterator
from enum import Enum
from typing import Any, get_args, get_type_hints

import backstay
import lab
import shop
from backstay.metrics import COUNTER
from backstay.resilience.meters import HELP
from backstay.telemetry.histogram import HistogramStatistics
from backstay.telemetry.metrics import family_name

_MAPPING = re.compile("dict|Mapping")
NO_PARTS = {
    "Gateway",  # has a page of its own, with names of its own
    "TokenBuckets",
    "RegistryServer",
    "HttpServer",
    "Listener",
    "Server",
    "LeaseRegistry",
    "Histogram",  # part of another's statistics
    "Pool",
    "RouteCounters",
    "StateMachine",
    "SharedStateMachine",
}
"""Classes whose statistics aren't shown as those of a part."""


def modules() -> Iterator[Any]:
    """Import every module of the platform and the shop but the commands."""
    for package in (backstay, shop, lab):
        for found in pkgutil.walk_packages(package.__path__, f"{package.__name__}."):
            if not found.name.endswith("__main__"):
                yield importlib.import_module(found.name)


def records() -> dict[type, type]:
    """Return the classes with a `statistics()` that returns a dataclass, and that dataclass."""
    found: dict[type, type] = {}
    for module in modules():
        for _, kind in inspect.getmembers(module, inspect.isclass):
            method = kind.__dict__.get("statistics")
            if kind.__module__ == module.__name__ and inspect.isfunction(method):
                returned = get_type_hints(method).get("return")
                if dataclasses.is_dataclass(returned) and isinstance(returned, type):
                    found[kind] = returned
    return found


def families(kind: type, record: type, prefix: str = "") -> Iterator[str]:
    """Yield the names of the families that the numbers of a record are shown in."""
    for field in dataclasses.fields(record):
        grows = field.name.endswith("_total") or COUNTER in getattr(field.type, "__metadata__", ())
        inner = [each for each in (field.type, *get_args(field.type)) if isinstance(each, type)]
        if HistogramStatistics in inner:
            yield f"{family_name(kind, prefix + field.name, grows=False)}_seconds"
        elif nested := [each for each in inner if dataclasses.is_dataclass(each)]:
            yield from families(kind, nested[0], f"{prefix}{field.name}_")
        elif any(issubclass(each, (int, float, Enum)) for each in inner) or _MAPPING.search(str(field.type)):
            yield family_name(kind, prefix + field.name, grows=grows)


def all_families() -> set[str]:
    """Return the families of every part, and of the policies under Resilience4j's names."""
    own = {
        name for kind, record in records().items() if kind.__name__ not in NO_PARTS for name in families(kind, record)
    }
    return own | {f"resilience4j_{name}" for name in HELP}
