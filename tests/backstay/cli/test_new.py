"""A new service from the wheel alone: its tests pass, and mistakes are named before anything is written."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from backstay.cli.new import write
from backstay.errors import ConfigError

ROOT = Path(__file__).parents[3]


@pytest.mark.parametrize(
    ("name", "problem"),
    [
        ("Orders", "lower-case letters"),
        ("1st", "a letter first"),
        ("a-", "inner hyphens"),
        ("../x", "can't name a service"),
        ("x" * 41, "1 to 40"),
        ("class", "Python has a module or word of that name"),
        ("json", "Python has a module or word of that name"),
        ("backstay", "Python has a module or word of that name"),
    ],
)
def test_a_name_that_is_none(tmp_path: Path, name: str, problem: str) -> None:
    """Refused with what is allowed; nothing is written."""
    with pytest.raises(ConfigError, match=problem):
        write(name, tmp_path / "here")

    assert list(tmp_path.iterdir()) == []


def test_what_is_there_is_left_alone(tmp_path: Path) -> None:
    """A folder with something in it, and a file; both problems of a call are named together."""
    (tmp_path / "mine").write_text("precious")
    for folder in (tmp_path, tmp_path / "mine"):
        with pytest.raises(ConfigError, match="exists already"):
            write("orders", folder)
    with pytest.raises(ConfigError) as refused:
        write("Orders", tmp_path)

    assert len(refused.value.problems) == 2
    assert (tmp_path / "mine").read_text() == "precious"


def test_every_file_is_named_after_the_service(tmp_path: Path) -> None:
    """No placeholder is left; hyphens are underscores in Python's names."""
    write("tea-shop", tmp_path)
    files = sorted(str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*") if path.is_file())

    assert "tea_shop/main.py" in files
    assert "tea_shop/migrations/0001_orders.sql" in files
    assert ".gitignore" in files
    assert not [path for path in tmp_path.rglob("*") if path.is_file() and "__PACKAGE__" in path.read_text()]
    assert not [path for path in tmp_path.rglob("*") if path.is_file() and "__NAME__" in path.read_text()]


@pytest.mark.kafka
@pytest.mark.timeout(300)
def test_its_tests_pass_from_the_wheel_alone(tmp_path: Path) -> None:
    """The wheel is built and unpacked; the sources of this repository are out of reach."""
    uv = Path(sys.executable).with_name("uv")
    subprocess.run(
        [uv, "build", "--quiet", "--wheel", "--no-build-isolation", "--python", sys.executable, "--out-dir", tmp_path],
        cwd=ROOT,
        check=True,
    )
    (wheel,) = tmp_path.glob("*.whl")
    site = tmp_path / "site"
    subprocess.run([uv, "pip", "install", "--quiet", "--no-deps", "--target", site, wheel], check=True)
    env = {name: value for name, value in os.environ.items() if not name.startswith(("PYTEST", "COV"))}
    env |= {"PYTHONPATH": str(site), "BACKSTAY_TEST_KAFKA": "embedded"}
    where = subprocess.check_output(
        [sys.executable, "-c", "import backstay; print(backstay.__file__)"], cwd=tmp_path, env=env, text=True
    )
    assert Path(where.strip()).is_relative_to(site)
    subprocess.run([sys.executable, "-m", "backstay.cli", "new", "tea-shop"], cwd=tmp_path, env=env, check=True)
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider"],
        cwd=tmp_path / "tea-shop",
        env=env,
        capture_output=True,
        text=True,
        timeout=240,
    )

    assert done.returncode == 0, done.stdout + done.stderr
    assert "3 passed" in done.stdout
