"""Make or renew `.venv` from requirements.lock: hashes checked, nothing resolved, and a line that shows the progress.

Run by `make` with any Python ≥ 3.11; needs the standard library alone. The environment is built as `.venv.new` and
renamed when it is complete, so what is called `.venv` is always whole. One installation at a time runs in a checkout,
and its child processes end with it.

uv installs the packages: it is fetched first, by pip, with the hashes of the lock. Where that fails, pip installs
everything. Both use the indexes and certificates that pip is configured for on this machine.
"""

import signal

SIGNALS = tuple(
    number
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
    if number != signal.SIGHUP or signal.getsignal(number) != signal.SIG_IGN  # as nohup sets it
)
if __name__ == "__main__":
    for _number in SIGNALS:
        signal.signal(_number, signal.SIG_DFL)  # until `main` handles them: an end without a traceback

import ast  # noqa: E402
import contextlib  # noqa: E402
import ctypes  # noqa: E402
import fcntl  # noqa: E402
import importlib.util  # noqa: E402
import os  # noqa: E402
import re  # noqa: E402
import selectors  # noqa: E402
import shutil  # noqa: E402
import subprocess  # noqa: E402
import sys  # noqa: E402
import time  # noqa: E402
import venv  # noqa: E402
from collections.abc import Callable, Iterator, Mapping  # noqa: E402
from pathlib import Path  # noqa: E402
from typing import NoReturn  # noqa: E402

ROOT = Path(__file__).resolve().parents[1]
VENV = ROOT / ".venv"
NEW = ROOT / ".venv.new"
OLD = ROOT / ".venv.old"
STAMP = "installed"
INPUTS = (ROOT / "requirements.lock", ROOT / "pyproject.toml")
LOCK = INPUTS[0]
PYTHON = NEW / "bin" / "python"
LOG = NEW / "install.log"

PATIENCE = 1.0  # seconds between SIGTERM and SIGKILL to a child
TICK = 0.2  # seconds between two updates of the progress line
PR_SET_PDEATHSIG = 1  # <sys/prctl.h>
OFFLINE_BACKEND = ("--no-deps", "--no-build-isolation", "-e", str(ROOT))

HEADER = re.compile(rb"#!(/bin/sh\n'''exec' [^\n]*\n' '''|[^\n]*/python[0-9.]*)\n")
"""How installers begin a console script: the interpreter's path, by way of a shell where that is long or has spaces."""
RELATIVE_HEADER = b"""#!/bin/sh
'''exec' "$(dirname -- "$0")/python" "$0" "$@"
' '''
"""
UV_NAMES = {
    "index-url": "UV_DEFAULT_INDEX",
    "extra-index-url": "UV_INDEX",
    "find-links": "UV_FIND_LINKS",
    "no-index": "UV_NO_INDEX",
    "trusted-host": "UV_INSECURE_HOST",
    "cert": "SSL_CERT_FILE",
    "client-cert": "SSL_CLIENT_CERT",
    "proxy": "ALL_PROXY",
    "timeout": "UV_HTTP_TIMEOUT",
    "default-timeout": "UV_HTTP_TIMEOUT",
}
"""pip's settings, and uv's variables of the same meaning."""


class Interrupted(Exception):
    """A signal asked the installation to end; the argument is its number."""


class Failed(Exception):
    """The installation can't go on; the message says why."""


def main() -> int:
    """Install; returns the exit status."""
    for number in SIGNALS:
        signal.signal(number, _interrupt)
    try:
        with _one_at_a_time():
            if is_fresh():
                return 0
            install()
    except Interrupted as caught:
        for number in SIGNALS:
            signal.signal(number, signal.SIG_IGN)
        _finish("interrupted: .venv is as it was; run make again")
        return 128 + int(caught.args[0])
    except (Failed, OSError) as error:
        _finish(f"the installation failed: {error}")
        return 1
    return 0


def install() -> None:
    """Build a new environment and put it in the place of the old one."""
    started, total = time.monotonic(), len(_locked())
    progress = Progress(started)
    progress.show(f"Python {sys.version.split()[0]}: making .venv")
    shutil.rmtree(NEW, ignore_errors=True)
    venv.create(NEW, symlinks=True)
    LOG.write_text("")
    pip = _pip()
    installer = _with_uv(pip, progress, total) or _with_pip(pip, progress, total)
    relocate(NEW, VENV)
    (NEW / STAMP).touch()
    replace()
    _finish(f"installed {total} packages from requirements.lock by {installer} in {time.monotonic() - started:.0f} s")


def is_fresh() -> bool:
    """Return whether `.venv` is complete and newer than what it is made from."""
    with contextlib.suppress(FileNotFoundError):
        made = (VENV / STAMP).stat().st_mtime
        return (VENV / "bin" / "python").exists() and all(path.stat().st_mtime <= made for path in INPUTS)
    return False


