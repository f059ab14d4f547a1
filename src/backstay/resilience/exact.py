"""Wrappers with the exact signature of what they guard: 100 ns less a layer than with `*args, **kwargs`.

A shell is an ordinary function of a module, `shell(call, ...)`, that defines `guarded(*args, **kwargs)` around
`call(*args, **kwargs)` and returns it. It is read, checked and debugged in that form, and used in that form where a
signature can't be told. Otherwise its syntax tree is copied with the parameters of `call` in place of the two stars,
and compiled with the line numbers of the original, so that a traceback shows the shell's own lines.
"""

import ast
import inspect
from collections.abc import Callable
from inspect import Parameter
from types import FunctionType, MethodType
from typing import Any, cast

Shell = Callable[..., Any]
Shape = tuple[tuple[str, int, bool], ...]  # name, kind, whether it has a default

STARRED = (Parameter.VAR_POSITIONAL, Parameter.VAR_KEYWORD)
_copies: dict[tuple[Shell, Shape], Shell | None] = {}


def exact(shell: Shell, call: Callable[..., Any], *parts: Any) -> Any:
    """`shell(call, *parts)`, but with the parameters of `call` if they are known."""
    parameters = _parameters(call)
    if parameters is None:
        return shell(call, *parts)
    shape = tuple((each.name, int(each.kind), each.default is not Parameter.empty) for each in parameters)
    if (shell, shape) not in _copies:
        _copies[shell, shape] = _copy(shell, parameters)
    copy = _copies[shell, shape]
    if copy is None:
        return shell(call, *parts)
    guarded = copy(call, *parts)
    _set_defaults(guarded, parameters)
    return guarded


def _parameters(call: Callable[..., Any]) -> list[Parameter] | None:
    """The parameters of a plain function or method; None if it takes any number of them."""
    function = call.__func__ if isinstance(call, MethodType) else call
    if not isinstance(function, FunctionType) or "__signature__" in function.__dict__:
        return None
    parameters = list(inspect.signature(call, follow_wrapped=False).parameters.values())
    return None if any(each.kind in STARRED for each in parameters) else parameters


def _copy(shell: Shell, parameters: list[Parameter]) -> Shell | None:
    """The shell for these parameters; None if its source isn't there, or one of its own names is among them."""
    assert isinstance(shell, FunctionType)
    try:
        lines, start = inspect.getsourcelines(shell)
    except OSError:
        return None
    tree = ast.parse("".join(lines))
    names = {node.id for node in ast.walk(tree) if isinstance(node, ast.Name)}
    names |= {node.arg for node in ast.walk(tree) if isinstance(node, ast.arg)}
    if names & {each.name for each in parameters}:
        return None
    tree = ast.fix_missing_locations(_Exact(parameters).visit(tree))
    ast.increment_lineno(tree, start - 1)
    found: dict[str, Any] = {}
    exec(compile(tree, shell.__code__.co_filename, "exec"), shell.__globals__, found)  # noqa: S102 - our own source
    return cast("Shell", found[shell.__name__])


class _Exact(ast.NodeTransformer):
    """Puts parameters in place of `*args, **kwargs`, where they are taken and where they are handed on."""

    def __init__(self, parameters: list[Parameter]) -> None:
        self._parameters = parameters

    def visit_AsyncFunctionDef(self, node: ast.AsyncFunctionDef) -> ast.AST:
        return self._guarded(node)

    def visit_FunctionDef(self, node: ast.FunctionDef) -> ast.AST:
        return self._guarded(node)

    def visit_Call(self, node: ast.Call) -> ast.AST:
        self.generic_visit(node)
        if any(isinstance(each, ast.Starred) for each in node.args):
            by_name = [each for each in self._parameters if each.kind is Parameter.KEYWORD_ONLY]
            by_place = [each for each in self._parameters if each.kind is not Parameter.KEYWORD_ONLY]
            node.args = [each for each in node.args if not isinstance(each, ast.Starred)]
            node.args += [ast.Name(each.name, ast.Load()) for each in by_place]
            node.keywords = [ast.keyword(each.name, ast.Name(each.name, ast.Load())) for each in by_name]
        return node

    def _guarded(self, node: ast.AsyncFunctionDef | ast.FunctionDef) -> ast.AST:
        node.returns = None
        if node.args.vararg is None:  # the shell itself
            for argument in node.args.args:
                argument.annotation = None
        else:
            node.args = self._arguments()
        return self.generic_visit(node)

    def _arguments(self) -> ast.arguments:
        def of(kind: Any) -> list[ast.arg]:
            return [ast.arg(each.name) for each in self._parameters if each.kind is kind]

        by_place = [each for each in self._parameters if each.kind is not Parameter.KEYWORD_ONLY]
        by_name = [each for each in self._parameters if each.kind is Parameter.KEYWORD_ONLY]
        return ast.arguments(
            posonlyargs=of(Parameter.POSITIONAL_ONLY),
            args=of(Parameter.POSITIONAL_OR_KEYWORD),
            kwonlyargs=of(Parameter.KEYWORD_ONLY),
            defaults=[ast.Constant(None) for each in by_place if each.default is not Parameter.empty],
            kw_defaults=[None if each.default is Parameter.empty else ast.Constant(None) for each in by_name],
        )


def _set_defaults(guarded: FunctionType, parameters: list[Parameter]) -> None:
    """The very objects that `call` has as defaults."""
    given = [each for each in parameters if each.default is not Parameter.empty]
    guarded.__defaults__ = tuple(each.default for each in given if each.kind is not Parameter.KEYWORD_ONLY)
    guarded.__kwdefaults__ = {each.name: each.default for each in given if each.kind is Parameter.KEYWORD_ONLY}


__all__ = ["exact"]
