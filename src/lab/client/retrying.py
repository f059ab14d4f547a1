"""Retries of a careful client, which must neither lose an order nor place it twice.

Repeated, with the same key: no answer at all, 5xx, 429, and 409 `request-in-progress`. `Retry-After` is honoured.
Everything else is an answer.
"""

import asyncio
import random
import time
from collections import Counter
from collections.abc import Awaitable, Callable

from backstay.dev.web import HttpError, Reply

FIRST_WAIT = 0.1  # seconds, doubled each time
LONGEST_WAIT = 5.0
PATIENCE = 180.0  # seconds in all


class GaveUp(RuntimeError):
    """No answer within the time; the message has the last one."""


class Retries:
    """Retries and their reasons, over many requests."""

    def __init__(self) -> None:
        self.reasons: Counter[str] = Counter()

    def __str__(self) -> str:
        return ", ".join(f"{count} × {reason}" for reason, count in self.reasons.most_common()) or "none"


async def patiently(
    send: Callable[[], Awaitable[Reply]], *, retries: Retries | None = None, patience: float = PATIENCE
) -> Reply:
    """Return the first real answer of `send`, called again until there is one; GaveUp after `patience` s."""
    until, wait = time.monotonic() + patience, FIRST_WAIT
    while True:
        reply, reason = await _attempt(send)
        if reply is not None and reason is None:
            return reply
        if retries is not None:
            retries.reasons[reason or ""] += 1
        pause = max(_asked_for(reply), wait * random.uniform(0.5, 1.0))  # noqa: S311 - not a secret
        if time.monotonic() + pause > until:
            raise GaveUp(f"no answer in {patience:g} s; the last one was: {reason}")
        await asyncio.sleep(pause)
        wait = min(wait * 2, LONGEST_WAIT)


def reason_to_repeat(reply: Reply) -> str | None:
    """Why this isn't an answer yet, in two words; None when it is one."""
    if reply.status >= 500 or reply.status == 429:
        return str(reply.status)
    if reply.status == 409 and slug(reply) == "request-in-progress":
        return "409 in progress"
    return None


def slug(reply: Reply) -> str:
    """Return the last part of a problem's type; empty for anything else."""
    kind = reply.body.get("type", "") if isinstance(reply.body, dict) else ""
    return str(kind).rpartition(":")[2]


async def _attempt(send: Callable[[], Awaitable[Reply]]) -> tuple[Reply | None, str | None]:
    try:
        reply = await send()
    except (HttpError, OSError) as error:
        return None, type(error).__name__
    return reply, reason_to_repeat(reply)


def _asked_for(reply: Reply | None) -> float:
    text = reply.headers.get("retry-after", "") if reply else ""
    return float(text) if text.isdigit() else 0.0
