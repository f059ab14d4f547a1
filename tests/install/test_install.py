"""The installation of a checkout: whole or not at all, one at a time, nothing left running.

Each test has a checkout of its own with one tiny package, so that it needs no network: pip does the work here. That uv
does it elsewhere shows in the log of this very environment.
"""

import base64
import contextlib
import hashlib
import importlib.util
import os
import shutil
import signal
import subprocess
import sys
import zipfile
from pathlib import Path
from types import ModuleType

import pytest

from backstay.dev.processes import started_at
from backstay.testing import eventually

ROOT = Path(__file__).parents[2]
SOON = 2.0  # seconds that a signal may take to have its effect
BACKEND = """
import base64, hashlib, os, sys, time, zipfile
from pathlib import Path

def get_requires_for_build_editable(config_settings=None):
    return []

def build_editable(wheel_directory, config_settings=None, metadata_directory=None):
    hang = Path(__file__).with_name("hang")
    if hang.exists():
        hang.with_name("hangs").write_text(f"{os.getpid()}\\n")
        time.sleep(120)
    name = "checkout-1-py3-none-any.whl"
    with zipfile.ZipFile(Path(wheel_directory) / name, "w") as wheel:
        wheel.writestr("checkout-1.dist-info/METADATA", "Metadata-Version: 2.1\\nName: checkout\\nVersion: 1\\n")
        about = "Wheel-Version: 1.0\\nRoot-Is-Purelib: true\\nTag: py3-none-any\\n"
        wheel.writestr("checkout-1.dist-info/WHEEL", about)
        wheel.writestr("checkout-1.dist-info/RECORD", "")
    return name
"""
PROJECT = """
[build-system]
requires = []
build-backend = "backend"
backend-path = ["."]

[project]
name = "checkout"
version = "1"
"""


class Checkout:
    """A folder with the installer, a lock of one package, and a project whose build can be made to hang."""

    def __init__(self, root: Path) -> None:
        self.root, self.venv = root, root / ".venv"
        wheels = root / "wheels"
        wheels.mkdir(parents=True)
        digest = _tiny_wheel(wheels)
        (root / ".ci").mkdir()
        shutil.copy(ROOT / ".ci" / "install.py", root / ".ci")
        (root / "backend.py").write_text(BACKEND)
        (root / "pyproject.toml").write_text(PROJECT)
        (root / "requirements.lock").write_text(f"tiny==1 \\\n    --hash=sha256:{digest}\n    # via checkout\n")
        self.env = {**os.environ, "PIP_NO_INDEX": "1", "PIP_FIND_LINKS": wheels.as_uri(), "PIP_CONFIG_FILE": os.devnull}

    def start(self) -> "subprocess.Popen[str]":
        """The installer, in a session of its own as a terminal's job would be."""
        return subprocess.Popen(
            [sys.executable, str(self.root / ".ci" / "install.py")],
            env=self.env,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )

    def install(self) -> str:
        """Install, and return what was printed."""
        installer = self.start()
        printed, _ = installer.communicate(timeout=100)
        assert installer.returncode == 0, printed
        return printed

    def tiny(self) -> str:
        """What the installed script prints."""
        return subprocess.run([self.venv / "bin" / "tiny"], capture_output=True, text=True, check=True).stdout

    async def hanging_build(self) -> int:
        """The process in the middle of the installation, once it is there."""
        there = self.root / "hangs"
        await eventually(lambda: there.exists() and there.read_text().endswith("\n"), timeout=100)
        return int(there.read_text())


@pytest.fixture
def checkout(tmp_path: Path) -> Checkout:
    return Checkout(tmp_path / 'it\'s a "checkout"')


@pytest.fixture(scope="module")
def installer() -> ModuleType:
    spec = importlib.util.spec_from_file_location("install", ROOT / ".ci" / "install.py")
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    handlers = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)}
    spec.loader.exec_module(module)
    for number, handler in handlers.items():
        signal.signal(number, handler)
    return module


def test_scripts_run_in_a_folder_with_spaces_and_quotes(checkout: Checkout) -> None:
    """The environment is made beside its place, and its scripts know the place; a second run has nothing to do."""
    printed = checkout.install()

    assert "installed 1 packages from requirements.lock by pip" in printed
    assert checkout.tiny() == f"{checkout.venv}\n"
    assert not (checkout.root / ".venv.new").exists()
    assert checkout.install() == ""


def test_a_half_made_environment_is_replaced(checkout: Checkout) -> None:
    """Without the stamp an environment is taken for nothing, whatever lies in it."""
    (checkout.venv / "bin").mkdir(parents=True)
    (checkout.venv / "bin" / "python").symlink_to(sys.executable)
    (checkout.root / ".venv.new" / "bin").mkdir(parents=True)
    (checkout.root / ".venv.new" / "bin" / "python").write_text("half")

    checkout.install()

    assert checkout.tiny() == f"{checkout.venv}\n"
    assert not (checkout.root / ".venv.old").exists()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
async def test_the_first_signal_ends_it_with_a_sentence(checkout: Checkout, number: int) -> None:
    """Nothing is printed but one sentence, no child is left, and the next run succeeds."""
    (checkout.root / "hang").touch()
    process = checkout.start()
    build = await checkout.hanging_build()
    process.send_signal(number)
    printed, _ = process.communicate(timeout=SOON + 5)

    assert process.returncode == 128 + number
    assert printed.strip() == "interrupted: .venv is as it was; run make again"
    await eventually(lambda: started_at(build) is None, timeout=SOON)

    (checkout.root / "hang").unlink()
    checkout.install()
    assert checkout.tiny() == f"{checkout.venv}\n"


