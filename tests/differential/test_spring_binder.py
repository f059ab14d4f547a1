"""The reader of Spring's files beside Spring Boot's own Binder and Resilience4j's factories: the same instances.

`Binder.java` shows what the jars bind. Files are of our own and generated: configs with base configs, instances, every
spelling of keys, YAML and `.properties`, documents of profiles, environment variables. `FILES` and `SEED` in the
environment make more, and others. Random waits are compared elsewhere, by their bounds.
"""

import contextlib
import fcntl
import os
import random
import shutil
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

import backstay.resilience as r
from backstay.errors import ConfigError
from backstay.resilience import spring_config
from backstay.resilience.registry import RATE_LIMIT
from backstay.spring import text_of

RESILIENCE4J, BOOT, FRAMEWORK = "2.4.0", "3.3.5", "6.1.14"
HERE = Path(__file__).parent
CACHE = Path(os.environ.get("BACKSTAY_CACHE") or HERE.parents[1] / ".cache") / f"spring-binder-{RESILIENCE4J}-{BOOT}"
JARS = (
    ("io.github.resilience4j", "resilience4j-spring-boot3", RESILIENCE4J),
    ("org.springframework.boot", "spring-boot", BOOT),
    ("org.springframework.boot", "spring-boot-autoconfigure", BOOT),
    ("org.springframework", "spring-web", FRAMEWORK),
    ("org.springframework", "spring-webflux", FRAMEWORK),
    ("io.github.openfeign", "feign-core", "13.5"),
    ("org.yaml", "snakeyaml", "2.2"),
    ("org.slf4j", "slf4j-nop", "2.0.16"),
)
POM = f"""<project xmlns="http://maven.apache.org/POM/4.0.0">
  <modelVersion>4.0.0</modelVersion>
  <groupId>backstay</groupId><artifactId>binder</artifactId><version>1</version>
  <dependencies>{
    "".join(
        f"<dependency><groupId>{group}</groupId><artifactId>{name}</artifactId><version>{version}</version></dependency>"
        for group, name, version in JARS
    )
}</dependencies>
</project>
"""
DEFAULT_FILES = 300
ERRORS: tuple[Exception, ...] = (OSError(), ValueError(), TimeoutError(), RuntimeError())
REFUSED = ["refused"]


@dataclass(frozen=True)
class Case:
    """A file and its surroundings."""

    text: str
    suffix: str = ".yml"
    profiles: str = ""
    environ: Mapping[str, str] = field(default_factory=dict)


def case(text: str, profiles: str = "", **environ: str) -> Case:
    return Case(text, profiles=profiles, environ=environ)


