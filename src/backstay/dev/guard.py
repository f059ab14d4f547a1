"""Run a program that ends with its parent: `python -I -S guard.py PARENT SIGNAL UID GID PROGRAM [ARGUMENT …]`.

A small step before the real program instead of code between fork and exec, which is not safe beside threads. It gives
up its rights (UID and GID unless -1), asks the kernel for SIGNAL (unless 0) when the parent is gone, and becomes the
program. Only Linux has such a signal; elsewhere the supervisor's next run ends what a killed one left.
Stands alone: it may run before anything of ours is readable.
"""

import ctypes
import os
import sys

PR_SET_PDEATHSIG = 1  # <sys/prctl.h>


def become(parent: int, orphan_signal: int, uid: int, gid: int, argv: list[str]) -> None:
    """Never returns: the process is the program from here on, or has ended because the parent has."""
    if gid >= 0:
        os.setgroups([])
        os.setgid(gid)
    if uid >= 0:
        os.setuid(uid)  # forgets a death signal, so that is asked for next
    if orphan_signal and sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, orphan_signal, 0, 0, 0)
    if os.getppid() != parent:
        os._exit(1)
    os.execvp(argv[0], argv)  # noqa: S606


if __name__ == "__main__":
    numbers = [int(word) for word in sys.argv[1:5]]
    become(numbers[0], numbers[1], numbers[2], numbers[3], sys.argv[5:])
