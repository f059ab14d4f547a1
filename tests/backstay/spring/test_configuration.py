"""Spring's files: which documents apply, what overrides what, names in every spelling, placeholders where used."""

from pathlib import Path

import pytest

from backstay.errors import ConfigError
from backstay.spring import PROPERTIES, Configuration, Unresolved, resolve
from backstay.spring.names import elements
from backstay.spring.profiles import cloud_platform, matches


def value(text: str, environ: dict[str, str] | None = None, *, profiles: tuple[str, ...] = ()) -> object:
    """Return what `x` is, in the end."""
    found = Configuration.read(text, environ or {}, profiles=profiles)
    return found.resolve(found.section("x"))


@pytest.mark.parametrize(
    ("expression", "active", "held"),
    [
        ("dev", {"dev"}, True),
        ("!dev", {"dev"}, False),
        ("!dev", set(), True),
        ("dev & eu", {"dev"}, False),
        ("dev & eu", {"dev", "eu"}, True),
        ("dev | eu", {"eu"}, True),
        ("(dev | eu) & !test", {"eu"}, True),
        ("!(dev | eu)", {"eu"}, False),
        ("dev & (eu | us) & !test", {"dev", "us"}, True),
    ],
)
def test_profile_expressions(expression: str, active: set[str], held: bool) -> None:
    """Names, !, &, | and parentheses."""
    assert matches(expression, active) is held


@pytest.mark.parametrize("expression", ["a & b | c", "& a", "a &", "(a", "a)", "()", "!", "a | & b"])
def test_malformed_expressions_are_refused(expression: str) -> None:
    """What Spring refuses is no silent false."""
    with pytest.raises(ValueError, match="is not a profile expression"):
        matches(expression, {"a"})
    with pytest.raises(ConfigError, match="is not a profile expression"):
        value(f"spring.config.activate.on-profile: '{expression}'\nx: 1")


MULTIPLYING = "a0: &a0 [x,x,x,x,x,x,x,x]\n" + "".join(
    f"a{n}: &a{n} [{','.join([f'*a{n - 1}'] * 8)}]\n" for n in range(1, 7)
)
DOCUMENTS = """
x: 1
---
spring.config.activate.on-profile: {wanted}
x: 2
"""


@pytest.mark.parametrize(
    ("wanted", "profiles", "result"),
    [
        ("dev", (), 1),
        ("dev", ("dev",), 2),
        ("'!dev'", (), 2),
        ("default", (), 2),
        ("default", ("dev",), 1),
        ("[dev, eu]", ("eu",), 2),
        ("dev, eu", ("eu",), 2),
        ("dev & eu", ("eu",), 1),
    ],
)
def test_documents_of_a_profile(wanted: str, profiles: tuple[str, ...], result: int) -> None:
    """A document applies when one of its expressions holds; `default` is active when nothing else is."""
    assert value(DOCUMENTS.replace("{wanted}", wanted), profiles=profiles) == result


@pytest.mark.parametrize(
    ("head", "environ", "result"),
    [
        ("spring.profiles.active: dev", {}, 2),
        ("spring.profiles.active: [eu, dev]", {}, 2),
        ("spring.profiles.active: ${WHERE:dev}", {}, 2),
        ("spring.profiles.active: ${WHERE:dev}", {"WHERE": "eu"}, 1),
        ("spring.profiles.active: dev", {"SPRING_PROFILES_ACTIVE": "eu"}, 1),
        ("y: 1", {"SPRING_PROFILES_ACTIVE": "eu,dev"}, 2),
        ("spring.profiles: {include: dev}", {}, 2),
        ("spring.profiles.default: dev", {}, 2),
        ("spring.profiles: {active: all, group: {all: 'eu,dev'}}", {}, 2),
    ],
)
def test_active_profiles_of_file_and_environment(head: str, environ: dict[str, str], result: int) -> None:
    """`spring.profiles.active`, `include`, `default` and groups; the environment goes before the file."""
    text = f"{head}\n---{DOCUMENTS.replace('{wanted}', 'dev')}"

    assert value(text, environ) == result
    assert value(text, environ, profiles=("other",)) == (2 if "include" in head else 1)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("x: 1\n---\nspring.profiles: prod\nx: 2", "spring.profiles: Spring Boot 3 refuses it"),
        ("x: 1\n---\nspring: {profiles: [a, b]}\nx: 2", "spring.profiles: Spring Boot 3 refuses it"),
        (
            "spring: {config.activate.on-profile: a, profiles.active: b}",
            "spring.profiles.active: may not be in a document or a file of a profile",
        ),
        ("spring.config.import: file:other.yml", "'file:other.yml' is not read here"),
        ("x: 1\nx: 2", "the key 'x' is there twice"),
        ("x: {a-b: 1, aB: 2}", "x.aB: is there twice, in two spellings"),
        ("x: 1\n---\nx: {a: 1}", "x: is the value 1 in one place and a mapping in another"),
        ("x[0]: 1\nx[2]: 1", r"x: has the elements \[0, 2\]; the list has a gap"),
        ("just text", "must be a mapping of keys, not str; properties"),
        ("x: &a [*a]", "more than 64 levels; does an alias"),
        ("[" * 5000, "not valid YAML"),
        (MULTIPLYING, "more than 100000 values"),
    ],
)
def test_what_cannot_be_read_is_refused_by_name(text: str, said: str) -> None:
    """A selector that isn't understood, a key twice, an alias without end: each is a sentence."""
    with pytest.raises(ConfigError, match=said):
        value(text)


