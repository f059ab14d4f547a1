"""Resilience beside its rivals, in one run per Python: `make bench-resilience`. Writes its section of RESULTS.md."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
CACHE = Path(os.environ.get("BACKSTAY_CACHE") or ROOT / ".cache")
RESULTS = ROOT / "benchmarks" / "RESULTS.md"
BEGIN, END = "<!-- resilience: begin -->", "<!-- resilience: end -->"
PYTHONS = ("3.11", "3.13")
POLICIES = ("retry", "bulkhead", "rate limiter", "time limiter", "five layers")
BOUNDS = {  # µs over a bare await, and how many times faster than the best rival with the same features
    "closed": (1.0, 3.0),
    "closed, dirty window": (None, None),
    "closed, time window 60 s": (None, None),
    "closed, threads": (2.0, None),
    "failing": (1.8, None),
    "refused": (1.2, None),  # absolute
    "five layers": (3.0, 4.0),
}


def environment(version: str) -> Path | None:
    """A Python of that version with the rivals; None if the machine has none."""
    home = CACHE / f"rivals-{version}"
    python = home / "bin" / "python"
    if not python.exists():
        found = shutil.which(f"python{version}")
        if found is None or subprocess.run([found, "--version"], capture_output=True, check=False).returncode:
            return None
        subprocess.run([found, "-m", "venv", str(home)], check=True)
    subprocess.run([str(python), "-m", "pip", "install", "-q", "-r", "benchmarks/rivals.txt"], check=True, cwd=ROOT)
    return python


def run(python: Path, slices: int) -> dict[str, Any]:
    """What `benchmarks.rivals` measures there."""
    settings = {**os.environ, "PYTHONPATH": f"{ROOT / 'src'}:{ROOT}"}
    argv = [str(python), "-W", "ignore", "-m", "benchmarks.rivals", str(slices)]
    done = subprocess.run(argv, cwd=ROOT, env=settings, stdout=subprocess.PIPE, text=True, check=True, timeout=900)
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def section(runs: list[dict[str, Any]]) -> str:
    """The section as Markdown."""
    pythons = " / ".join(run["python"] for run in runs)
    bare = " / ".join(f"{run['times']['bare await']:.0f}" for run in runs)
    lines = [
        BEGIN,
        "## Resilience",
        "",
        f"`make bench-resilience`, CPython {pythons}. Nanoseconds over a bare await ({bare} ns), the median of",
        "paired slices in one run; *failing* is over the bare failing call, *refused* is absolute with the caller's",
        f"try/except. Load average {os.getloadavg()[0]:.0f} on {os.cpu_count()} cores.",
        "",
        "| what | bound, µs | measured, ns | best rival with the same features, ns | |",
        "|---|---|---:|---:|---|",
    ]
    lines += [_bounded(case, *bounds, runs) for case, bounds in BOUNDS.items()]
    lines += [
        _memory(runs, "memory of a breaker, its window of 100 full", "breaker", "≤ 2.5 KB"),
        _memory(runs, "the same with the function that it guards", "both", "–"),
    ]
    lines += ["", "| library | breaker | closed | failing | refused | " + " | ".join(POLICIES) + " |"]
    lines += ["|---|---|" + "---:|" * (3 + len(POLICIES))]
    versions = {"Backstay": "", **runs[0]["versions"]}
    for name in [*versions, "asyncio"]:
        if any(name in run["times"] for run in runs):
            title = f"**{name}**" if name == "Backstay" else f"{name} {versions.get(name, '(standard library)')}"
            cells = [_cell(runs, name, case) for case in ("closed", "failing", "refused", *POLICIES)]
            lines.append(f"| {title} | {runs[0]['kinds'].get(name, '–')} | {' | '.join(cells)} |")
    lines += ["", "What a breaker with three half-open probes does, each seen by running it:", ""]
    cases = list(runs[0]["behaviour"]["Backstay"])
    lines += ["| | " + " | ".join(cases) + " |", "|---|" + "---|" * len(cases)]
    for name, seen in runs[0]["behaviour"].items():
        if seen["1000 callers, 3 probes"] == "1000":
            seen = {**seen, "hung trials": "no limit"}
        lines.append(f"| {name} | " + " | ".join(seen[case] for case in cases) + " |")
    return "\n".join([*lines, END, ""])


def _cell(runs: list[dict[str, Any]], name: str, case: str) -> str:
    found = [run["times"].get(name, {}).get(case) for run in runs]
    return " / ".join("–" if each is None else str(each) for each in found) if any(found) else "–"


def _bounded(case: str, most: float | None, faster: float | None, runs: list[dict[str, Any]]) -> str:
    """A row: the bounds of a case, what was measured, the best rival, and whether each bound holds in each run."""
    rivals, missed = [], []
    for run_ in runs:
        same = [name for name, kind in run_["kinds"].items() if "slow rate" in kind and name != "Backstay"]
        found = {name: run_["times"].get(name, {}).get(case.split(",")[0]) for name in same}
        value, name = min((value, name) for name, value in found.items() if value is not None)
        rivals.append(f"{value} ({name})")
        ours = run_["times"].get("Backstay", {}).get(case)
        if ours is None or (most is not None and ours > most * 1000) or (faster is not None and value < faster * ours):
            missed.append(run_["python"])
    bound = "–" if most is None else f"≤ {most}" + (" (absolute)" if case == "refused" else "")
    bound += "" if faster is None else f", ≥ {faster:g} × faster"
    held = "–" if most is None else "missed on " + ", ".join(missed) if missed else "held"
    return f"| {case} | {bound} | {_cell(runs, 'Backstay', case)} | {' / '.join(rivals)} | {held} |"


def _memory(runs: list[dict[str, Any]], what: str, part: str, bound: str) -> str:
    ours = " / ".join(f"{run['memory'][part] / 1000:.1f} KB" for run in runs)
    return f"| {what} | {bound} | {ours} | – | – |"


def write(text: str) -> None:
    """Put the section into RESULTS.md, in place of its former self; the rest of the file stays."""
    old = RESULTS.read_text() if RESULTS.exists() else "# Results\n\nMeasured here, by the commands named.\n\n"
    if BEGIN in old:
        before, rest = old.split(BEGIN, 1)
        RESULTS.write_text(before + text + rest.split(END, 1)[1].removeprefix("\n"))
    else:
        RESULTS.write_text(old.rstrip("\n") + "\n\n" + text)


def main() -> None:
    """Measure with every Python that is there, print and write the section."""
    slices = int(sys.argv[1]) if len(sys.argv) > 1 else 40
    runs = []
    for version in PYTHONS:
        python = environment(version)
        if python is None:
            print(f"no Python {version} here: left out")
        else:
            runs.append(run(python, slices))
    if not runs:
        sys.exit("none of the Pythons to measure with is here")
    text = section(runs)
    print(text)
    write(text)


if __name__ == "__main__":
    main()
