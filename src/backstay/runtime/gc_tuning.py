"""Tuning of the garbage collector once a program has started: objects alive then are not examined again.

A service makes few cycles, and its modules and routes live as long as it does. Without this, collections walk over all
of that again and again while requests wait.
"""

import gc

THRESHOLDS = (20_000, 20, 20)
"""Objects made before a collection of the young, and collections before one of the older and of the oldest."""


def freeze_gc() -> None:
    """Collect once, exempt what is alive from later collections, and collect less often. Call it after the start."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(*THRESHOLDS)


__all__ = ["THRESHOLDS", "freeze_gc"]
