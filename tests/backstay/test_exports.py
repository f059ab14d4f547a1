"""The public API is a decision: what a package exports, it lists, sorted, and documents."""

import importlib
import inspect
import pkgutil

import pytest

import backstay

PACKAGES = sorted(module.name for module in pkgutil.iter_modules(backstay.__path__, "backstay.") if module.ispkg)


@pytest.mark.parametrize("name", PACKAGES)
def test_exports_are_listed_sorted_and_real(name: str) -> None:
    """`__all__` is sorted (classes and functions by name, constants first), and each name in it exists."""
    package = importlib.import_module(name)

    assert package.__all__ == sorted(package.__all__, key=lambda item: (not item.isupper(), item[0].islower(), item))
    assert all(hasattr(package, item) for item in package.__all__)


@pytest.mark.parametrize("name", PACKAGES)
def test_everything_public_is_documented(name: str) -> None:
    """Each exported class and function, and each public method of such a class, has a docstring."""
    package = importlib.import_module(name)
    missing = []
    for item in package.__all__:
        thing = getattr(package, item)
        if not (inspect.isclass(thing) or inspect.isfunction(thing)) or not thing.__module__.startswith("backstay."):
            continue
        if not thing.__doc__:
            missing.append(item)
        if inspect.isclass(thing):
            missing += [
                f"{item}.{method}"
                for method, body in vars(thing).items()
                if inspect.isfunction(body)
                and not method.startswith("_")
                and not inspect.getdoc(getattr(thing, method))
            ]

    assert missing == []