def test_an_optional_import_is_left_out() -> None:
    """Spring goes on without what is optional, and so does this reader."""
    assert value("spring.config.import: 'optional:configserver:'\nx: 1") == 1


@pytest.mark.parametrize(
    ("environ", "platform"),
    [
        ({}, None),
        ({"KUBERNETES_SERVICE_HOST": "h", "KUBERNETES_SERVICE_PORT": "1"}, "kubernetes"),
        ({"ORDERS_SERVICE_HOST": "h", "ORDERS_SERVICE_PORT": "1"}, "kubernetes"),
        ({"ORDERS_SERVICE_HOST": "h"}, None),
        ({"VCAP_SERVICES": "{}"}, "cloudfoundry"),
        ({"DYNO": "1"}, "heroku"),
        ({"NOMAD_ALLOC_ID": "1"}, "nomad"),
        ({"HC_LANDSCAPE": "1"}, "sap"),
    ],
)
def test_documents_of_a_platform(environ: dict[str, str], platform: str | None) -> None:
    """`on-cloud-platform` is decided by the environment, or by `spring.main.cloud-platform`."""
    text = "x: 1\n---\nspring.config.activate.on-cloud-platform: kubernetes\nx: 2"

    assert cloud_platform(environ) == platform
    assert value(text, environ) == (2 if platform == "kubernetes" else 1)
    assert value(f"spring.main.cloud-platform: kubernetes\n{text}", environ) == 2


def test_mappings_are_united_and_lists_are_not() -> None:
    """A later document adds keys to a mapping, in any spelling, and replaces a list as a whole."""
    text = "x: {first-key: 1, list: [1, 2, 3]}\n---\nX: {firstKey: 2, second: 3, list: [4]}"

    assert value(text) == {"first-key": 2, "list": [4], "second": 3}


def test_names_in_brackets_are_kept() -> None:
    """`[my.service]` is one key; `[0]` is an index; dots and brackets may be mixed."""
    assert [each.key for each in elements("a.[my.Service].b[0][k]")] == ["a", "my.Service", "b", 0, "k"]
    assert value('x: {"[my.service]": 1, "[UserClient#get(Long)]": 2}') == {"my.service": 1, "UserClient#get(Long)": 2}
    assert value("x[0].a: 1\nx[1]: {a: 2}") == [{"a": 1}, {"a": 2}]
    assert value("x: {0: a, 1: b}") == ["a", "b"]


def test_scalars_are_javas() -> None:
    """No dates; booleans and octal numbers as in YAML 1.1; an empty value or list is an empty text."""
    assert value("x: {a: 2020-01-01, b: on, c: 010, d: , e: []}") == {
        "a": "2020-01-01",
        "b": True,
        "c": 8,
        "d": "",
        "e": "",
    }


@pytest.mark.parametrize(
    ("variable", "expected"),
    [
        ("X_ORDERSERVICE_SLIDINGWINDOW", {"order-service": {"sliding-window": "9"}}),
        ("X_ORDER_SERVICE_SLIDING_WINDOW", {"order-service": {"sliding-window": "9"}}),
        ("x_orderservice_slidingwindow", {"order-service": {"sliding-window": "9"}}),
        ("X_NEW_SLIDING_WINDOW", {"order-service": {"sliding-window": 1}, "new": {"slidingwindow": "9"}}),
        ("XX_ORDERSERVICE_SLIDINGWINDOW", {"order-service": {"sliding-window": 1}}),
    ],
)
def test_environment_variables_override(variable: str, expected: object) -> None:
    """A variable with or without underscores for dashes finds the key of the file; a new name is added."""
    found = Configuration.read("x: {order-service: {sliding-window: 1}}", {variable: "9"})

    assert found.section("x", known=["sliding-window"]) == expected


