"""Build the release of this commit and check it as a stranger would: `release.py TOOLS [--tag]`.

The version stands in `src/backstay/__init__.py`; CHANGELOG.md has a section for it with a date. sdist and wheel are
built into `dist/`, checked by twine, and the wheel is installed into a new environment where every part is imported.
A tag is made only when asked for.
"""

import ast
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
DIST = ROOT / "dist"
BIN = ROOT / ".venv" / "bin"
EXTRAS = "all,dev"
MODULES = [
    "resilience",
    "db",
    "messaging",
    "outbox",
    "auth",
    "discovery",
    "gateway",
    "service",
    "runtime",
    "cli",
    "dev",
]


def main(arguments: list[str]) -> int:
    """Build and check; returns the exit status."""
    tools, tag = Path(arguments[0]), "--tag" in arguments
    version = released_version((ROOT / "src/backstay/__init__.py").read_text(encoding="utf-8"))
    problems = [*unreleasable(version, (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")), *_changed_files()]
    if problems:
        print(*(f"release: {problem}" for problem in problems), sep="\n", file=sys.stderr)
        return 2
    shutil.rmtree(DIST, ignore_errors=True)
    _run(BIN / "uv", "build", "--quiet", "--no-build-isolation", "--python", BIN / "python", "--out-dir", DIST)
    files = sorted(DIST.glob("backstay-*"))
    _run(tools / "bin" / "twine", "check", "--strict", *files)
    _try_wheel(next(file for file in files if file.suffix == ".whl"), version)
    print(*(str(file.relative_to(ROOT)) for file in files), sep="\n")
    if tag:
        _run("git", "tag", "--annotate", f"v{version}", "--message", f"Backstay {version}")
        print(f"tagged v{version}")
    return 0


def released_version(source: str) -> str:
    """Return the version in the source of the package's `__init__`."""
    for node in ast.parse(source).body:
        named = isinstance(node, ast.Assign) and getattr(node.targets[0], "id", "") == "__version__"
        if named and isinstance(node.value, ast.Constant):
            return str(node.value.value)
    raise ValueError("src/backstay/__init__.py has no __version__")


def unreleasable(version: str, changelog: str) -> list[str]:
    """Return what keeps this version from being released."""
    problems = []
    if not re.fullmatch(r"\d+\.\d+\.\d+", version):
        problems.append(f"version {version} is not a release; set __version__ in src/backstay/__init__.py")
    sections = re.split(r"^## ", changelog, flags=re.MULTILINE)[1:]
    heads = [section.splitlines()[0].strip() for section in sections]
    own = [n for n, head in enumerate(heads) if re.fullmatch(re.escape(version) + r" - \d{4}-\d\d-\d\d", head)]
    if not own:
        problems.append(f"CHANGELOG.md has no section `## {version} - YYYY-MM-DD`")
    elif not re.search(r"^- ", sections[own[0]], re.MULTILINE):
        problems.append(f"CHANGELOG.md: the section of {version} is empty")
    if "Unreleased" in heads and re.search(r"^- ", sections[heads.index("Unreleased")], re.MULTILINE):
        problems.append("CHANGELOG.md: move what is under Unreleased into the section of the release")
    return problems


def _changed_files() -> list[str]:
    changed = subprocess.run(["git", "status", "--porcelain"], cwd=ROOT, capture_output=True, text=True, check=True)
    return [f"not committed: {line[3:]}" for line in changed.stdout.splitlines()]


def _try_wheel(wheel: Path, version: str) -> None:
    with tempfile.TemporaryDirectory() as folder:
        python = Path(folder) / "env" / "bin" / "python"
        _run(BIN / "uv", "venv", "--quiet", "--python", BIN / "python", Path(folder) / "env")
        _run(BIN / "uv", "pip", "install", "--quiet", "--python", python, f"{wheel}[{EXTRAS}]")
        imports = "; ".join(f"import backstay.{name}" for name in MODULES)
        check = f"{imports}; import backstay; assert backstay.__version__ == {version!r}"
        _run(python, "-I", "-c", check, cwd=folder)
        _run(python.with_name("backstay"), "--help", cwd=folder, quiet=True)


def _run(*command: object, cwd: object = ROOT, quiet: bool = False) -> None:
    try:
        subprocess.run(list(map(str, command)), cwd=str(cwd), check=True, capture_output=quiet)
    except subprocess.CalledProcessError as error:
        print(f"release: {Path(str(command[0])).name} failed ({error.returncode})", file=sys.stderr)
        raise SystemExit(1) from None


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