def replace() -> None:
    """Rename the new environment into its place; the old one goes afterwards."""
    shutil.rmtree(OLD, ignore_errors=True)
    signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)  # between two renames there is no environment
    try:
        if VENV.is_symlink():
            VENV.unlink()
        elif VENV.exists():
            VENV.rename(OLD)
        NEW.rename(VENV)
    finally:
        signal.pthread_sigmask(signal.SIG_UNBLOCK, SIGNALS)
    shutil.rmtree(OLD, ignore_errors=True)


def relocate(made: Path, final: Path) -> None:
    """Make an environment usable in another folder beside the one that it was made in, whatever the path contains.

    Console scripts find their interpreter beside them; elsewhere the last part of the path is replaced, for what
    precedes it may be quoted for a shell.
    """
    for script in [*(made / "bin").iterdir(), made / "pyvenv.cfg"]:
        if script.is_symlink() or not script.is_file():
            continue
        content = script.read_bytes()
        if header := HEADER.match(content):
            script.write_bytes(RELATIVE_HEADER + content[header.end() :])
        elif b"\0" not in content and made.name.encode() in content:
            script.write_bytes(content.replace(made.name.encode(), final.name.encode()))


def _with_uv(pip: list[str], progress: "Progress", total: int) -> str | None:
    """Install by uv; None if it can't be had or doesn't manage."""
    wanted = [block for block in _locked() if block.startswith("uv==")]
    if not wanted:
        return None
    only_uv = NEW / "uv.txt"
    only_uv.write_text("".join(wanted))
    environment = {**os.environ, **uv_environment(_pip_settings(pip), os.environ)}
    uv = [str(NEW / "bin" / "uv"), "pip", "install", "--python", str(PYTHON), "--no-progress"]
    steps = (
        ("fetching uv", [*pip, "install", "--require-hashes", "--no-deps", "-r", str(only_uv)], dict(os.environ)),
        (f"installing {total} packages", [*uv, "--require-hashes", "--no-deps", "-r", str(LOCK)], environment),
        ("installing backstay", [*uv, *OFFLINE_BACKEND], environment),
    )
    for text, command, env in steps:
        if _run(command, env, lambda _line, text=text: text, progress):  # type: ignore[misc]
            progress.show("uv isn't usable here; pip goes on")
            return None
    return "uv"


def _with_pip(pip: list[str], progress: "Progress", total: int) -> str:
    """Install by pip."""
    at = 0

    def step(line: str) -> str:
        nonlocal at
        if line.startswith("Installing collected"):
            return f"unpacking {total} packages"
        if line.startswith("Collecting"):
            at += 1
        return f"fetching {min(at, total)} of {total}"

    for arguments in (["--require-hashes", "--no-deps", "-r", str(LOCK)], OFFLINE_BACKEND):
        if _run([*pip, "install", *arguments], dict(os.environ), step, progress):
            raise Failed(f"the end of what pip said:\n{_tail()}")
    return "pip"


def _pip() -> list[str]:
    """Return the command for a pip that installs into the new environment: this Python's, or one of its own."""
    options = ["--disable-pip-version-check", "--no-input"]
    found = importlib.util.find_spec("pip")
    if found and found.origin and (runner := Path(found.origin).with_name("__pip-runner__.py")).exists():
        return [str(PYTHON), str(runner), *options]  # what `pip --python` starts; without a process of its own between
    if _run([str(PYTHON), "-m", "ensurepip"], dict(os.environ), lambda _line: "making pip", Progress(time.monotonic())):
        raise Failed(
            f"{sys.executable} has neither pip nor ensurepip. Install them (on Debian and Ubuntu: the packages "
            "python3-venv and python3-pip), then run make again"
        )
    return [str(PYTHON), "-m", "pip", *options]


def _pip_settings(pip: list[str]) -> dict[str, str]:
    """Return pip's settings for installing: its files, then the environment, the later over the earlier."""
    asked = subprocess.run([*pip, "config", "list"], capture_output=True, text=True, check=False)  # noqa: S603
    return read_pip_settings(asked.stdout)


def read_pip_settings(text: str) -> dict[str, str]:
    """Read the output of `pip config list`: lines such as `global.index-url='https://…'`."""
    sections: dict[str, dict[str, str]] = {"global": {}, "install": {}, ":env:": {}}
    for line in text.splitlines():
        key, _, value = line.partition("=")
        section, _, name = key.partition(".")
        with contextlib.suppress(ValueError, SyntaxError):
            if section in sections:
                sections[section][name] = str(ast.literal_eval(value))
    return sections["global"] | sections["install"] | sections[":env:"]


