"""Routes as Spring Cloud Gateway writes them: which one is found, and what it does to the path."""

import re

import pytest

from backstay.errors import ConfigError
from backstay.gateway import FILTERS, PREDICATES, RouteTable, read_definition
from backstay.gateway.asked import Asked
from backstay.http.paths import AmbiguousPath, compile_pattern, decoded
from backstay.spring import Unresolved, resolve

PREFIX = "spring.cloud.gateway"


def table(routes, environ=None, section="spring: {cloud: {gateway: {routes: ROUTES}}}"):
    return RouteTable(read_definition(section.replace("ROUTES", routes), environ or {}))


def one(predicates, filters="[]"):
    return table(f"[{{id: r, uri: 'lb://app', predicates: {predicates}, filters: {filters}}}]")


def asked(path="/", method="GET", query="", host="shop.test", **headers):
    fields = {name.replace("_", "-").encode(): value.encode() for name, value in headers.items()}
    return Asked(method.encode(), path, query, host.encode(), fields)


@pytest.mark.parametrize(
    ("pattern", "path", "variables"),
    [
        ("/a", "/a", {}),
        ("/a", "/a/", {}),
        ("/a", "/ab", None),
        ("/a", "/a/b", None),
        ("/a/**", "/a", {}),
        ("/a/**", "/a/b/c", {}),
        ("/a/**", "/ab", None),
        ("/**", "/", {}),
        ("/**", "/x/y", {}),
        ("/a/*", "/a/b", {}),
        ("/a/*", "/a/b/c", None),
        ("/a/*/c", "/a/b/c", {}),
        ("/a/?", "/a/b", {}),
        ("/a/?", "/a/bc", None),
        ("/a/*.json", "/a/b.json", {}),
        ("/a/*.json", "/a/b.xml", None),
        ("/a/{x}", "/a/1", {"x": "1"}),
        ("/a/{x}", "/a/", None),
        ("/a/{x}/b/{y}", "/a/1/b/2", {"x": "1", "y": "2"}),
        ("/a/{x:[0-9]+}", "/a/12", {"x": "12"}),
        ("/a/{x:[0-9]+}", "/a/b", None),
        ("/a/{x:[0-9]{2}}", "/a/12", {"x": "12"}),
        ("/a/{*rest}", "/a/b/c", {"rest": "/b/c"}),
        ("/a/{*rest}", "/a", {"rest": ""}),
        ("/a/{x}.{y}", "/a/b.c", {"x": "b", "y": "c"}),
        ("/a/ü", "/a/ü", {}),
    ],
)
def test_path_patterns(pattern, path, variables):
    """Patterns match as Spring's PathPattern does, alone and in a table."""
    found = one(f"['Path={pattern}']")
    request = asked(path)
    route = found.find(request)

    assert (route is not None) == (variables is not None)
    if variables is not None:
        assert request.variables == variables


@pytest.mark.parametrize("pattern", ["a", "/a/**/b", "/a/{*x}/b", "/a/{b", "/a/b}", "/a/{x:[}"])
def test_bad_path_patterns_are_named(pattern):
    """A pattern that could never match as meant is a mistake at start."""
    with pytest.raises(ValueError, match=r".+"):
        compile_pattern(pattern)


PREDICATE_TABLE = [
    ("Method=GET,POST", asked(method="POST"), True),
    ("Method=GET,POST", asked(method="PUT"), False),
    ("Host=**.shop.test", asked(host="a.b.shop.test"), True),
    ("Host=**.shop.test", asked(host="a.shop.test:8080"), True),
    ("Host=*.shop.test", asked(host="a.b.shop.test"), False),
    ("Host=shop.test,other.test", asked(host="OTHER.test"), True),
    ("Host=shop.test:8080", asked(host="shop.test:8080"), True),
    ("Host=shop.test:8080", asked(host="shop.test"), False),
    ("Host={sub}.shop.test", asked(host="a.shop.test"), True),
    ("Header=X-A", asked(x_a="1"), True),
    ("Header=X-A", asked(), False),
    (r"Header=X-A, \d+", asked(x_a="12"), True),
    (r"Header=X-A, \d+", asked(x_a="12b"), False),
    ("Query=green", asked(query="green"), True),
    ("Query=green", asked(query="red=1"), False),
    ("Query=red, gree.", asked(query="red=blue&red=green"), True),
    ("Query=red, gree.", asked(query="red=greet1"), False),
    ("Cookie=chocolate, ch.p", asked(cookie="a=b; chocolate=chip"), True),
    ("Cookie=chocolate, ch.p", asked(cookie="chocolate=cake"), False),
]