A = "resilience4j.circuitbreaker.instances.a"
CASES = {
    "a base of a base": case(
        "resilience4j.circuitbreaker: {configs: {default: {slidingWindowSize: 20, minimumNumberOfCalls: 4}, "
        "slow: {baseConfig: default, failureRateThreshold: 70}}, instances: {a: {baseConfig: slow}}}"
    ),
    "profiles of Boot 2": case(f"{A}.slidingWindowSize: 1\n---\nspring.profiles: prod\n{A}.slidingWindowSize: 7"),
    "not a profile": case(f"spring.config.activate.on-profile: '!prod'\n{A}.slidingWindowSize: 7"),
    "not a profile, active": case(f"spring.config.activate.on-profile: '!prod'\n{A}.slidingWindowSize: 7", "prod"),
    "two profiles": case(f"spring.config.activate.on-profile: dev & eu\n{A}.slidingWindowSize: 7", "eu,dev"),
    "a mixed expression": case(f"spring.config.activate.on-profile: a & b | c\n{A}.slidingWindowSize: 7"),
    "a list of profiles": case(f"spring.config.activate.on-profile: [dev, eu]\n{A}.slidingWindowSize: 7", "eu"),
    "active in the file": case(
        f"spring.profiles.active: dev\n{A}.slidingWindowSize: 5\n---\n"
        f"spring.config.activate.on-profile: dev\n{A}.slidingWindowSize: 7"
    ),
    "active by a variable": case(
        f"spring.profiles.active: eu\n{A}.slidingWindowSize: 5\n---\n"
        f"spring.config.activate.on-profile: dev\n{A}.slidingWindowSize: 7",
        SPRING_PROFILES_ACTIVE="dev",
    ),
    "active in a document of a profile": case(
        f"spring: {{config.activate.on-profile: dev, profiles.active: eu}}\n{A}.slidingWindowSize: 5", "dev"
    ),
    "a group": case(
        f"spring.profiles: {{active: all, group: {{all: 'dev,eu'}}}}\n---\n"
        f"spring.config.activate.on-profile: eu\n{A}.slidingWindowSize: 7"
    ),
    "a platform": case(
        f"{A}.slidingWindowSize: 5\n---\n"
        f"spring.config.activate.on-cloud-platform: kubernetes\n{A}.slidingWindowSize: 7",
        KUBERNETES_SERVICE_HOST="h",
        KUBERNETES_SERVICE_PORT="1",
    ),
    "another platform": case(
        f"{A}.slidingWindowSize: 5\n---\nspring.config.activate.on-cloud-platform: heroku\n{A}.slidingWindowSize: 7"
    ),
    "placeholders elsewhere": case(f"db: ${{DB}}\nid: ${{random.uuid}}\n{A}.slidingWindowSize: 5"),
    "placeholder without a value": case(f"{A}.slidingWindowSize: ${{N}}"),
    "placeholders": case(
        f"{A}: {{slidingWindowSize: '${{my.size}}', minimumNumberOfCalls: '${{my.min-calls:3}}'}}\nmy.size: 8",
        MY_MINCALLS="6",
    ),
    "a placeholder in camel case": case(f"{A}.slidingWindowSize: ${{my.maxSize:3}}\nmy.max-size: 8"),
    "a nested placeholder": case(f"{A}.slidingWindowSize: ${{${{which}}:3}}\nwhich: size\nsize: 8"),
    "brackets": case(
        'resilience4j: {circuitbreaker.instances: {"[my.service]": {slidingWindowSize: 5}}, '
        'timelimiter.instances: {"[UserClient#get(Long)]": {timeoutDuration: 3s}}}'
    ),
    "limiters": case("resilience4j.ratelimiter.limiters.a: {limitForPeriod: 10, timeoutDuration: 0}"),
    "backends": case("resilience4j: {retry.backends.a.maxAttempts: 5, bulkhead.backends.a.maxConcurrentCalls: 2}"),
    "metrics": case(f"resilience4j.circuitbreaker.metrics.enabled: true\n{A}.slidingWindowSize: 5"),
    "properties": Case(f"{A}.sliding-window-size = 5\n{A}.recordExceptions[0]:java.io.IOException\n", ".properties"),
    "properties of a profile": Case(
        f"{A}.slidingWindowSize=5\n#---\nspring.config.activate.on-profile=dev\n{A}.sliding-window-size=\\\n  7\n",
        ".properties",
        "dev",
    ),
    "a separator in a comment": Case(
        f"{A}.slidingWindowSize=5\n# x\n#---\n{A}.minimumNumberOfCalls=1\n", ".properties"
    ),
    "variables": case(
        f"{A}.slidingWindowSize: 5",
        RESILIENCE4J_CIRCUITBREAKER_INSTANCES_A_SLIDINGWINDOWSIZE="9",
        RESILIENCE4J_CIRCUITBREAKER_INSTANCES_A_MINIMUM_NUMBER_OF_CALLS="3",
        RESILIENCE4J_RETRY_INSTANCES_NEW_MAXATTEMPTS="4",
        RESILIENCE4J_CIRCUITBREAKER_INSTANCES_A_RECORDEXCEPTIONS_0="java.io.IOException",
    ),
    "JSON": case(
        f"{A}.slidingWindowSize: 5",
        SPRING_APPLICATION_JSON='{"resilience4j.circuitbreaker.instances.a": {"slidingWindowSize": 6}}',
        RESILIENCE4J_CIRCUITBREAKER_INSTANCES_A_SLIDINGWINDOWSIZE="9",
    ),
    "a list that is replaced": case(
        f"{A}.recordExceptions: [java.io.IOException, java.lang.IllegalArgumentException]\n---\n"
        f"{A}: {{recordExceptions: [java.util.concurrent.TimeoutException], slidingWindowSize: 3}}"
    ),
    "a list that is emptied": case(
        "resilience4j.circuitbreaker: {configs.default.recordExceptions: [java.io.IOException], "
        "instances.a: {recordExceptions: [], slidingWindowSize: 3}}"
    ),
    "a key twice": case(f"{A}: {{slidingWindowSize: 5, slidingWindowSize: 6}}"),
    "words": case(
        f"{A}: {{slidingWindowType: time-based, automaticTransitionFromOpenToHalfOpenEnabled: 'yes', "
        "initialState: forcedOpen, transitionToStateAfterWaitDuration: closed}"
    ),
    "both waits": case(f"{A}: {{enableExponentialBackoff: true, enableRandomizedWait: true}}"),
    "no such base": case(f"{A}.baseConfig: x"),
    "its own base": case("resilience4j.circuitbreaker: {configs.a.slidingWindowSize: 3, instances.a.baseConfig: a}"),
    "a config of its name": case(
        "resilience4j: {circuitbreaker: {configs: {default.slidingWindowSize: 3, a.minimumNumberOfCalls: 2}, "
        "instances.a.failureRateThreshold: 10}, retry: {configs: {default.maxAttempts: 7, a.waitDuration: 1s}, "
        "instances.a.failAfterMaxAttempts: true}}"
    ),
    "a cap below the wait": case(
        "resilience4j.retry.instances.a: {waitDuration: 1s, enableExponentialBackoff: true, "
        "exponentialBackoffMultiplier: 2, exponentialMaxWaitDuration: 500ms}"
    ),
    "durations": case(
        f"{A}: {{waitDurationInOpenState: PT1M30S, slowCallDurationThreshold: 250, maxWaitDurationInHalfOpenState: 2m}}"
    ),
    "no number": case(f"{A}.slidingWindowSize: many"),
    "out of range": case(f"{A}.failureRateThreshold: 101"),
    "no class": case(f"{A}.recordExceptions: com.acme.Nowhere"),
}


