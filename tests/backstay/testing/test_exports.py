import importlib

import pytest


@pytest.mark.parametrize("name", ["backstay.db", "backstay.outbox", "backstay.testing"])
def test_public_names(name: str) -> None:
    """`__all__` is exactly what the package offers, each name once; the linter sees to its order."""
    package = importlib.import_module(name)
    modules = {key for key, value in vars(package).items() if type(value).__name__ == "module"}
    public = {key for key in vars(package) if not key.startswith("_")} - modules

    assert len(package.__all__) == len(set(package.__all__))
    assert public == set(package.__all__)
