"""Values of the present request, such as its deadline: seen by everything below, and gone when the request is over.

A context variable alone would be copied into each task that is made inside, and kept there as long as that task lives.
So the variable holds a scope that the end of its block closes: a task that outlives the block no longer has the value.
"""

from contextvars import ContextVar
from types import TracebackType
from typing import Generic, TypeVar

V = TypeVar("V")


class Scope(Generic[V]):
    """One block with a value."""

    __slots__ = ("closed", "outer", "value")

    def __init__(self, value: V | None, outer: "Scope[V] | None") -> None:
        self.value = value
        self.outer = outer
        self.closed = False


class Ambient(Generic[V]):
    """A value that holds inside a block, and for the tasks made there until the block ends."""

    def __init__(self, name: str) -> None:
        self._variable: ContextVar[Scope[V] | None] = ContextVar(name, default=None)
        self.scope = self._variable.get
        """The innermost scope, open or closed; None where there was never any. A cheap first look for hot paths."""

    def get(self) -> V | None:
        """Return the value of the innermost open scope, or None."""
        scope = self._variable.get()
        while scope is not None and scope.closed:
            scope = scope.outer
        return None if scope is None else scope.value

    def holding(self, value: V | None) -> "Holding[V]":
        """Give everything inside this value; None hides that of the blocks around."""
        return Holding(self._variable, value)


class Holding(Generic[V]):
    """Context manager of one block; no generator, since every request goes through two or three."""

    __slots__ = ("_scope", "_token", "_value", "_variable")

    def __init__(self, variable: ContextVar[Scope[V] | None], value: V | None) -> None:
        self._variable = variable
        self._value = value

    def __enter__(self) -> None:
        self._scope = Scope(self._value, self._variable.get())
        self._token = self._variable.set(self._scope)

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        self._scope.closed = True
        try:  # noqa: SIM105 - suppress() would be a second block for each of these
            self._variable.reset(self._token)
        except ValueError:  # left in another context, such as another task's
            pass


__all__ = ["Ambient", "Holding", "Scope"]