# -- generated files ------------------------------------------------------------------------------------------------

CLASSES = (
    "java.io.IOException",
    "java.lang.IllegalArgumentException",
    "java.util.concurrent.TimeoutException",
    "java.lang.RuntimeException",
    "java.lang.Exception",
)
DURATIONS = ("100ms", "250", "2s", "PT3S", "1m", "PT1M0.5S")
Values = dict[str, Sequence[Any]]
PLAIN: dict[str, Values] = {
    "circuitbreaker": {
        "failureRateThreshold": (10, 33.5, 100),
        "slowCallRateThreshold": (20, 100),
        "slowCallDurationThreshold": DURATIONS,
        "slidingWindowType": ("COUNT_BASED", "TIME_BASED", "time-based"),
        "slidingWindowSize": (1, 10, 200),
        "minimumNumberOfCalls": (1, 5, 300),
        "permittedNumberOfCallsInHalfOpenState": (1, 7),
        "maxWaitDurationInHalfOpenState": DURATIONS,
        "automaticTransitionFromOpenToHalfOpenEnabled": (True, False),
        "initialState": ("OPEN", "disabled", "METRICS_ONLY"),
        "recordExceptions": CLASSES,
        "ignoreExceptions": CLASSES,
    },
    "retry": {
        "maxAttempts": (1, 4),
        "failAfterMaxAttempts": (True, False),
        "retryExceptions": CLASSES,
        "ignoreExceptions": CLASSES,
    },
    "ratelimiter": {"limitForPeriod": (1, 80), "limitRefreshPeriod": DURATIONS, "timeoutDuration": DURATIONS},
    "bulkhead": {"maxConcurrentCalls": (1, 3), "maxWaitDuration": DURATIONS},
    "thread-pool-bulkhead": {"maxThreadPoolSize": (64, 65), "queueCapacity": (1, 9)},
    "timelimiter": {"timeoutDuration": DURATIONS},
}
SHAPE: Values = {
    "enableExponentialBackoff": (True, True, False),
    "exponentialBackoffMultiplier": (2, 1.25),
    "exponentialMaxWaitDuration": ("150ms", "5s"),
}
Tree = dict[str, Any]


