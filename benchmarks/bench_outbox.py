"""The outbox and its relays on Apache Kafka, with Debezium on the same table, broker and machine in the same run.

    make bench-outbox                                       all of it
    make bench-outbox ARGS="drain latency --runs 3"         some sections: their rows of RESULTS.md are replaced

Events have 300 bytes and ten headers; acks=all, idempotent producers, one broker, six partitions. Each relay is a
process of its own; its CPU and memory are the kernel's figures for it. Rates come from the topic's watermarks. The
consumer's rows are those of `bench_consumer.py`.
"""

import argparse
import json
import os
import platform
import statistics
import subprocess
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import debezium
import outbox_stage
from backstay.dev import apache
from outbox_stage import PARTITIONS, Drain, Running, Stage, paused, rates

ROOT = Path(__file__).resolve().parents[1]
CACHE = Path(os.environ.get("BACKSTAY_CACHE") or ROOT / ".cache") / "bench-outbox.json"
RESULTS = ROOT / "benchmarks" / "RESULTS.md"
BEGIN, END = "<!-- outbox: begin -->", "<!-- outbox: end -->"
TIMEOUT = 240.0  # seconds a backlog may take
LEAD = 2  # seconds at a steady rate before latencies count
KINDS = ("polling", "wal", "debezium")


def start(stage: Stage, kind: str, name: str) -> Running:
    """A relay of that kind, which has published one event."""
    topic = stage.topic()
    one = stage.debezium(name) if kind == "debezium" else stage.relay(name, wal=kind == "wal")
    stage.fill(name, topic, 1, whole=True)
    stage.watch(topic).until(1, 60.0)
    return one


def measure(stage: Stage, one: Running, name: str, topic: str, events: int) -> Drain:
    """What it takes from the first event to the last."""
    before, cpu = stage.counters(name), list[float]()
    seen = stage.watch(topic).until(events, TIMEOUT, lambda: cpu.append(one.cpu()))
    used = (one.cpu() - cpu[0]) / max(1, events - seen[0][1])
    time.sleep(0.5)  # the last deletion
    counted = zip(stage.counters(name), before, strict=True)
    return Drain(*rates(seen), used * 1e6, one.peak(), *((new - old) / events for new, old in counted))


def drain_once(stage: Stage, kind: str, events: int, *, rate: int = 0, whole: bool = False) -> Drain:
    """A backlog and a relay that starts; `rate`: events a second that writers commit meanwhile."""
    name, topic, other = stage.database(emptied=kind == "wal"), stage.topic(), stage.topic()
    stage.fill(name, topic, events, whole=whole)
    writer = None
    if rate:
        writer = stage.worker("writer", dsn=stage.dsn(name), topic=other, rate=rate, seconds=8)
        time.sleep(1.0)
    one = stage.relay(name, wal=kind == "wal")
    try:
        return measure(stage, one, name, topic, events)
    finally:
        if writer is not None:
            writer.wait(60)
        one.stop()
        stage.verify(topic, events)
        stage.drop(name)


def drain_debezium(stage: Stage, events: int, runs: int, *, rate: int, whole: bool = False) -> list[Drain]:
    """The same backlog again and again, by one Debezium: cold at first, then warm."""
    name = stage.database()
    one, found = start(stage, "debezium", name), []
    try:
        for _ in range(runs):
            topic, other, writer = stage.topic(), stage.topic(), None
            with paused(one):
                stage.fill(name, topic, events, whole=whole)
            if rate:
                writer = stage.worker("writer", dsn=stage.dsn(name), topic=other, rate=rate, seconds=8)
            found.append(measure(stage, one, name, topic, events))
            if writer is not None:
                writer.wait(60)
            stage.sql(name, "TRUNCATE outbox")
    finally:
        one.stop()
        stage.drop(name)
    return found


def median(values: Sequence[float]) -> float:
    """Of the runs."""
    return statistics.median(values)


