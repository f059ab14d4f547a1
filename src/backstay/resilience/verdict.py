"""The one place where the ending of a call becomes a verdict on the dependency.

| ending | verdict |
|---|---|
| a result (not one that `fail_result` names) | success |
| cancellation, `GeneratorExit`, `KeyboardInterrupt`, `SystemExit` | given back |
| `Misused`: the guarded function never ran as it should | given back |
| `DeadlineTimeout`: the caller had no more time | given back; a failure if the call was slow by then |
| `Rejected`: an inner policy refused | ignored |
| an error that `ignore` or `ignore_if` names | ignored |
| an error that `record` or `record_if` names | failure |
| another `Exception` | success (rule of Resilience4j) |
| another `BaseException`, such as gevent's `Timeout` | given back |
| a group of errors | the gravest verdict on its members: failure, ignored, given back, success |
"""

import asyncio
from collections.abc import Callable, Iterator
from enum import Enum
from typing import Any

from backstay.resilience.errors import DeadlineTimeout, Misused, Rejected
from backstay.resilience.foreign import ask

Kinds = tuple[type[BaseException], ...]
Predicate = Callable[[Any], Any]

FROM_OUTSIDE = (asyncio.CancelledError, GeneratorExit, KeyboardInterrupt, SystemExit)
"""Endings that come from the caller's side."""

_GIVING_BACK = (*FROM_OUTSIDE, Misused)


class Verdict(Enum):
    """The meaning of a call's outcome for the dependency."""

    FAILURE = 1
    IGNORED = 2  # an error that counts as nothing; the permit goes back
    GIVEN_BACK = 3  # no word about the dependency; the permit goes back
    SUCCESS = 4


FAILURE, IGNORED, GIVEN_BACK, SUCCESS = Verdict  # a lookup on the class costs 40 ns


def verdict_on(
    error: BaseException,
    *,
    record: Kinds,
    ignore: Kinds,
    record_if: Predicate | None = None,
    ignore_if: Predicate | None = None,
    slow: bool = False,
) -> Verdict:
    """Return the verdict on a call that ended with `error`; `slow`: it had exceeded the slow-call threshold by then."""
    if isinstance(error, BaseExceptionGroup) and not named(error, ignore) and not named(error, record):
        rules: dict[str, Any] = {"record": record, "ignore": ignore, "record_if": record_if, "ignore_if": ignore_if}
        found = {verdict_on(each, slow=slow, **rules) for each in members(error)}
        return min(found, key=lambda each: each.value)
    if isinstance(error, _GIVING_BACK):
        return GIVEN_BACK
    if isinstance(error, DeadlineTimeout):
        return FAILURE if slow else GIVEN_BACK
    if isinstance(error, Rejected):
        return IGNORED
    if isinstance(error, ignore) or (ignore_if is not None and ask(ignore_if, "ignore_if", False, error, about=error)):
        return IGNORED
    if isinstance(error, record) or (record_if is not None and ask(record_if, "record_if", True, error, about=error)):
        return FAILURE
    return SUCCESS if isinstance(error, Exception) else GIVEN_BACK


def members(error: BaseException) -> Iterator[BaseException]:
    """Yield the errors of a group and of the groups in it; an error that is no group yields itself."""
    if isinstance(error, BaseExceptionGroup):
        for each in error.exceptions:
            yield from members(each)
    else:
        yield error


def named(group: BaseException, kinds: Kinds) -> bool:
    """Return whether a group is named by a type of groups, so that its members don't matter."""
    return any(issubclass(kind, BaseExceptionGroup) and isinstance(group, kind) for kind in kinds)


def all_match(error: BaseException, kinds: Kinds) -> bool:
    """Return whether the error, or each member of a group, is of one of these kinds."""
    if isinstance(error, BaseExceptionGroup) and not named(error, kinds):
        return all(isinstance(each, kinds) for each in members(error))
    return isinstance(error, kinds)


def any_matches(error: BaseException, kinds: Kinds) -> bool:
    """Return whether the error, or a member of a group, is of one of these kinds."""
    return named(error, kinds) or any(isinstance(each, kinds) for each in members(error))


__all__ = ["FROM_OUTSIDE", "Verdict", "all_match", "any_matches", "members", "named", "verdict_on"]
