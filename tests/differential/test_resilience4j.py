"""The circuit breaker beside the real Resilience4j: the same operations, the same states, counts, rates and events.

A sequence is a configuration and operations on it: calls that begin, end late or never, in any way, steps of the clock,
transitions by hand. Ours runs it in parity mode; `Driver.java` runs it on the jar. `SEQUENCES` and `SEED` in the
environment run as many more random ones.
"""

import contextlib
import fcntl
import os
import random
import shutil
import subprocess
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import backstay.resilience as r
from backstay.resilience.endpoints import BREAKER_TYPES as TYPES
from backstay.resilience.waits import exponential
from backstay.testing import FakeClock

VERSION = "2.4.0"
HERE = Path(__file__).parent
CACHE = Path(os.environ.get("BACKSTAY_CACHE") or HERE.parents[1] / ".cache") / f"resilience4j-{VERSION}"
POM = f"""<project xmlns="http://maven.apache.org/POM/4.0.0">
  <modelVersion>4.0.0</modelVersion>
  <groupId>backstay</groupId><artifactId>differential</artifactId><version>1</version>
  <dependencies>
    <dependency><groupId>io.github.resilience4j</groupId><artifactId>resilience4j-circuitbreaker</artifactId><version>{VERSION}</version></dependency>
    <dependency><groupId>io.github.resilience4j</groupId><artifactId>resilience4j-retry</artifactId><version>{VERSION}</version></dependency>
    <dependency><groupId>org.slf4j</groupId><artifactId>slf4j-nop</artifactId><version>1.7.36</version></dependency>
  </dependencies>
</project>
"""
STATES = ("CLOSED", "OPEN", "HALF_OPEN", "DISABLED", "FORCED_OPEN", "METRICS_ONLY")
DEFAULT_SEQUENCES = 2000
LENGTH = 60  # operations of a sequence at most
Choose = Callable[[Sequence[str]], str]


class Boom(Exception):
    pass


class Ignored(Exception):
    pass


class Unrecorded(Exception):
    pass


# -- sequences ------------------------------------------------------------------------------------------------------

OFTEN = ("a", "a", "a", "a", "s", "s", "e", "e", "e", "t", "t", "b", "i", "u", "r")
RARELY = ("T", "o", "R")