def spread(values: Sequence[float], digits: int = 0) -> str:
    """The median, and all runs."""
    shown = ", ".join(f"{value:,.{digits}f}" for value in values)
    return f"{median(values):,.{digits}f} ({shown})" if len(values) > 1 else shown


Rows = dict[str, list[str]]  # what → bound, measured, Debezium


def section_drain(stage: Stage, arguments: argparse.Namespace) -> Rows:
    """Polling, with writers still writing; and what it costs the database, without them."""
    found = [drain_once(stage, "polling", arguments.events, rate=1000) for _ in range(arguments.runs)]
    quiet = drain_once(stage, "polling", arguments.events)
    return {
        "drain, polling, writers still writing, events/s": ["≥ 50,000", spread([one.rate for one in found]), ""],
        "CPU of the polling relay, µs an event": ["≤ 18", spread([one.cpu for one in found], 1), ""],
        "database while draining by polling: statements / dead tuples / WAL bytes an event": [
            "≤ 0.01 / ≤ 1.1 / –",
            f"{quiet.statements:.4f} / {quiet.dead:.3f} / {quiet.wal:.0f}",
            "",
        ],
    }


def section_wal(stage: Stage, arguments: argparse.Namespace) -> Rows:
    """The log, the table being emptied at once: nothing can be read from it."""
    found = [drain_once(stage, "wal", arguments.events, rate=1000) for _ in range(arguments.runs)]
    return {
        "drain, WAL, writers still writing, events/s": ["≥ 50,000", spread([one.rate for one in found]), ""],
        "CPU of the WAL relay, µs an event": ["≤ 18", spread([one.cpu for one in found], 1), ""],
    }


def section_debezium(stage: Stage, arguments: argparse.Namespace) -> Rows:
    """Debezium's drains: the first one cold, the rest warm."""
    cold, *warm = drain_debezium(stage, arguments.events, arguments.runs + 1, rate=1000)
    return {
        "drain, Debezium, events/s": ["", "", f"{spread([one.rate for one in warm])}, cold {cold.rate:,.0f}"],
        "CPU of Debezium, µs an event": ["", "", f"{spread([one.cpu for one in warm], 1)}, cold {cold.cpu:,.0f}"],
        "memory of Debezium while draining, MB": ["", "", f"{max(one.peak for one in warm):,.0f}"],
    }


def section_latency(stage: Stage, arguments: argparse.Namespace) -> Rows:
    """From the answer to COMMIT to the consumer, at 1,000 events a second."""
    rows: Rows = {}
    bounds = {"polling": "p50 < 3, p99 < 30", "wal": "p50 < 2, p99 < 20", "debezium": ""}
    for kind in arguments.kinds:
        name = stage.database()
        one = start(stage, kind, name)
        latency(stage, one, name, 15 if kind == "debezium" else 6)  # the broker is cold too, and must have met readers
        found = [latency(stage, one, name, arguments.seconds) for _ in range(arguments.runs)]
        one.stop()
        stage.drop(name)
        shown = f"p50 {spread([each[0] for each in found], 1)}, p99 {spread([each[1] for each in found], 1)}"
        rows[f"commit → consumed at 1,000/s, {kind}, ms"] = [bounds[kind], *place(kind, shown)]
        cost = f"{median([each[2] for each in found]):.2f} / {median([each[3] for each in found]):.1f}"
        bound = "" if kind == "debezium" else "≤ 0.4 / –"
        rows[f"at 1,000/s, {kind}: statements an event / CPU % of the relay"] = [bound, *place(kind, cost)]
    return rows


def place(kind: str, text: str) -> list[str]:
    """In the column of ours or of Debezium."""
    return ["", text] if kind == "debezium" else [text, ""]


