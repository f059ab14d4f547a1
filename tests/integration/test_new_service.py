"""A new service from the wheel alone, outside of this repository: its tests pass."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


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
