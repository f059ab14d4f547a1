"""The garbage collector of a program that has started: what is there stays, and is not looked through again.

A service makes few cycles, and its modules and routes live as long as it does. Without this, collections walk over all
of that again and again while requests wait.
"""

import gc

THRESHOLDS = (20_000, 20, 20)
"""Objects made before a collection of the young, and collections before one of the older and of the oldest."""


def calm() -> None:
    """Clean up once, leave out what is alive from now on, and collect less often. Call it when all is started."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(*THRESHOLDS)


__all__ = ["THRESHOLDS", "calm"]