class Generator:
    """Makes cases."""

    def __init__(self, seed: int) -> None:
        self._chance = random.Random(seed)

    def case(self) -> Case:
        """Return a file with some kinds, in one or two documents, and perhaps variables."""
        chance = self._chance
        kinds = chance.sample(sorted(PLAIN), chance.randint(1, 3))
        tree: Tree = {"resilience4j": {kind: self._kind(kind) for kind in kinds}}
        documents = [tree]
        if chance.random() < 0.4:
            kind = chance.choice(kinds)
            name = chance.choice(sorted(tree["resilience4j"][kind]["instances"]))
            change = {"resilience4j": {kind: {"instances": {name: self._keys(kind, 1)}}}}
            wanted = chance.choice(("dev", "!dev", "dev | eu", "dev & eu", "default"))
            documents.append({"spring": {"config": {"activate": {"on-profile": wanted}}}, **change})
        environ = {}
        if chance.random() < 0.3:
            kind = chance.choice([kind for kind in kinds if kind != "thread-pool-bulkhead"] or ["retry"])
            key, value = next(iter(self._keys(kind, 1).items()))
            shown = (
                ",".join(value) if isinstance(value, list) else str(value).lower() if value in (True, False) else value
            )
            environ[f"RESILIENCE4J_{kind}_INSTANCES_A_{key}".upper().replace("-", "")] = str(shown)
        if chance.random() < 0.3:
            text = "\n#---\n".join("\n".join(self._lines(each, "")) for each in documents)
            return Case(text, ".properties", chance.choice(("", "dev", "eu,dev")), environ)
        text = "\n---\n".join("\n".join(self._yaml(each, 0)) for each in documents)
        return Case(text, ".yml", chance.choice(("", "dev", "eu,dev")), environ)

    def _kind(self, kind: str) -> Tree:
        chance = self._chance
        names = chance.sample(["default", "one", "two", "three"], chance.randint(0, 4))
        configs: Tree = {}
        shaped = chance.choice(("default", "instances"))
        for name in names:
            configs[name] = self._keys(kind, 2, shape=name == shaped)
            if configs and name != "default" and chance.random() < 0.5:
                below = [each for each in configs if each != name]
                configs[name] |= {"baseConfig": chance.choice(below)} if below else {}
        instances: Tree = {}
        for name in ("a", "order-service", "b1"):
            instances[name] = self._keys(kind, 2, shape=shaped == "instances")
            if configs and chance.random() < 0.6 and not (kind == "retry" and shaped == "default"):
                instances[name]["baseConfig"] = chance.choice(list(configs))
        return {"configs": configs, "instances": instances} if configs else {"instances": instances}

    def _keys(self, kind: str, most: int, *, shape: bool = False) -> Tree:
        chance, plain = self._chance, PLAIN[kind]
        found: Tree = {}
        for key in chance.sample(sorted(plain), min(len(plain), chance.randint(1, most + 1))):
            value = chance.choice(plain[key])
            found[key] = chance.sample(CLASSES, chance.randint(1, 2)) if key.endswith("Exceptions") else value
        if kind == "thread-pool-bulkhead":  # its default depends on the machine
            found["maxThreadPoolSize"] = chance.choice(plain["maxThreadPoolSize"])
        length = {"retry": "waitDuration", "circuitbreaker": "waitDurationInOpenState"}.get(kind)
        if length and chance.random() < 0.5:
            found[length] = chance.choice(DURATIONS)
        if length and shape:
            for key in chance.sample(sorted(SHAPE), chance.randint(0, 3)):
                of_breakers = kind == "circuitbreaker" and key == "exponentialMaxWaitDuration"
                found[f"{key}InOpenState" if of_breakers else key] = chance.choice(SHAPE[key])
        return found

    def _spelled(self, key: str) -> str:
        kebab = "".join(f"-{letter.lower()}" if letter.isupper() else letter for letter in key)
        return self._chance.choice((key, kebab, kebab.replace("-", "_"))) if any(map(str.isupper, key)) else key

    def _yaml(self, tree: Tree, depth: int) -> Iterator[str]:
        for key, value in tree.items():
            indent = "  " * depth
            if isinstance(value, dict) and len(value) == 1 and self._chance.random() < 0.3:
                inner, only = next(iter(value.items()))
                if not isinstance(only, dict):
                    yield f"{indent}{self._spelled(key)}.{self._spelled(inner)}: {self._value(only)}"
                    continue
            if isinstance(value, dict):
                yield f"{indent}{self._spelled(key)}:"
                yield from self._yaml(value, depth + 1)
            else:
                yield f"{indent}{self._spelled(key)}: {self._value(value)}"

    def _value(self, value: Any) -> str:
        if isinstance(value, list):
            return f"[{', '.join(value)}]" if self._chance.random() < 0.7 else ",".join(value)
        text = text_of(value)
        return f"'{text}'" if self._chance.random() < 0.3 or text.startswith("!") else text

    def _lines(self, tree: Tree, prefix: str) -> Iterator[str]:
        for key, value in tree.items():
            name = f"{prefix}{self._spelled(key)}"
            if isinstance(value, dict):
                yield from self._lines(value, f"{name}.")
            elif isinstance(value, list):
                yield from (f"{name}[{at}]={each}" for at, each in enumerate(value))
            else:
                yield f"{name} = {text_of(value)}"