@pytest.mark.parametrize(("predicate", "request_", "matches"), PREDICATE_TABLE)
def test_predicates(predicate, request_, matches):
    """Each predicate in its shortcut form."""
    found = table(f"[{{id: r, uri: 'lb://app', predicates: ['{predicate}']}}]")

    assert (found.find(request_) is not None) == matches


FULL_FORM = r"""
- id: r
  uri: lb://app
  predicates:
  - name: Path
    args: {patterns: "/a/{x},/b/{x}", match-trailing-slash: false}
  - name: Method
    args: {_genkey_0: GET, _genkey_1: HEAD}
  - name: Header
    args: {header: X-A, regexp: '\d+'}
  filters:
  - name: StripPrefix
    args: {parts: 1}
"""


def test_the_full_form_means_the_same():
    """A predicate or filter may be written with name and args, in any spelling that Spring takes."""
    found = table(FULL_FORM, section="spring.cloud.gateway.routes:ROUTES")

    assert found.find(asked("/b/1", x_a="1")).forwarded_path("/b/1", {}) == "/1"
    assert found.find(asked("/b/1/", x_a="1")) is None
    assert found.find(asked("/a/1", method="POST", x_a="1")) is None


def test_all_conditions_must_hold_and_order_decides():
    """Predicates are ANDed; the lowest order wins, then the order in the file, whatever is more specific."""
    found = table("""[
      {id: late, uri: 'lb://a', order: 1, predicates: ['Path=/a/b']},
      {id: first, uri: 'lb://a', predicates: ['Path=/a/**', 'Method=GET']},
      {id: second, uri: 'lb://a', predicates: ['Path=/a/b']},
      {id: early, uri: 'lb://a', order: -1, predicates: ['Path=/**', 'Header=X-A']},
      {id: anything, uri: 'lb://a', order: 9, predicates: ['Method=DELETE']}]""")

    def who(**request):
        route = found.find(asked("/a/b", **request))
        return route and route.id

    assert (who(), who(method="POST"), who(x_a="1"), who(method="DELETE")) == ("first", "second", "early", "second")
    assert found.find(asked("/other", method="DELETE")).id == "anything"
    assert found.find(asked("/other")) is None


@pytest.mark.parametrize(
    ("pattern", "filters", "path", "forwarded"),
    [
        ("/a/**", "['StripPrefix=1']", "/a/b/c", "/b/c"),
        ("/a/**", "['StripPrefix=2']", "/a/b", "/"),
        ("/a/**", "['StripPrefix=9']", "/a/b", "/"),
        ("/a/**", "['StripPrefix=1']", "/a/b/", "/b/"),
        ("/a/**", "['PrefixPath=/x']", "/a/b", "/x/a/b"),
        ("/a/{v}", "['PrefixPath=/x/{v}']", "/a/b", "/x/b/a/b"),
        ("/a/{v}", "['SetPath=/x/{v}']", "/a/b", "/x/b"),
        ("/a/{v}", "['SetPath=/x/{v}']", "/a/é", "/x/%C3%A9"),
        ("/a/**", r"['RewritePath=/a/?(?<rest>.*), /$\{rest}']", "/a/b/c", "/b/c"),
        ("/a/**", "['RewritePath=/a/(.*), /x/$1']", "/a/b", "/x/b"),
        ("/a/**", "['RewritePath=/a/, x/']", "/a/b", "/x/b"),
        ("/a/**", "['StripPrefix=1', 'PrefixPath=/x']", "/a/b", "/x/b"),
        ("/a/**", "['PrefixPath=/x', 'StripPrefix=1']", "/a/b", "/a/b"),
    ],
)
def test_path_filters(pattern, filters, path, forwarded):
    """Path filters, one after the other."""
    found = one(f"['Path={pattern}']", filters)
    request = asked(path)
    route = found.find(request)

    assert route.forwarded_path(path, request.variables) == forwarded