def test_the_json_variable_goes_before_all() -> None:
    """`SPRING_APPLICATION_JSON` overrides the file, and is refused when it isn't JSON."""
    assert value("x: 1", {"SPRING_APPLICATION_JSON": '{"x": 2}'}) == 2
    with pytest.raises(ConfigError, match="SPRING_APPLICATION_JSON: not valid JSON"):
        value("x: 1", {"SPRING_APPLICATION_JSON": "{"})
    with pytest.raises(ConfigError, match="SPRING_APPLICATION_JSON: must be an object"):
        value("x: 1", {"SPRING_APPLICATION_JSON": "[]"})


@pytest.mark.parametrize(
    ("text", "environ", "result"),
    [
        ("x: ${order.url}", {"ORDER_URL": "u"}, "u"),
        ("x: ${order.base-url}", {"ORDER_BASEURL": "u"}, "u"),
        ("x: ${order.base-url}", {"ORDER_BASE_URL": "u"}, "u"),
        ("x: ${order.base-url}\norder.baseUrl: u", {}, "u"),
        ("x: ${order.baseUrl:d}\norder.base-url: u", {}, "d"),
        ("x: ${a}\na: ${b}\nb: true", {}, "true"),
        ("x: ${a:b:c}", {}, "b:c"),
        ("x: ${${n}:d}\nn: a", {"a": "1"}, "1"),
        ("x: ${${n}:d}\nn: b", {"a": "1"}, "d"),
        ("x: '\\${a}'", {}, "${a}"),
        ("x: 1\ny: ${nowhere}\nz: ${random.uuid}", {}, 1),
    ],
)
def test_placeholders(text: str, environ: dict[str, str], result: object) -> None:
    """Relaxed for names in kebab case only, the environment first; what isn't used isn't resolved."""
    assert value(text, environ) == result


def test_placeholders_that_multiply_end() -> None:
    """A value that doubles itself again and again is an error, no memory."""
    names = "".join(f"a{n}: ${{a{n + 1}}}${{a{n + 1}}}{'z' * 100}\n" for n in range(19))
    with pytest.raises(Unresolved):
        value(f"x: ${{a0}}\n{names}a19: {'y' * 100}\n")
    assert resolve("${g} ${h:1}", {}.get, keep={"g"}) == "${g} 1"


PROPERTIES_TEXT = """
# a comment
! another
x.first-key = 1
x.second : two\\
   \\ parts
x.list[0]=a
x.list[1]=b
x.path=c\\:\\\\temp
x.uni\\u0063ode \\u00e9
x.empty
#---
spring.config.activate.on-profile=dev
x.firstKey=2
"""


def test_properties() -> None:
    """Java's escapes, continuations and separators; documents by `#---`; keys in any spelling."""
    found = Configuration.read(PROPERTIES_TEXT, {}, syntax=PROPERTIES)

    assert found.section("x") == {
        "first-key": "1",
        "second": "two parts",
        "list": ["a", "b"],
        "path": "c:\\temp",
        "unicode": "é",
        "empty": "",
    }
    dev = Configuration.read(PROPERTIES_TEXT, {"SPRING_PROFILES_ACTIVE": "dev"}, syntax=PROPERTIES)
    assert dev.get("x.first-key") == "2"
    with pytest.raises(ConfigError, match="four hexadecimal digits"):
        Configuration.read("x=\\u12", {}, syntax=PROPERTIES)


def test_files_of_profiles_lie_beside(tmp_path: Path) -> None:
    """`application-dev.yml` overrides `application.yml` where dev is active; the later profile's file wins."""
    (tmp_path / "application.yml").write_text("x: 1\ny: 1\n---\nx: 2")
    (tmp_path / "application-dev.yml").write_text("x: 3\ny: 3")
    (tmp_path / "application-eu.yml").write_text("y: 4")
    file = tmp_path / "application.yml"

    assert Configuration.read_file(file, {}).get("x") == "2"
    both = Configuration.read_file(file, {}, profiles=["dev", "eu"])
    assert (both.get("x"), both.get("y"), both.profiles) == ("3", "4", ("dev", "eu"))

    (tmp_path / "application-eu.yml").write_text("spring.profiles.active: us")
    with pytest.raises(ConfigError, match=r"application-eu\.yml: spring\.profiles\.active: may not be"):
        Configuration.read_file(file, {}, profiles=["eu"])


@pytest.mark.parametrize("content", [b"\xff\xfe", b"x: [", b"- 1"])
def test_a_file_that_cannot_be_read_is_named(tmp_path: Path, content: bytes) -> None:
    """Not there, not UTF-8, not YAML: the file's name comes first."""
    file = tmp_path / "a.yml"
    with pytest.raises(ConfigError, match=r"a\.yml: can't be read"):
        Configuration.read_file(file, {})
    file.write_bytes(content)
    with pytest.raises(ConfigError) as error:
        Configuration.read_file(file, {})

    assert all(problem.startswith(f"{file}: ") for problem in error.value.problems)