# -- ours -----------------------------------------------------------------------------------------------------------


def ours(file: Path, made: Case) -> list[str]:
    """Return what our reader makes of the file, in the words of Binder.java."""
    try:
        found = spring_config.read_file(
            file, environ=made.environ, profiles=made.profiles.split(",") if made.profiles else None
        )
    except ConfigError:
        return REFUSED
    return sorted(
        f"{kind} {name} {SHOWN[kind](options)}"
        for kind, names in found.items()
        for name, options in names.items()
        if name != "default"
    )


def ms(seconds: float) -> int:
    return round(seconds * 1000)


def waits(wait: Any) -> str:
    return ",".join(str(ms(wait(n) if callable(wait) else wait)) for n in (1, 2, 3))


def breaker(options: Mapping[str, Any]) -> str:
    arguments = {key: value for key, value in options.items() if key != "tags"}
    c = r.CircuitBreaker("x", **arguments).config
    window = f"TIME_BASED:{c.window.seconds}" if c.window.seconds else f"COUNT_BASED:{c.window.calls}"
    ignore, record = options.get("ignore", ()), options.get("record") or (Exception,)
    errors = "".join("i" if isinstance(e, ignore) else "r" if isinstance(e, record) else "-" for e in ERRORS)
    return (
        f"rate={c.failure_rate:.1f} slow={ms(c.slow.seconds)}/{c.slow.rate:.1f} window={window} min={c.min_calls} "
        f"half={c.half_open.calls}/{ms(c.half_open.max_wait)}>{c.half_open.then.name} wait={waits(c.wait)} "
        f"auto={str(c.auto_half_open).lower()} {(options.get('initial_state') or r.State.CLOSED).name} {errors}"
    )


def retry(options: Mapping[str, Any]) -> str:
    on, ignore = options.get("on") or (Exception,), options.get("ignore", ())
    errors = "".join("r" if isinstance(e, on) and not isinstance(e, ignore) else "-" for e in ERRORS)
    fail = str(options.get("fail_after", False)).lower()
    return f"attempts={options.get('attempts', 3)} wait={waits(options.get('wait', 0.5))} fail={fail} {errors}"


def rate_limiter(options: Mapping[str, Any]) -> str:
    whole = {**RATE_LIMIT, **options}
    return f"limit={whole['limit']} period={round(whole['period'] * 1e9)} wait={ms(whole['max_wait'])}"


