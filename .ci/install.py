"""Make or renew `.venv` from requirements.lock: hashes checked, nothing resolved, and a line that says how far it is.

Run by `make` with any Python ≥ 3.11; stands on the standard library alone.
"""

import subprocess
import sys
import time
import venv
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
VENV = ROOT / ".venv"
LOCK = ROOT / "requirements.lock"
STAMP = VENV / "installed"
LOG = VENV / "install.log"
PIP = [str(VENV / "bin" / "python"), "-m", "pip", "--disable-pip-version-check", "--no-input"]


def main() -> int:
    """Install; returns the exit status."""
    started = time.monotonic()
    total = sum("==" in line and not line.startswith((" ", "#")) for line in LOCK.read_text().splitlines())
    show(f"Python {sys.version.split()[0]}: making .venv")
    if not (VENV / "bin" / "python").exists():
        venv.create(VENV, with_pip=True)
    LOG.write_text("")
    steps = (
        ["install", "--require-hashes", "--no-deps", "-r", str(LOCK)],
        ["install", "--no-deps", "--no-build-isolation", "-e", str(ROOT)],
    )
    for step in steps:
        if status := run([*PIP, *step], total, started):
            finish(f"the installation failed; the end of {LOG}:\n{tail()}")
            return status
    STAMP.touch()
    finish(f"installed {total} packages from requirements.lock in {time.monotonic() - started:.0f} s")
    return 0


def run(command: list[str], total: int, started: float) -> int:
    """Run pip, its output to the log, and show which package it is at."""
    at = 0
    with LOG.open("a") as log, subprocess.Popen(command, stdout=subprocess.PIPE, stderr=log, text=True) as pip:  # noqa: S603
        for line in pip.stdout or ():
            log.write(line)
            words = line.split()
            if line.startswith("Collecting") and len(words) > 1:
                at += 1
                show(f"fetching {min(at, total)} of {total}: {words[1]}  ({time.monotonic() - started:.0f} s)")
            elif line.startswith("Installing collected"):
                show(f"unpacking {total} packages  ({time.monotonic() - started:.0f} s)")
    return pip.returncode


def show(text: str) -> None:
    """On a terminal one line that changes; elsewhere nothing until the end."""
    if sys.stdout.isatty():
        sys.stdout.write(f"\r\033[K  … {text}"[:118])
        sys.stdout.flush()


def finish(text: str) -> None:
    """The last line."""
    sys.stdout.write(("\r\033[K" if sys.stdout.isatty() else "") + f"  {text}\n")


def tail() -> str:
    """The end of pip's output."""
    return "\n".join(LOG.read_text().splitlines()[-15:])


if __name__ == "__main__":
    sys.exit(main())