def test_header_filters():
    """Add keeps what is there, Set replaces it, Remove drops it; later filters see what earlier ones did."""
    found = one(
        "['Path=/{v}']",
        "['AddRequestHeader=X-A, a, b', 'SetRequestHeader=X-B, {v}', 'AddRequestHeader=X-C, c',"
        " 'RemoveRequestHeader=x-c', 'AddResponseHeader=X-D, d', 'RemoveResponseHeader=Server']",
    )
    request = asked("/w")
    route = found.find(request)

    assert route.request_lines.lines(request.variables) == b"X-A: a,b\r\nX-B: w\r\n"
    assert route.actions.request.drop == {b"x-b", b"x-c"}
    assert route.response_lines.lines({}) == b"X-D: d\r\n"
    assert route.actions.response.drop == {b"server"}


def test_a_path_variable_cannot_make_a_header():
    """What a client writes into its path never ends a header line."""
    found = one("['Path=/{v}']", "['AddRequestHeader=X-A, {v}']")
    request = asked("/w\r\nX-User-Id: root")

    route = found.find(request)

    assert route.request_lines.lines(request.variables) == b"X-A: wX-User-Id: root\r\n"


def test_default_filters_come_first():
    """Default filters apply to every route, before its own."""
    found = table(
        "[{id: r, uri: 'lb://a', predicates: ['Path=/**'], filters: ['PrefixPath=/own']}]",
        section="spring: {cloud: {gateway: {defaultFilters: ['PrefixPath=/default'], routes: ROUTES}}}",
    )

    assert found.routes[0].forwarded_path("/x", {}) == "/own/default/x"


def test_metadata_and_time_outs():
    """Times are milliseconds or written with a unit; negative means none; the client section sets them for all."""
    found = table(
        "[{id: r, uri: 'http://h:81', metadata: {connect-timeout: 250, response-timeout: -1, scope: 'a:b'}},"
        " {id: s, uri: 'http://h', metadata: {responseTimeout: 2s, public: true}}]",
        section="spring: {cloud: {gateway: {server: {webflux: {httpclient: {connect-timeout: 1000,"
        " response-timeout: 5s}, routes: ROUTES}}}}}",
    )
    first, second = found.routes

    assert (first.connect_timeout, first.response_timeout, first.scope) == (0.25, float("inf"), "a:b")
    assert (first.target.host, first.target.port, second.target.port) == ("h", 81, 80)
    assert (second.response_timeout, second.public, second.scope) == (2.0, True, None)
    assert (found.connect_timeout, found.response_timeout) == (1.0, 5.0)


def test_limits():
    """A rate limiter in Spring's spelling, flat and nested, and a request size."""
    for args in (
        "{redis-rate-limiter.replenishRate: 10, redis-rate-limiter.burstCapacity: 20}",
        "{redis-rate-limiter: {replenish-rate: 10, burst-capacity: 20}, key-resolver: '#{@remoteAddrKeyResolver}'}",
    ):
        found = one("['Path=/**']", f"[{{name: RequestRateLimiter, args: {args}}}, 'RequestSize=5MB']").routes[0]

        assert (found.limits[0].buckets.rate, found.limits[0].buckets.burst) == (10, 20)
        assert found.limits[0].by_user == ("resolver" not in args)
        assert found.actions.max_body == 5 * 1024 * 1024