def latency(stage: Stage, one: Running, name: str, seconds: int) -> tuple[float, float, float, float]:
    """p50 and p99 in ms, statements an event, CPU in percent; after `LEAD` seconds at that rate.

    Until then a polling relay that has found nothing for a while may still sleep (`max_idle`): nobody nudges it here.
    """
    topic, events = stage.topic(), (LEAD + seconds) * 1000
    reader = stage.worker(
        "consumer", kafka=stage.node.bootstrap, topic=topic, partitions=PARTITIONS, events=events, seconds=seconds + 30
    )
    time.sleep(1.5)
    before, cpu, began = stage.counters(name), one.cpu(), time.monotonic()
    written = dict(
        stage.worker("writer", dsn=stage.dsn(name), topic=topic, rate=1000, seconds=LEAD + seconds).wait(seconds + 60)
    )
    lasted, used, after = time.monotonic() - began, one.cpu() - cpu, stage.counters(name)
    read = dict(reversed(reader.wait(60)))
    assert len(read) == events, f"{len(read)} of {events} events came"
    waits = sorted(max(0.0, (read[n] - committed) * 1000) for n, committed in written.items() if n >= LEAD * 1000)
    statements = (after[0] - before[0] - events) / events
    return median(waits), waits[int(len(waits) * 0.99)], statements, used / lasted * 100


def section_memory(stage: Stage, arguments: argparse.Namespace) -> Rows:
    """A large backlog, and one large transaction."""
    rows: Rows = {}
    for kind in arguments.kinds:
        if kind == "debezium":
            found = drain_debezium(stage, arguments.backlog, 1, rate=0)[0]
            whole = drain_debezium(stage, arguments.whole, 1, rate=0, whole=True)[0]
        else:
            found = drain_once(stage, kind, arguments.backlog)
            whole = drain_once(stage, kind, arguments.whole, whole=True)
        bound = "" if kind == "debezium" else "< 120, same rate at the end"
        for what, one in ((f"{arguments.backlog:,} events waiting", found), (f"one of {arguments.whole:,}", whole)):
            text = f"{one.peak:,.0f} MB; {one.rate:,.0f}/s (first fifth {one.first:,.0f}, last {one.last:,.0f})"
            rows[f"memory, {kind}, {what}"] = [bound, *place(kind, text)]
    return rows


def section_start(stage: Stage, arguments: argparse.Namespace) -> Rows:
    """From the process's start to the first event in the topic."""
    rows: Rows = {}
    for kind in arguments.kinds:
        found = []
        for _ in range(arguments.runs):
            name, topic = stage.database(emptied=kind == "wal"), stage.topic()
            stage.fill(name, topic, 1, whole=True)
            one = stage.debezium(name) if kind == "debezium" else stage.relay(name, wal=kind == "wal")
            seen = stage.watch(topic).until(1, 60.0)
            found.append(seen[0][0] - one.born)
            one.stop()
            stage.drop(name)
        bound = "" if kind == "debezium" else "< 1"
        rows[f"start to first event, {kind}, s"] = [bound, *place(kind, spread(found, 2))]
    return rows


def section_append(stage: Stage, arguments: argparse.Namespace) -> Rows:
    """What an append adds to a transaction, in the client's CPU."""
    name = stage.database()
    found = stage.worker("appends", name=name, dsn=stage.dsn(name), events=2000, runs=arguments.runs).wait(200)
    stage.drop(name)
    return {"append, client CPU beyond the business statements, µs": ["≤ 60", spread(found, 1), ""]}


def section_several(stage: Stage, arguments: argparse.Namespace) -> Rows:
    """One, two and four relays on a backlog."""
    rows: Rows = {}
    for relays in (1, 2, 4):
        name, topic = stage.database(), stage.topic()
        ours = [stage.relay(name, relay=f"relay-{n}") for n in range(relays)]
        time.sleep(4.0)  # the shards are shared
        stage.fill(name, topic, arguments.events * 2)
        seen = stage.watch(topic).until(arguments.events * 2, TIMEOUT)
        published = [one.stop()["published"] for one in ours]
        distinct, repeats = stage.verify(topic, arguments.events * 2)
        share = " / ".join(f"{part / sum(published):.0%}" for part in published)
        text = f"{rates(seen)[0]:,.0f} events/s while they are written; shares {share}; {distinct:,} in order"
        text += f", {repeats} repeated" if repeats else ""
        rows[f"{relays} polling relay{'s' if relays > 1 else ''}"] = ["order proven", text, ""]
        stage.drop(name)
    return rows


