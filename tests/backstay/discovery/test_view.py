"""What a client believes when the registry begins anew."""

from backstay.discovery.instance import Instance
from backstay.discovery.view import View

A, B = (Instance("app", name, "h", 1) for name in "ab")


def ids(apps: object) -> list[str]:
    return sorted(each.id for each in apps.get("app", ()))  # type: ignore[attr-defined]


def test_the_answer_is_believed() -> None:
    """Who left is gone at once while the registry lives on."""
    view = View(90)
    view.fetched({"app": [A, B]}, 0, life="x")

    assert ids(view.fetched({"app": [B]}, 1, life="x")) == ["b"]
    assert ids(view.fetched({}, 2, life="x")) == []


def test_a_registry_with_a_new_life_doesnt_empty_the_list_for_one_lease() -> None:
    """Those known before are kept, newcomers are added, and after a lease the answer alone counts."""
    view = View(90)
    view.fetched({"app": [A]}, 0, life="x")

    assert ids(view.fetched({}, 10, life="y")) == ["a"]
    assert ids(view.fetched({"app": [B]}, 50, life="y")) == ["a", "b"]
    assert ids(view.fetched({"app": [B]}, 100, life="y")) == ["b"]


def test_a_registry_that_tells_no_life_is_caught_by_its_emptiness() -> None:
    """A Eureka server that restarted answers with nobody, or without us."""
    view = View(90)
    view.fetched({"app": [A, B]}, 0, life=None)

    assert ids(view.fetched({"app": [A]}, 1, life=None, missing_us=True)) == ["a", "b"]
    assert ids(view.fetched({"app": []}, 2, life=None)) == ["a", "b"]


def test_at_the_start_an_empty_list_is_just_empty() -> None:
    """There is nothing to keep yet."""
    assert ids(View(90).fetched({}, 0, life="x")) == []
