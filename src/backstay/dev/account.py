"""The account of a process: PostgreSQL refuses root, so under root it gets an account without rights of its own."""

import contextlib
import errno
import os
import pwd
import shutil
import stat
import tempfile
from collections.abc import Iterable
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path

ACCOUNTS = ("nobody", "postgres", "daemon")
"""Accounts to fall back to under root, first found first used; initdb insists that the account has a name."""
STATE = Path("/var/lib/backstay")
"""Where root keeps what an account without rights has to reach, when the folder meant for it is a private one."""
ORIGIN = "origin"
"""A file in each folder of `STATE` with data: the path of the folder in whose place it is."""


class NoAccount(RuntimeError):
    """Running as root, and no account without rights exists to run PostgreSQL as."""


@dataclass(frozen=True, slots=True)
class Account:
    """A user and its group, by number."""

    uid: int
    gid: int

    def may_enter(self, folder: Path) -> bool:
        """Return whether this account can walk down to `folder` (each part of the way needs its search bit)."""
        return all(self._may_search(part) for part in (folder, *folder.parents))

    def _may_search(self, folder: Path) -> bool:
        about = folder.stat()
        if about.st_uid == self.uid:
            return bool(about.st_mode & stat.S_IXUSR)
        return bool(about.st_mode & (stat.S_IXGRP if about.st_gid == self.gid else stat.S_IXOTH))

    def own(self, folder: Path) -> None:
        """Give `folder` itself (nothing below, nothing above) to this account, closed to all others."""
        os.chown(folder, self.uid, self.gid)
        folder.chmod(0o700)


def unprivileged() -> Account | None:
    """Return the account for programs that refuse root; None where we aren't root and need no other."""
    if os.geteuid() != 0:
        return None
    for name in ACCOUNTS:
        try:
            entry = pwd.getpwnam(name)
        except KeyError:
            continue
        return Account(entry.pw_uid, entry.pw_gid)
    raise NoAccount(f"PostgreSQL can't run as root and none of {', '.join(ACCOUNTS)} exists: start as another user")


def reachable_base(wanted: Path, account: Account | None) -> Path:
    """Return `wanted` where the account can reach it, else a folder of ours under `STATE`.

    What an earlier run left in `wanted` moves along: a folder above it may have been closed since. A folder under
    `STATE` stays in use when `wanted` is opened later.
    """
    wanted.mkdir(parents=True, exist_ok=True)
    if account is None:
        return wanted
    base = _state() / f"data-{_digest(str(wanted.resolve()))}"
    if account.may_enter(wanted.resolve()) and not base.is_dir():
        return wanted
    base.mkdir(mode=0o711, exist_ok=True)
    _check_ours(base)
    base.chmod(0o711)
    (base / ORIGIN).write_bytes(os.fsencode(wanted.resolve()))
    for entry in wanted.iterdir():
        _move(entry, base / entry.name)
    return base


def remove_bases(folder: Path) -> None:
    """Remove what `reachable_base` has put under `STATE` in the place of folders in `folder`, also of removed ones.

    Nothing may use it. Raises OSError for what can't be removed.
    """
    within = folder.resolve()
    digests = {_digest(str(path)) for path in within.rglob("data/*/postgres")}
    bases = (base for state in _states() for base in state.glob("data-*")) if os.geteuid() == 0 else ()
    for base in bases:
        if base.name.removeprefix("data-") in digests or _origin(base).is_relative_to(within):
            _check_ours(base)
            shutil.rmtree(base)


def _origin(base: Path) -> Path:
    try:
        return Path(os.fsdecode((base / ORIGIN).read_bytes()))
    except OSError:  # made by a release that wrote none
        return base


def reachable_copy(original: Path, parts: Iterable[Path], account: Account | None) -> Path:
    """Return `original`, or its copy under `STATE` when the account can't reach it.

    `parts` are folders relative to `original` that it needs beside it; one copy serves every process of this machine
    that has the same files.
    """
    if account is None or account.may_enter(original.resolve() / "bin"):
        return original
    sources = [original, *(folder for part in parts if (folder := original / part).is_dir())]
    top = Path(os.path.commonpath([source.resolve() for source in sources] + [original.resolve().parent]))
    copy = _state() / f"copy-{_content(sources)}"
    if not copy.exists():
        with tempfile.TemporaryDirectory(dir=copy.parent) as half:
            for source in sources:
                shutil.copytree(source, Path(half, "copy", source.resolve().relative_to(top)), symlinks=True)
            _open_to_all(Path(half, "copy"))
            with contextlib.suppress(OSError):  # another process was first
                Path(half, "copy").rename(copy)
    return copy / original.resolve().relative_to(top)


def _states() -> tuple[Path, Path]:
    """Return the folders for what has to lie outside of private folders: the first that can be made is taken."""
    return STATE, Path(tempfile.gettempdir()) / f"backstay-{os.geteuid()}"


def _state() -> Path:
    """Return the first of `_states` that can be had, made if need be."""
    for folder in _states():
        with contextlib.suppress(OSError):
            folder.mkdir(mode=0o711, parents=True, exist_ok=True)
            _check_ours(folder)
            folder.chmod(0o711)
            return folder
    raise PermissionError(
        f"neither {STATE} nor {tempfile.gettempdir()} can hold the files of an account without rights"
    )


def _check_ours(folder: Path) -> None:
    about = folder.lstat()
    if not stat.S_ISDIR(about.st_mode) or about.st_uid != os.geteuid():
        raise PermissionError(f"{folder} belongs to another user: remove it")


def _move(source: Path, target: Path) -> None:
    """Move a folder with its owners, whole or not at all, also to another file system."""
    if target.exists():
        return
    try:
        source.rename(target)
    except OSError as error:
        if error.errno != errno.EXDEV:
            raise
        half = target.with_name(f"{target.name}.moving")
        shutil.rmtree(half, ignore_errors=True)
        shutil.copytree(source, half, symlinks=True)
        for path in (half, *half.rglob("*")):
            about = (source / path.relative_to(half)).lstat()
            os.chown(path, about.st_uid, about.st_gid, follow_symlinks=False)
        half.rename(target)
        shutil.rmtree(source)


def _open_to_all(folder: Path) -> None:
    """Let every account read and run what lies here, whatever the umask was when it was installed."""
    for path in (folder, *folder.rglob("*")):
        if not path.is_symlink():
            mode = stat.S_IMODE(path.stat().st_mode)
            path.chmod(mode | 0o444 | (0o111 if path.is_dir() or mode & stat.S_IXUSR else 0))


def _content(folders: Iterable[Path]) -> str:
    """Return a digest of names and sizes, so that another release of the files gets another copy."""
    files = [(f"{path.relative_to(folder)}", path.lstat().st_size) for folder in folders for path in folder.rglob("*")]
    return _digest(repr(sorted(files)))


def _digest(text: str) -> str:
    return sha256(text.encode()).hexdigest()[:12]