def sequence(numbers: Sequence[int]) -> str:
    """A sequence made of random numbers, the first ones for the configuration."""
    stream = iter(numbers)

    def choose(options: Sequence[str]) -> str:
        return options[next(stream, 0) % len(options)]

    config = {
        "failure": choose(("50", "100", "30", "1", "75")),
        "slow": choose(("100", "50", "60")),
        "over": choose(("1000", "250", "3000")),
        "type": choose(("COUNT_BASED", "TIME_BASED")),
        "size": choose(("4", "1", "2", "3", "7", "10")),
        "min": choose(("1", "2", "3", "4", "8")),
        "probes": choose(("1", "2", "3", "5")),
        "wait": choose(("1000", "125", "5000")),
        "grows": choose(("0", "1")),
        "initial": choose((*["CLOSED"] * 6, *STATES)),
    }
    steps = [_step(choose) for _ in range((len(numbers) - len(config)) // 2)]
    return ";".join([",".join(f"{key}={value}" for key, value in config.items()), *steps])


def _step(choose: Choose) -> str:
    op = choose(OFTEN * 6 + RARELY)
    match op:
        case "a" | "R":
            return op
        case "t":
            return op + choose(("125", "250", "500", "1000", "1125", "2000", "5125", "15000", "60000"))
        case "o":
            return op + choose(("125", "1000", "4000"))
        case "T":
            return op + choose(STATES)
        case _:
            return op + choose("01234567")


# -- ours -----------------------------------------------------------------------------------------------------------


class Ours:
    """One circuit breaker in parity mode, its clock and the calls in flight."""

    def __init__(self, text: str) -> None:
        option = dict(each.split("=") for each in text.split(","))
        size, wait = int(option["size"]), int(option["wait"]) / 1000
        self.clock = FakeClock()
        self.flight: list[r.Permit] = []
        self.events: list[str] = []
        self.breaker = r.CircuitBreaker(
            "x",
            failure_rate=float(option["failure"]),
            slow=r.over(int(option["over"]) / 1000, rate=float(option["slow"])),
            window=r.last(size) if option["type"] == "COUNT_BASED" else r.last(seconds=size),
            min_calls=int(option["min"]),
            half_open=r.probes(int(option["probes"])),
            wait_open=exponential(wait, cap=8 * wait, jitter=0) if option["grows"] == "1" else wait,
            initial_state=r.State(option["initial"]),
            record=(Boom,),
            ignore=(Ignored,),
            fail_result=lambda result: result == "bad",
            parity=True,
            clock=self.clock,
        )
        self.breaker.on(r.Event, self._hear)

    def _hear(self, event: r.Event) -> None:
        moved = f":{event.from_state.value}>{event.to_state.value}" if isinstance(event, r.StateTransition) else ""
        self.events.append(f" {TYPES[type(event)]}{moved}")

    def steps(self, steps: Sequence[str]) -> str:
        return ";".join([self.look(), *(self.step(each[0], each[1:]) + self.look() for each in steps)])

    def step(self, op: str, argument: str) -> str:
        try:
            match op:
                case "a":
                    self.flight.append(self.breaker.permit())
                case "t":
                    self.clock.advance(int(argument) / 1000)
                case "R":
                    self.breaker.reset()
                case "o":
                    self.breaker.transition_to(r.State.OPEN, wait=int(argument) / 1000)
                case "T":
                    self.breaker.transition_to(r.State(argument))
                case _ if self.flight:
                    self.end(op, self.flight.pop(int(argument) % len(self.flight)))
        except r.CallNotPermitted:
            return "refused "
        except r.IllegalTransition:
            return "illegal "
        return ""

    def end(self, op: str, permit: r.Permit) -> None:
        match op:
            case "s":
                permit.success("good")
            case "b":
                permit.success("bad")
            case "r":
                permit.release()
            case _:
                permit.failure({"e": Boom, "i": Ignored, "u": Unrecorded}[op]())

    def look(self) -> str:
        now = self.breaker.statistics()
        numbers = (now.buffered_calls, now.failed_calls, now.slow_calls, now.slow_failed_calls, now.not_permitted_calls)
        shown = f"{now.state.value} {now.failure_rate:.3f} {now.slow_call_rate:.3f} {' '.join(map(str, numbers))}"
        shown += "".join(self.events)
        self.events.clear()
        return shown


def ours(line: str) -> str:
    config, *steps = line.split(";")
    return Ours(config).steps(steps)


def ours_retry(line: str) -> str:
    config, *calls = line.split(";")
    option = dict(each.split("=") for each in config.split(",")[1:])
    clock = FakeClock()
    waits: list[int] = []
    seen: list[str] = []
    retry = r.Retry(
        int(option["attempts"]),
        wait=exponential(int(option["wait"]) / 1000, multiplier=1.5, cap=4.0, jitter=0, whole_ms=True),
        on=(Boom,),
        ignore=(Ignored,),
        retry_result=lambda result: result == "bad",
        fail_after=option["fail"] == "1",
        clock=clock,
    )
    kinds = {
        r.Retrying: "RETRY",
        r.RetriesExhausted: "ERROR",
        r.RetrySucceeded: "SUCCESS",
        r.RetryIgnored: "IGNORED_ERROR",
    }
    retry.on(r.Event, lambda event: seen.append(f" {kinds[type(event)]}"))
    retry.on(r.Retrying, lambda event: waits.append(round(event.wait * 1000)))
    for outcomes in calls:
        made = 0

        def call(outcomes: str = outcomes) -> str:
            nonlocal made
            outcome = outcomes[min(made, len(outcomes) - 1)]
            made += 1
            if outcome in "sb":
                return "good" if outcome == "s" else "bad"
            raise Ignored if outcome == "i" else Boom

        waits.clear()
        try:
            ended = retry.call_plain(call)
        except r.MaxRetriesExceeded:
            ended = "MaxRetriesExceededException"
        except (Boom, Ignored) as error:
            ended = type(error).__name__
        now = retry.statistics()
        counts = (
            now.successful_without_retry,
            now.successful_with_retry,
            now.failed_without_retry,
            now.failed_with_retry,
        )
        seen.append(f" {ended} {made} {waits} {' '.join(map(str, counts))};")
    return "".join(seen)


# -- theirs ---------------------------------------------------------------------------------------------------------


class Theirs:
    """The driver's process."""

    def __init__(self, class_path: str) -> None:
        self._process = subprocess.Popen(
            ["java", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1", "-Xmx256m", "-cp", class_path, "Driver"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def __call__(self, lines: Sequence[str]) -> list[str]:
        """What Resilience4j shows after each step of each sequence."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        seen = []
        for start in range(0, len(lines), 20):  # few enough that neither side waits for a full pipe
            batch = lines[start : start + 20]
            self._process.stdin.write("\n".join([*batch, ""]))
            self._process.stdin.flush()
            seen += [self._process.stdout.readline().rstrip("\n") for _ in batch]
        return seen

    def close(self) -> None:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.close()
        self._process.wait(20)
        self._process.stdout.close()


def class_path() -> str:
    """Jars by Maven and the driver by javac, once; they stay in the cache folder."""
    CACHE.mkdir(parents=True, exist_ok=True)
    source = HERE / "Driver.java"
    with (CACHE / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not (CACHE / "libs").is_dir():
            (CACHE / "pom.xml").write_text(POM)
            run(
                "mvn",
                "-B",
                "-q",
                "-ntp",
                "-f",
                str(CACHE / "pom.xml"),
                "dependency:copy-dependencies",
                f"-DoutputDirectory={CACHE / 'libs.new'}",
            )
            (CACHE / "libs.new").rename(CACHE / "libs")
        jars = ":".join(sorted(map(str, (CACHE / "libs").glob("*.jar"))))
        compiled = CACHE / "classes" / "Driver.class"
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
        pytest.skip(f"the real Resilience4j needs {', '.join(missing)}")
    with contextlib.closing(Theirs(class_path())) as process:
        yield process


def differs(line: str, mine: str, real: str) -> str | None:
    """Where the two part, told step by step; None if they don't. What is meant to differ ends the comparison."""
    steps = ["(begin)", *line.split(";")[1:]]
    for at, (step, my, its) in enumerate(zip(steps, mine.split(";"), real.split(";"), strict=True)):
        if deliberate(its):
            return None
        if my != its:
            before = mine.split(";")[at - 1]
            return f"{line}\nstep {at} {step}\nours         {my}\nResilience4j {its}\nbefore       {before}"
    return None


def deliberate(its: str) -> bool:
    """A result that Resilience4j can't record: it fails with an arithmetic error (see the list of differences)."""
    return its.startswith(("ArithmeticException", "ArrayIndexOutOfBounds"))


# -- the tests ------------------------------------------------------------------------------------------------------


@settings(max_examples=300, deadline=None)
@given(st.lists(st.integers(0, 10_000), min_size=12, max_size=10 + 2 * LENGTH))
def test_generated_sequences(theirs: Theirs, numbers: list[int]) -> None:
    """Whatever hypothesis comes up with, the two show the same after every step."""
    line = sequence(numbers)

    assert differs(line, ours(line), theirs([line])[0]) is None


@pytest.mark.timeout(7200)
def test_random_sequences(theirs: Theirs) -> None:
    """A few thousand random sequences, or as many as asked for, show the same after every step."""
    wanted, seed = int(os.environ.get("SEQUENCES", DEFAULT_SEQUENCES)), int(os.environ.get("SEED", "1"))
    chance, done, steps, started = random.Random(seed), 0, 0, time.monotonic()
    while done < wanted:
        count = min(500, wanted - done)
        lines = [
            sequence([chance.randrange(10_000) for _ in range(10 + 2 * chance.randint(5, LENGTH))])
            for _ in range(count)
        ]
        for line, real in zip(lines, theirs(lines), strict=True):
            assert (found := differs(line, ours(line), real)) is None, f"seed {seed}: {found}"
            steps += line.count(";")
        done += count
    print(f"{done} sequences, {steps} steps, seed {seed}, {time.monotonic() - started:.0f} s: no difference")


@settings(max_examples=300, deadline=None)
@given(
    st.integers(1, 5),
    st.sampled_from([100, 500, 333]),
    st.lists(st.text("sbei", min_size=1, max_size=6), min_size=1, max_size=8),
)
def test_retries(theirs: Theirs, attempts: int, wait: int, calls: list[str]) -> None:
    """Attempts, waits, endings, events and counts of a retry are the same."""
    line = ";".join([f"retry,attempts={attempts},wait={wait},fail=0", *calls])

    assert ours_retry(line) == theirs([line])[0], line


def test_a_result_that_exhausts_is_counted_once(theirs: Theirs) -> None:
    """With failAfterMaxAttempts Resilience4j counts an exhausting result twice and tells it twice; we don't."""
    line = "retry,attempts=1,wait=100,fail=1;b"

    assert ours_retry(line) == " ERROR MaxRetriesExceededException 1 [] 0 0 0 1;"
    assert theirs([line])[0] == " ERROR IGNORED_ERROR MaxRetriesExceededException 1 [] 0 0 1 1;"