def uv_environment(settings: Mapping[str, str], environ: Mapping[str, str]) -> dict[str, str]:
    """Return the variables that give uv what pip is configured for; what is set for uv already stays."""
    told = {variable: settings[name] for name, variable in UV_NAMES.items() if settings.get(name)}
    for variable, separator in (("UV_INDEX", " "), ("UV_FIND_LINKS", ","), ("UV_INSECURE_HOST", " ")):
        if variable in told:
            told[variable] = separator.join(told[variable].split())
    # As pip does: the best version of all indexes, kept safe by the hashes.
    told |= {"UV_INDEX_STRATEGY": "unsafe-best-match", "UV_PYTHON_DOWNLOADS": "never"}
    old = {"UV_DEFAULT_INDEX": "UV_INDEX_URL", "UV_INDEX": "UV_EXTRA_INDEX_URL"}
    return {name: value for name, value in told.items() if name not in environ and old.get(name, name) not in environ}


def _locked() -> list[str]:
    """Return the lock's packages, each with its hashes."""
    blocks: list[str] = []
    for line in LOCK.read_text().splitlines(keepends=True):
        if "==" in line and not line.startswith((" ", "#")):
            blocks.append(line)
        elif blocks and not line.lstrip().startswith("#"):
            blocks[-1] += line
    return blocks


def _run(command: list[str], env: dict[str, str], step: Callable[[str], str], progress: "Progress") -> int:
    """Run a child to its end, its output to the log; it ends with us, whatever ends us. Returns its status."""
    parent = os.getpid()
    with LOG.open("a") as log:
        log.write(f"$ {' '.join(command)}\n")
        child = subprocess.Popen(  # noqa: S603
            command,
            env=env,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            start_new_session=True,
            preexec_fn=lambda: _end_with(parent),  # noqa: PLW1509 - one thread
        )
        try:
            _follow(child, log.write, step, progress)
            return child.wait()
        except BaseException:
            _end(child)
            raise
        finally:
            assert child.stdout
            child.stdout.close()


def _follow(
    child: subprocess.Popen[bytes], write: Callable[[str], object], step: Callable[[str], str], progress: "Progress"
) -> None:
    """Copy the child's output and keep the progress line moving until the output ends."""
    assert child.stdout
    text, rest = step(""), b""
    with selectors.DefaultSelector() as selector:
        selector.register(child.stdout, selectors.EVENT_READ)
        while True:
            progress.show(text)
            if not selector.select(TICK):
                continue
            chunk = os.read(child.stdout.fileno(), 65536)
            if not chunk:
                return
            *lines, rest = (rest + chunk).split(b"\n")
            for line in (line.decode(errors="replace") for line in lines):
                write(line + "\n")
                text = step(line)


def _end_with(parent: int) -> None:
    """In the child: ask the kernel for SIGKILL when the installer is gone (Linux; elsewhere only `_end` ends it)."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
        if os.getppid() != parent:
            os._exit(1)


def _end(child: subprocess.Popen[bytes]) -> None:
    """End a child and what it started."""
    for number in (signal.SIGTERM, signal.SIGKILL):
        with contextlib.suppress(ProcessLookupError):
            os.killpg(child.pid, number)
        with contextlib.suppress(subprocess.TimeoutExpired):
            child.wait(PATIENCE)
            return


@contextlib.contextmanager
def _one_at_a_time() -> Iterator[None]:
    """Hold the checkout's lock, the kernel's: it is free when its holder is gone."""
    folder = os.open(ROOT, os.O_RDONLY)
    try:
        try:
            fcntl.flock(folder, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            sys.stdout.write("  another make installs into .venv: waiting until it is done\n")
            sys.stdout.flush()
            fcntl.flock(folder, fcntl.LOCK_EX)
        yield
    finally:
        os.close(folder)


def _interrupt(number: int, _frame: object) -> NoReturn:
    raise Interrupted(number)


class Progress:
    """The progress line: on a terminal one line that changes, elsewhere nothing."""

    def __init__(self, started: float) -> None:
        self._started = started

    def show(self, text: str) -> None:
        """Replace the line, with the seconds so far."""
        if sys.stdout.isatty():
            sys.stdout.write(f"\r\033[K  … {text[:90]}  ({time.monotonic() - self._started:.0f} s)")
            sys.stdout.flush()


def _finish(text: str) -> None:
    """Write the last line."""
    sys.stdout.write(("\r\033[K" if sys.stdout.isatty() else "") + f"  {text}\n")
    sys.stdout.flush()


def _tail() -> str:
    """Return the end of the log."""
    return "\n".join(LOG.read_text(errors="replace").splitlines()[-15:])


if __name__ == "__main__":
    sys.exit(main())