MISTAKES = {
    "unknown predicate": (
        "[{id: r, uri: 'lb://a', predicates: ['Paht=/a']}]",
        [f"{PREFIX}.routes[0].predicates[0]: unknown predicate 'Paht'; known: {', '.join(PREDICATES)}"],
    ),
    "unknown filter": (
        "[{id: r, uri: 'lb://a', filters: ['StripPrefix=1', 'TokenRelay=3']}]",
        [f"{PREFIX}.routes[0].filters[1]: unknown filter 'TokenRelay'; known: {', '.join(FILTERS)}"],
    ),
    "no uri": ("[{id: r}]", ["routes[0].uri: is missing; lb://service or http://host:port"]),
    "other scheme": ("[{id: r, uri: 'https://a'}]", ["'https://a' must be lb://service or http://host:port"]),
    "lb with a port": ("[{id: r, uri: 'lb://a:80'}]", ["must be lb://service"]),
    "uri with a path": ("[{id: r, uri: 'http://a/b'}]", ["must be lb://service or http://host:port"]),
    "unknown key": ("[{id: r, uri: 'lb://a', predicate: []}]", ["routes[0].predicate: unknown key; allowed: id, uri"]),
    "same id": ("[{id: r, uri: 'lb://a'}, {id: r, uri: 'lb://b'}]", ["the id 'r' is there twice"]),
    "not a list": ("{id: r}", ["must be a list of at least one route"]),
    "empty": ("[]", ["must be a list of at least one route"]),
    "order": ("[{id: r, uri: 'lb://a', order: first}]", ["order: must be a whole number, not 'first'"]),
    "metadata": (
        "[{id: r, uri: 'lb://a', metadata: {pubic: true}}]",
        ["metadata.pubic: unknown key; allowed: connect"],
    ),
    "public": ("[{id: r, uri: 'lb://a', metadata: {public: maybe}}]", ["must be true or false, not 'maybe'"]),
    "public with scope": (
        "[{id: r, uri: 'lb://a', metadata: {public: true, scope: a}}]",
        ["a public route has no scope"],
    ),
    "timeout": ("[{id: r, uri: 'lb://a', metadata: {response-timeout: soon}}]", ["'soon' must be a duration"]),
    "missing argument": ("[{id: r, uri: 'lb://a', filters: [SetPath]}]", ["argument template is missing"]),
    "unknown argument": (
        "[{id: r, uri: 'lb://a', filters: [{name: StripPrefix, args: {part: 1}}]}]",
        ["unknown argument 'part'; allowed: parts"],
    ),
    "number": ("[{id: r, uri: 'lb://a', filters: ['StripPrefix=x']}]", ["parts='x' must be a number of at least 0"]),
    "size": ("[{id: r, uri: 'lb://a', filters: ['RequestSize=big']}]", ["maxSize='big' must be a size such as"]),
    "regexp": ("[{id: r, uri: 'lb://a', predicates: ['Header=X, [']}]", ["isn't a regular expression"]),
    "replacement": ("[{id: r, uri: 'lb://a', filters: ['RewritePath=/a, /$1']}]", ["the replacement doesn't fit"]),
    "pattern": ("[{id: r, uri: 'lb://a', predicates: ['Path=a']}]", ["'a' must begin with /"]),
    "method": ("[{id: r, uri: 'lb://a', predicates: ['Method=get']}]", ["'get' must be a method in capitals"]),
    "header": ("[{id: r, uri: 'lb://a', filters: ['AddRequestHeader=X A, b']}]", ["'X A' isn't a header name"]),
    "framing header": (
        "[{id: r, uri: 'lb://a', filters: ['SetRequestHeader=Content-Length, 1']}]",
        ["belongs to the connection"],
    ),
    "burst": (
        "[{id: r, uri: 'lb://a', filters: [{name: RequestRateLimiter, args: {replenishRate: 1, requestedTokens: 5}}]}]",
        ["burstCapacity=1 must be at least requestedTokens=5"],
    ),
    "rate": ("[{id: r, uri: 'lb://a', filters: [RequestRateLimiter]}]", ["argument replenishRate is missing"]),
    "placeholder": ("[{id: r, uri: '${WHERE}'}]", ["${WHERE} isn't set and has no default"]),
    "several": (
        "[{uri: 'ftp://a', predicates: ['Paht=/a'], filters: [Nope]}, {uri: 'lb://b', order: x}]",
        ["order: must be a whole number"],
    ),
}