SECTIONS = {
    "drain": section_drain,
    "wal": section_wal,
    "debezium": section_debezium,
    "latency": section_latency,
    "memory": section_memory,
    "start": section_start,
    "append": section_append,
    "several": section_several,
}


def environment() -> str:
    """Where this was measured."""
    versions = f"CPython {platform.python_version()}, Apache Kafka {apache.VERSION}, Debezium {debezium.VERSION}"
    commit = subprocess.run(["git", "rev-parse", "--short", "HEAD"], capture_output=True, text=True, check=False).stdout
    load = " ".join(f"{value:.1f}" for value in os.getloadavg())
    busy = " before the start: **a busy machine**, compare with each other only" if os.getloadavg()[0] > 1.0 else ""
    return f"{time.strftime('%d %B %Y %H:%M')}, {commit.strip()}, {versions}, {os.cpu_count()} cores, load {load}{busy}"


def write(known: dict[str, Any]) -> str:
    """The section of RESULTS.md with all that is known."""
    lines = [BEGIN, "## Outbox", "", "`make bench-outbox`. Medians, in brackets every run.", ""]
    for name in SECTIONS:
        if name not in known:
            continue
        lines += [
            f"*{name}*: {known[name]['where']}",
            "",
            "| what | bound | measured | Debezium |",
            "|---|---|---|---|",
        ]
        lines += [f"| {' | '.join([what, *cells])} |" for what, cells in known[name]["rows"].items()]
        lines.append("")
    text = "\n".join([*lines, END])
    old = RESULTS.read_text(encoding="utf-8")
    if BEGIN in old:
        before, after = old.split(BEGIN)[0], old.split(END)[1]
        RESULTS.write_text(before + text + after, encoding="utf-8")
    else:
        RESULTS.write_text(old.rstrip() + "\n\n" + text + "\n", encoding="utf-8")
    return text


def options() -> argparse.Namespace:
    """From the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("sections", nargs="*", help=", ".join(SECTIONS))
    parser.add_argument("--events", type=int, default=200_000, help="of a backlog")
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--seconds", type=int, default=15, help="of a run at 1,000 events a second")
    parser.add_argument("--backlog", type=int, default=1_000_000, help="events for the memory")
    parser.add_argument("--whole", type=int, default=1_000_000, help="events of one transaction")
    parser.add_argument("--kinds", nargs="*", choices=KINDS, default=list(KINDS))
    found = parser.parse_args()
    if unknown := set(found.sections) - set(SECTIONS):
        parser.error(f"unknown sections: {', '.join(sorted(unknown))}")
    if not debezium.is_available():
        found.kinds = [kind for kind in found.kinds if kind != "debezium"]
    return found


def main() -> None:
    """Measure, print, and write down."""
    arguments = options()
    known: dict[str, Any] = json.loads(CACHE.read_text()) if CACHE.exists() else {}
    with outbox_stage.running() as stage:
        for name in arguments.sections or SECTIONS:
            if name == "debezium" and "debezium" not in arguments.kinds:
                continue
            where = environment()
            rows = SECTIONS[name](stage, arguments)
            kept = known.get(name, {}).get("rows", {}) if arguments.sections else {}
            known[name] = {"where": where, "rows": {**kept, **rows}}
            for what, cells in rows.items():
                print(f"{what}: {' | '.join(cells)}", flush=True)
            CACHE.parent.mkdir(parents=True, exist_ok=True)
            CACHE.write_text(json.dumps(known))
    write(known)


if __name__ == "__main__":
    main()
