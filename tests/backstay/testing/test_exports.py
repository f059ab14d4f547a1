import importlib

import pytest


@pytest.mark.parametrize("name", ["backstay.db", "backstay.outbox", "backstay.testing"])
def test_public_names(name: str) -> None:
    """`__all__` is sorted, and is exactly what the package offers."""
    package = importlib.import_module(name)
    modules = {key for key, value in vars(package).items() if type(value).__name__ == "module"}
    public = {key for key in vars(package) if not key.startswith("_")} - modules

    assert list(package.__all__) == sorted(package.__all__)
    assert public == set(package.__all__)