@pytest.mark.parametrize(("routes", "parts"), MISTAKES.values(), ids=MISTAKES.keys())
def test_every_mistake_is_named(routes, parts):
    """A mistake stops the start with its key, its value and what is allowed."""
    with pytest.raises(ConfigError) as wrong:
        table(routes)

    for part in parts:
        assert part in str(wrong.value)


def test_all_mistakes_are_named_at_once():
    """One start tells every mistake of the same kind of reading, not the first."""
    with pytest.raises(ConfigError) as wrong:
        table(
            "[{uri: 'ftp://a', predicates: ['Paht=/a'], filters: [Nope]}, {uri: 'lb://b', filters: ['StripPrefix=x']}]"
        )

    assert len(wrong.value.problems) == 4


@pytest.mark.parametrize(
    ("text", "part"),
    [
        ("a: [", "not valid YAML"),
        ("- a", "must be a mapping"),
        ("spring: {}", "no routes"),
        ("spring: {cloud: {gateway: {routes: [{uri: 'lb://a'}], globalcors: {}}}}", "globalcors: unknown key"),
        (
            "spring.cloud.gateway: {routes: [{uri: 'lb://a'}], discovery.locator.enabled: true}",
            "there is no discovery locator",
        ),
        ("spring.cloud.gateway: {routes: [{uri: 'lb://a'}], trusted-proxies: '['}", "isn't a regular expression"),
    ],
)
def test_a_file_that_isnt_understood_is_refused(text, part):
    """Nothing that somebody wrote down is skipped in silence."""
    with pytest.raises(ConfigError, match=part.replace("[", r"\[")):
        RouteTable(read_definition(text, {}))


def test_profiles_and_dotted_keys():
    """Later documents add to the first, those of other profiles don't; dotted keys are the same as nested ones."""
    text = """
spring.cloud.gateway.routes:
- {id: base, uri: "lb://${app.name}", predicates: [Path=/a]}
app.name: one
---
spring.config.activate.on-profile: two
app: {name: two}
"""
    assert str(RouteTable(read_definition(text, {})).routes[0].target) == "lb://one"
    assert str(RouteTable(read_definition(text, {}, profiles=frozenset({"two"}))).routes[0].target) == "lb://two"
    assert str(RouteTable(read_definition(text, {"app.name": "three"})).routes[0].target) == "lb://three"


@pytest.mark.parametrize(
    ("text", "result"),
    [
        ("plain", "plain"),
        ("${A}", "1"),
        ("x${A}y${B:2}z", "x1y2z"),
        ("${B:}", ""),
        ("${B:http://h:80/}", "http://h:80/"),
        ("${B:${A}}", "1"),
        ("${B:${C:3}}", "3"),
        ("${${N}}", "1"),
        ("${R}", "1"),
        (r"/$\{segment}", r"/$\{segment}"),
        ("${open", "${open"),
    ],
)
def test_placeholders(text, result):
    """Placeholders as Spring resolves them."""
    assert resolve(text, {"A": "1", "N": "A", "R": "${A}"}.get) == result


@pytest.mark.parametrize("text", ["${B}", "${LOOP}", "${B:${C}}"])
def test_placeholders_without_a_value(text):
    """A name that nothing defines, or that refers to itself, is an error."""
    with pytest.raises(Unresolved):
        resolve(text, {"LOOP": "${LOOP}"}.get)


@pytest.mark.parametrize(
    ("path", "result"),
    [("/a", "/a"), ("/a%20b", "/a b"), ("/%61", "/a"), ("/%C3%A9", "/é"), ("/.well-known/a..b", "/.well-known/a..b")],
)
def test_paths_are_decoded_for_matching(path, result):
    """A route can't be avoided by writing its path with escapes."""
    assert decoded(path) == result