async def test_an_interrupted_renewal_leaves_the_old_environment(checkout: Checkout) -> None:
    """What was installed before goes on working."""
    checkout.install()
    (checkout.root / "hang").touch()
    os.utime(checkout.root / "requirements.lock")
    (checkout.venv / "installed").touch()
    os.utime(checkout.venv / "installed", (0, 0))
    process = checkout.start()
    await checkout.hanging_build()
    process.send_signal(signal.SIGINT)
    process.communicate(timeout=SOON + 5)

    assert checkout.tiny() == f"{checkout.venv}\n"


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux ends a child with its parent")
async def test_killed_its_child_ends_too(checkout: Checkout) -> None:
    """kill -9 of the installer leaves no pip behind, and no lock."""
    (checkout.root / "hang").touch()
    process = checkout.start()
    await checkout.hanging_build()
    children = _children(process.pid)
    process.kill()
    process.communicate(timeout=5)

    assert children
    await eventually(lambda: all(started_at(child) is None for child in children), timeout=SOON)
    (checkout.root / "hang").unlink()
    checkout.install()


async def test_the_second_waits_for_the_first(checkout: Checkout) -> None:
    """Two at once: one installs, the other waits, says so, and finds everything done."""
    (checkout.root / "hang").touch()
    first = checkout.start()
    build = await checkout.hanging_build()
    second = checkout.start()
    assert second.stdout
    assert "another make installs into .venv: waiting" in second.stdout.readline()
    (checkout.root / "hang").unlink()
    with contextlib.suppress(ProcessLookupError):
        os.kill(build, signal.SIGKILL)
    first.communicate(timeout=100)
    printed, _ = second.communicate(timeout=100)

    assert second.returncode == 0, printed
    assert checkout.tiny() == f"{checkout.venv}\n"


def test_a_package_with_another_hash_is_refused(checkout: Checkout) -> None:
    """What isn't the locked file isn't installed, and the message carries pip's own words."""
    lock = checkout.root / "requirements.lock"
    lock.write_text("tiny==1 --hash=sha256:" + "0" * 64 + "\n")
    process = checkout.start()
    printed, _ = process.communicate(timeout=100)

    assert process.returncode == 1
    assert "the installation failed" in printed
    assert "DO NOT MATCH THE HASHES" in printed
    assert not checkout.venv.exists()


def test_uv_takes_over_what_pip_is_configured_for(installer: ModuleType) -> None:
    """Index, certificate and find-links reach uv by its own variables; nothing overrides what uv was told itself."""
    listed = "\n".join(
        (
            ":env:.find-links='/opt/a /opt/b'",
            "global.index-url='https://user:word@pypi.example/simple'",
            "install.index-url='https://mirror.example/simple'",
            "global.cert='/etc/ca.crt'",
            "freeze.timeout='1'",
            "nonsense",
        )
    )
    settings = installer.read_pip_settings(listed)
    given = installer.uv_environment(settings, {"UV_INDEX_URL": "https://uv.example"})
    free = installer.uv_environment(settings, {})

    assert free["UV_DEFAULT_INDEX"] == "https://mirror.example/simple"
    assert free["UV_FIND_LINKS"] == "/opt/a,/opt/b"
    assert free["SSL_CERT_FILE"] == "/etc/ca.crt"
    assert "UV_HTTP_TIMEOUT" not in free
    assert "UV_DEFAULT_INDEX" not in given


def test_the_lock_holds_uv_with_its_hashes(installer: ModuleType) -> None:
    """The installer's own tool is pinned as everything else is."""
    (block,) = [block for block in installer._locked() if block.startswith("uv==")]

    assert block.count("--hash=sha256:") > 5


def _tiny_wheel(folder: Path) -> str:
    """A wheel with one script; returns its digest."""
    files = {
        "tiny.py": "import sys\ndef main():\n    print(sys.prefix)\n",
        "tiny-1.dist-info/METADATA": "Metadata-Version: 2.1\nName: tiny\nVersion: 1\n",
        "tiny-1.dist-info/WHEEL": "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
        "tiny-1.dist-info/entry_points.txt": "[console_scripts]\ntiny = tiny:main\n",
    }
    record = "".join(f"{name},sha256={_digest(text)},{len(text)}\n" for name, text in files.items())
    wheel = folder / "tiny-1-py3-none-any.whl"
    with zipfile.ZipFile(wheel, "w") as archive:
        for name, text in {**files, "tiny-1.dist-info/RECORD": record + "tiny-1.dist-info/RECORD,,\n"}.items():
            archive.writestr(name, text)
    return hashlib.sha256(wheel.read_bytes()).hexdigest()


def _digest(text: str) -> str:
    return base64.urlsafe_b64encode(hashlib.sha256(text.encode()).digest()).rstrip(b"=").decode()


def _children(pid: int) -> list[int]:
    listed = subprocess.run(["ps", "-o", "pid=", "--ppid", str(pid)], capture_output=True, text=True, check=False)
    return [int(word) for word in listed.stdout.split()]


def test_the_command_line_before_the_installation_says_what_to_run(tmp_path: Path) -> None:
    """One sentence and status 2, not the shell's own."""
    shutil.copy(ROOT / "shop", tmp_path)
    done = subprocess.run([tmp_path / "shop", "status"], capture_output=True, text=True, check=False)

    assert done.returncode == 2
    assert done.stderr == f"nothing is installed in {tmp_path}: run make up first\n"