SHOWN = {
    "circuitbreaker": breaker,
    "retry": retry,
    "ratelimiter": rate_limiter,
    "bulkhead": lambda options: f"max={options.get('max_calls', 25)} wait={ms(options.get('max_wait', 0))}",
    "threadpoolbulkhead": lambda options: f"max={options.get('threads', 64)} queue={options.get('queue', 100)}",
    "timelimiter": lambda options: f"timeout={ms(options.get('timeout', 1.0))}",
}


# -- theirs ---------------------------------------------------------------------------------------------------------


class Theirs:
    """Binder.java's process."""

    def __init__(self, class_path: str) -> None:
        argv = ["java", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1", "-Xmx256m", "-cp", class_path, "Binder"]
        self._process = subprocess.Popen(
            argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
        )

    def __call__(self, file: Path, made: Case) -> list[str]:
        """Return what the jars make of the file."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        variables = [f"{name}={value}" for name, value in made.environ.items()]
        self._process.stdin.write("\t".join([str(file), made.profiles, *variables]) + "\n")
        self._process.stdin.flush()
        seen: list[str] = []
        while (line := self._process.stdout.readline()) not in (".\n", ""):
            seen.append(line.rstrip("\n"))
        assert line, "the jars' process has ended"
        return sorted(seen)

    def close(self) -> None:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.close()
        self._process.wait(20)
        self._process.stdout.close()


def class_path() -> str:
    """Jars by Maven and the class by javac, once; they stay in the cache folder."""
    CACHE.mkdir(parents=True, exist_ok=True)
    source, libs = HERE / "Binder.java", CACHE / "libs"
    with (CACHE / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not libs.is_dir():
            (CACHE / "pom.xml").write_text(POM)
            copy = ("dependency:copy-dependencies", f"-DoutputDirectory={CACHE / 'libs.new'}")
            run("mvn", "-B", "-q", "-ntp", "-f", str(CACHE / "pom.xml"), *copy)
            (CACHE / "libs.new").rename(libs)
        jars = ":".join(sorted(map(str, libs.glob("*.jar"))))
        compiled = CACHE / "classes" / "Binder.class"
        if not compiled.exists() or compiled.stat().st_mtime < source.stat().st_mtime:
            run("javac", "-cp", jars, "-d", str(CACHE / "classes"), str(source))
    return f"{jars}:{CACHE / 'classes'}"


def run(*argv: str) -> None:
    done = subprocess.run(argv, capture_output=True, text=True, check=False, timeout=600)
    assert done.returncode == 0, f"{argv[0]}: {(done.stdout + done.stderr)[-2000:]}"


@pytest.fixture(scope="module")
def theirs() -> Iterator[Theirs]:
    missing = [tool for tool in ("java", "javac", "mvn") if shutil.which(tool) is None]
    if missing:
        pytest.skip(f"Spring's own Binder needs {', '.join(missing)}")
    with contextlib.closing(Theirs(class_path())) as process:
        yield process


# -- the tests ------------------------------------------------------------------------------------------------------


@pytest.mark.timeout(900)
@pytest.mark.parametrize("name", CASES)
def test_files_of_our_own(theirs: Theirs, tmp_path: Path, name: str) -> None:
    """Each kind of file that was once read otherwise."""
    made = CASES[name]
    file = tmp_path / f"application{made.suffix}"
    file.write_text(made.text)

    assert ours(file, made) == theirs(file, made)


@pytest.mark.timeout(7200)
def test_generated_files(theirs: Theirs, tmp_path: Path) -> None:
    """Hundreds of random files give the same instances with the same values."""
    seed = int(os.environ.get("SEED", "1"))
    generator, refused = Generator(seed), 0
    for at in range(int(os.environ.get("FILES", DEFAULT_FILES))):
        made = generator.case()
        file = tmp_path / f"{at}{made.suffix}"
        file.write_text(made.text)
        mine, real = ours(file, made), theirs(file, made)

        assert mine == real, f"seed {seed}, file {at}, {made.profiles!r}, {made.environ}\n{made.text}"
        refused += mine == REFUSED
    assert refused < at / 2