@pytest.mark.parametrize(
    "path",
    [
        "//",
        "/a//b",
        "/./a",
        "/../a",
        "/a/..",
        "/a/%2e%2e/b",
        "/a/.%2E",
        "/a%2Fb",
        "/a%5cb",
        "/a\\b",
        "/a;b",
        "/a%3Bb",
        "/a%00",
        "/a%0a",
        "/a%",
        "/a%zz",
        "/%ff",
    ],
)
def test_ambiguous_paths_are_refused(path):
    """What a server behind us could read as another path is refused."""
    with pytest.raises(AmbiguousPath):
        decoded(path)


SPRING_BASE = """
spring.cloud.gateway:
  routes:
  - id: a
    uri: http://a:80
    predicates: ['Path=/a/**']
"""


def test_files_are_read_as_springs() -> None:
    """Profiles, indices, one string for a list, relaxed names; other sections' placeholders need no value."""
    other = "---\nspring.config.activate.on-profile: '!prod'\nspring.cloud.gateway.routes: [{id: b, uri: 'http://b'}]"
    dotted = "spring.cloud.gateway.routes[0]: {id: a, uri: '${order.url}', predicates: Path=/a/**}\ndb: ${DB}"

    assert [each.id for each in read_definition(SPRING_BASE + other, {}).routes] == ["b"]
    assert [each.id for each in read_definition(SPRING_BASE + other, {}, profiles=["prod"]).routes] == ["a"]
    found = read_definition(dotted, {"ORDER_URL": "http://o:1"}).routes[0]
    assert (found.uri, found.predicates[0].name, list(found.predicates[0].args)) == ("http://o:1", "Path", ["/a/**"])


def test_a_named_group_is_no_placeholder() -> None:
    """`${segment}` of the group stays; a property of that name, or another name, is resolved."""
    rewrite = SPRING_BASE + "    filters: ['RewritePath=/a/(?<segment>.*), /${segment}${tail:/end}']\n"

    assert list(read_definition(rewrite, {}).routes[0].filters[0].args) == ["/a/(?<segment>.*)", "/${segment}/end"]
    with pytest.raises(ConfigError, match=r"filters\[0\]: \$\{other\} isn't set"):
        read_definition(rewrite.replace("${tail:/end}", "${other}"), {})


@pytest.mark.parametrize(
    "link",
    ["SERVICE_HOST", "SERVICE_PORT", "SERVICE_PORT_HTTP", "PORT", "PORT_8080_TCP", "PORT_8080_TCP_ADDR"],
)
def test_links_of_kubernetes_are_no_overrides(link: str) -> None:
    """A Service named `spring-cloud-gateway` puts such variables into every pod; the gateway starts nevertheless."""
    assert len(read_definition(SPRING_BASE, {f"SPRING_CLOUD_GATEWAY_{link}": "tcp://10.0.0.1:8080"}).routes) == 1


def test_environment_variables_override_a_timeout() -> None:
    """A variable goes before the file, with or without underscores for dashes."""
    for name in ("RESPONSETIMEOUT", "RESPONSE_TIMEOUT"):
        assert read_definition(SPRING_BASE, {f"SPRING_CLOUD_GATEWAY_HTTPCLIENT_{name}": "7s"}).response_timeout == 7


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (SPRING_BASE + "  enabled: false\n", "enabled: is false: this gateway is switched off"),
        (SPRING_BASE + "  enabled: maybe\n", "enabled: must be true or false, not 'maybe'"),
        (
            SPRING_BASE + "---\nspring.cloud.gateway.server.webflux.routes: []",
            "both spring.cloud.gateway.server.webflux",
        ),
        ("spring.cloud.gateway.server.webmvc.routes: []", "server.webmvc: unknown key; allowed: webflux"),
        ("spring.cloud.gateway.mvc.routes: []", "unknown keys: mvc"),
        (SPRING_BASE + "---\nspring.profiles: prod", "spring.profiles: Spring Boot 3 refuses it"),
        (SPRING_BASE + "  routes: []\n", "the key 'routes' is there twice"),
    ],
)
def test_selectors_that_are_not_understood_are_refused(text: str, said: str) -> None:
    """Nothing decides in silence which routes there are."""
    with pytest.raises(ConfigError, match=re.escape(said)):
        read_definition(text, {})
