"""Whom a process runs as: PostgreSQL refuses root, so under root it gets an account without rights of its own."""

import os
import pwd
import shutil
import stat
import tempfile
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path

ACCOUNTS = ("nobody", "postgres", "daemon")
"""Accounts to fall back to under root, first found first used; initdb insists that the account has a name."""


class NoAccount(RuntimeError):
    """Running as root, and no account without rights exists to run PostgreSQL as."""


@dataclass(frozen=True, slots=True)
class Account:
    """A user and its group, by number."""

    uid: int
    gid: int

    def may_enter(self, folder: Path) -> bool:
        """Whether this account can walk down to `folder` (each part of the way needs its search bit)."""
        return all(self._may_search(part) for part in (folder, *folder.parents))

    def _may_search(self, folder: Path) -> bool:
        about = folder.stat()
        if about.st_uid == self.uid:
            return bool(about.st_mode & stat.S_IXUSR)
        return bool(about.st_mode & (stat.S_IXGRP if about.st_gid == self.gid else stat.S_IXOTH))

    def own(self, folder: Path) -> None:
        """Give `folder` itself (nothing below, nothing above) to this account, closed to everybody else."""
        os.chown(folder, self.uid, self.gid)
        folder.chmod(0o700)


def unprivileged() -> Account | None:
    """The account for programs that refuse root; None where we aren't root and need no other."""
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
    """`wanted` where the account can walk to it, else a folder of ours under the system's temporary one."""
    wanted.mkdir(parents=True, exist_ok=True)
    if account is None or account.may_enter(wanted.resolve()):
        return wanted
    base = Path(tempfile.gettempdir()) / f"backstay-{sha256(str(wanted.resolve()).encode()).hexdigest()[:12]}"
    base.mkdir(mode=0o711, exist_ok=True)
    about = base.lstat()
    if not stat.S_ISDIR(about.st_mode) or about.st_uid != os.geteuid():
        raise PermissionError(f"{base} isn't ours: remove it, or set TMPDIR to a private folder")
    base.chmod(0o711)
    return base


def reachable_copy(original: Path, base: Path, account: Account | None) -> Path:
    """`original`, or a copy of it under `base` when the account can't walk to it (a private home folder above it)."""
    if account is None or account.may_enter(original.resolve()):
        return original
    copy = base / original.name
    if not copy.exists():
        half = Path(tempfile.mkdtemp(dir=base))
        shutil.copytree(original, half / original.name, symlinks=True)
        (half / original.name).rename(copy)
        half.rmdir()
    return copy
