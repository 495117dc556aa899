"""Interactions written as text: a formula in an experiment instead of a Python file.

A formula is lines of ``name = expression``, the last one an expression alone: what the
interaction computes. It is read as Python is, and nothing of it is ever run as Python: what is
not told of here is refused with its line.

``x`` is what the node reads, every input stands under its own name too, and the node's further
options under theirs. Expressions are made with the algebra's functions, with ``+ - *``, of numbers
too, and ``x[first:last]`` on tokens; ``relu(x)`` is short for ``act(x, "relu")``; every interaction
can be called by its name, ``mlp(x, hidden_units=[64, 32])``; ``num_tokens(x)`` and
``num_channels(x)`` are sizes; ``max`` and ``min`` choose among whole numbers; ``for _ in
range(n):`` repeats lines.
"""

import ast
import operator
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from recsys_had.interactions._catalog import express, function_of, names
from recsys_had.suggest import nearest

if TYPE_CHECKING:
    from recsys_had.interactions.algebra import Expr

PRIMITIVES = (
    "act",
    "add",
    "cat",
    "chunk",
    "constant",
    "dropout",
    "flatten",
    "had",
    "lin",
    "log_abs",
    "matmul",
    "norm",
    "outer",
    "pairs",
    "pool",
    "reshape",
    "softmax",
    "stop_gradient",
    "take",
)
ACTIVATIONS = ("relu", "relu6", "sigmoid", "tanh", "gelu", "silu", "exp")
SIZES = ("num_tokens", "num_channels")
NUMBERS: dict[str, Callable[..., Any]] = {"max": max, "min": min}
_MOST_REPEATS = 100
_MOST_OPERATIONS = 20_000
_OPERATORS: dict[type[ast.operator], Callable[[Any, Any], Any]] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.FloorDiv: operator.floordiv,
}


class FormulaError(ValueError):
    """A formula cannot be read, or cannot be computed of what it is given.

    Args:
        line: 1-based line of the formula.
        message: what is wrong.
    """

    def __init__(self, line: int, message: str) -> None:
        self.line = line
        self.message = message
        super().__init__(f"formula line {line}: {message}")


def check_formula(text: str, names: tuple[str, ...]) -> None:
    """Refuses what is no formula, before anything is built.

    Args:
        text: the formula.
        names: of inputs and options.

    Raises:
        FormulaError: with the line.

    >>> check_formula("lin(x, out=width)", ("x", "width"))
    >>> check_formula("lin(x, out=with)", ("x", "width"))
    Traceback (most recent call last):
    recsys_had.interactions.formula.FormulaError: formula line 1: invalid syntax.
    >>> check_formula("lin(y)", ("x", "width"))
    Traceback (most recent call last):
    recsys_had.interactions.formula.FormulaError: formula line 1: 'y' is unknown. Known: width, x.
    """
    _Checker(names).read(_parse(text))


def names_read(text: str) -> frozenset[str]:
    """Names of inputs, options and results that a formula reads.

    Raises:
        FormulaError: with the line.

    >>> sorted(names_read("lin(x, out=width)"))
    ['width', 'x']
    """
    tree = _parse(text)
    called = {id(node.func) for node in ast.walk(tree) if isinstance(node, ast.Call)}
    return frozenset(
        node.id
        for node in ast.walk(tree)
        if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Load) and id(node) not in called
    )


def express_formula(text: str, inputs: "Mapping[str, Expr]", options: Mapping[str, Any]) -> "Expr":
    """What a formula computes.

    Args:
        text: the formula.
        inputs: what it reads, by name.
        options: further values, by name.

    Raises:
        FormulaError: with the line.

    >>> from recsys_had.interactions.algebra import source
    >>> express_formula('''
    ... gate = sigmoid(lin(pool(x, "C", "mean"), "T"))
    ... lin(outer(x * gate, x, "upper"), "T", out=width)
    ... ''', {"x": source(4, 8)}, {"width": 3}).shape
    (3, 8)
    """
    from recsys_had.interactions import algebra
    from recsys_had.interactions._arguments import told

    tree = _parse(text)
    _Checker((*inputs, *options)).read(tree)
    try:
        found = _Builder({**options, **inputs}).run(tree)
    except RecursionError:
        raise FormulaError(1, "is nested too deeply. Give parts of it names.") from None
    if not isinstance(found, algebra.Expr):
        last = tree.body[-1].lineno
        raise FormulaError(last, f"must give an expression; got {told(found)}.")
    return found


def _parse(text: str) -> ast.Module:
    try:
        tree = ast.parse(text)
    except SyntaxError as cause:
        line = max(1, cause.lineno or 1)
        raise FormulaError(line, f"{(cause.msg or 'invalid syntax').rstrip('.')}.") from None
    except (ValueError, RecursionError, MemoryError):
        raise FormulaError(1, "cannot be read.") from None
    if not tree.body or not isinstance(tree.body[-1], ast.Expr):
        last = tree.body[-1].lineno if tree.body else 1
        raise FormulaError(last, "must end with an expression alone: what it computes.")
    return tree


class _Checker:
    """Lets pass what :class:`_Builder` understands, with every name known."""

    def __init__(self, names: tuple[str, ...]) -> None:
        self.known = dict.fromkeys(names)

    def read(self, tree: ast.Module) -> None:
        for statement in tree.body[:-1]:
            self._statement(statement)
        last = tree.body[-1]
        assert isinstance(last, ast.Expr)
        self._value(last.value)

    def _statement(self, node: ast.stmt) -> None:
        if isinstance(node, ast.Assign) and len(node.targets) == 1:
            self._value(node.value)
            for target in _targets(node.targets[0]):
                self.known[target] = None
        elif isinstance(node, ast.For) and not node.orelse and _is_range(node.iter):
            assert isinstance(node.iter, ast.Call)
            self._value(node.iter.args[0])
            for target in _targets(node.target):
                self.known[target] = None
            for statement in node.body:
                self._statement(statement)
        else:
            raise FormulaError(node.lineno, "must be `name = expression` or `for _ in range(n):`.")

    def _value(self, node: ast.expr) -> None:
        match node:
            case ast.Constant(value=bool() | int() | float() | str() | None):
                pass
            case ast.Name(id=name):
                if name not in self.known:
                    hint = nearest(name, self.known)
                    raise FormulaError(node.lineno, f"'{name}' is unknown.{hint}")
            case ast.BinOp(left=left, op=op, right=right) if type(op) in _OPERATORS:
                self._value(left)
                self._value(right)
            case ast.UnaryOp(op=ast.USub(), operand=operand):
                self._value(operand)
            case ast.Tuple(elts=parts) | ast.List(elts=parts):
                for part in parts:
                    self._value(part)
            case ast.Subscript(value=value, slice=ast.Slice(lower=lower, upper=upper, step=None)):
                for end in (value, lower, upper):
                    if end is not None:
                        self._value(end)
            case ast.Call(func=ast.Name(id=name), args=args, keywords=keywords):
                known = [*PRIMITIVES, *ACTIVATIONS, *SIZES, *NUMBERS, *names()]
                if name not in known:
                    hint = nearest(name, known)
                    raise FormulaError(node.lineno, f"no function '{name}'.{hint}")
                for part in (*args, *(keyword.value for keyword in keywords)):
                    self._value(part)
                if any(keyword.arg is None for keyword in keywords):
                    raise FormulaError(node.lineno, "`**` is no part of a formula.")
            case _:
                written = ast.unparse(node)
                raise FormulaError(node.lineno, f"`{written[:60]}` is no part of a formula.")


class _Builder:
    """Makes the expression."""

    def __init__(self, values: dict[str, Any]) -> None:
        self.values = values
        self.operations = 0

    def run(self, tree: ast.Module) -> Any:
        for statement in tree.body[:-1]:
            self._statement(statement)
        last = tree.body[-1]
        assert isinstance(last, ast.Expr)
        return self._value(last.value)

    def _statement(self, node: ast.stmt) -> None:
        if isinstance(node, ast.For):
            self._repeat(node)
            return
        assert isinstance(node, ast.Assign)
        value, names = self._value(node.value), _targets(node.targets[0])
        if isinstance(node.targets[0], ast.Name):
            self.values[names[0]] = value
            return
        if not isinstance(value, tuple) or len(value) != len(names):
            got = len(value) if isinstance(value, tuple) else 1
            raise FormulaError(node.lineno, f"{len(names)} names for {got} values.")
        self.values.update(zip(names, value, strict=True))

    def _repeat(self, node: ast.For) -> None:
        assert isinstance(node.iter, ast.Call)
        times = self._value(node.iter.args[0])
        if not isinstance(times, int) or not 0 <= times <= _MOST_REPEATS:
            raise FormulaError(
                node.lineno, f"range must be a whole number up to {_MOST_REPEATS}; got {times!r}."
            )
        for number in range(times):
            self.values[_targets(node.target)[0]] = number
            for statement in node.body:
                self._statement(statement)

    def _value(self, node: ast.expr) -> Any:
        self.operations += 1
        if self.operations > _MOST_OPERATIONS:
            raise FormulaError(
                node.lineno, f"takes more than {_MOST_OPERATIONS:,} steps. Repeat less."
            )
        match node:
            case ast.Constant(value=value):
                return value
            case ast.Tuple(elts=parts) | ast.List(elts=parts):
                return tuple(self._value(part) for part in parts)
            case ast.Name(id=name):
                if name not in self.values:
                    raise FormulaError(node.lineno, f"'{name}' has no value yet.")
                return self.values[name]
            case ast.UnaryOp(operand=operand):
                one = self._value(operand)
                return self._guarded(node, lambda: _operate(operator.neg, one))
            case ast.BinOp(left=left, op=op, right=right):
                work, both = _OPERATORS[type(op)], (self._value(left), self._value(right))
                return self._guarded(node, lambda: _operate(work, *both))
            case ast.Subscript(value=value, slice=ast.Slice(lower=lower, upper=upper)):
                ends = [None if end is None else self._value(end) for end in (lower, upper)]
                whole = self._value(value)
                return self._guarded(node, lambda: _run_of(whole, ends))
            case ast.Call(func=ast.Name(id=name), args=args, keywords=keywords):
                given = [self._value(arg) for arg in args]
                named = {str(keyword.arg): self._value(keyword.value) for keyword in keywords}
                return self._guarded(node, lambda: _call(name, given, named))
            case _:
                raise AssertionError(ast.dump(node))

    def _guarded(self, node: ast.expr, work: Callable[[], Any]) -> Any:
        try:
            return work()
        except FormulaError:
            raise
        except (ValueError, TypeError, ArithmeticError, MemoryError, RuntimeError) as cause:
            raise FormulaError(node.lineno, _first_sentence(cause)) from cause


def _operate(work: Callable[..., Any], *values: Any) -> Any:
    from recsys_had.interactions._arguments import told
    from recsys_had.interactions.algebra import Expr

    for value in values:
        if isinstance(value, bool) or not isinstance(value, Expr | int | float):
            raise ValueError(f"only expressions and numbers are calculated with; got {told(value)}")
    if work is operator.floordiv and any(isinstance(value, Expr) for value in values):
        raise ValueError("// is of numbers. Multiply an expression by a number: 0.5 * x")
    return work(*values)


def _run_of(whole: Any, ends: list[Any]) -> Any:
    from recsys_had.interactions._arguments import told
    from recsys_had.interactions.algebra import Expr

    if not isinstance(whole, Expr):
        raise ValueError(f"only an expression has tokens; got {told(whole)}")
    if any(isinstance(end, bool) or not isinstance(end, int | None) for end in ends):
        raise ValueError("tokens are counted in whole numbers")
    return whole[slice(*ends)]


def _call(name: str, given: list[Any], named: dict[str, Any]) -> Any:
    from recsys_had.interactions import algebra
    from recsys_had.interactions._arguments import check_arguments

    if name in SIZES:
        if named or len(given) != 1 or not isinstance(given[0], algebra.Expr):
            raise ValueError(f"{name} takes one expression")
        return getattr(given[0], name)
    if name in NUMBERS:
        if named or len(given) < 2 or not all(isinstance(number, int) for number in given):
            raise ValueError(f"{name} takes two whole numbers or more")
        return NUMBERS[name](given)
    if name in ACTIVATIONS:
        if named or len(given) != 1 or not isinstance(given[0], algebra.Expr):
            raise ValueError(f"{name} takes one expression")
        return algebra.act(given[0], name)  # type: ignore[arg-type]
    if name in PRIMITIVES:
        function = getattr(algebra, name)
        check_arguments(name, function, given, named)
        return function(*given, **named)
    check_arguments(name, function_of(name), given, named)
    return express(name, *given, **named)


def _first_sentence(cause: Exception) -> str:
    """What went wrong, without what torch adds below."""
    if isinstance(cause, MemoryError | RuntimeError | OverflowError):
        return f"cannot be made: {(str(cause).splitlines() or ['too large'])[0].rstrip('.')}."
    text = str(cause)
    return text if text.endswith(("?", ".")) else f"{text}."


def _targets(node: ast.expr) -> list[str]:
    names = node.elts if isinstance(node, ast.Tuple) else [node]
    if not all(isinstance(name, ast.Name) for name in names):
        raise FormulaError(node.lineno, "only names can be given a value.")
    return [name.id for name in names if isinstance(name, ast.Name)]


def _is_range(node: ast.expr) -> bool:
    return (
        isinstance(node, ast.Call)
        and isinstance(node.func, ast.Name)
        and node.func.id == "range"
        and len(node.args) == 1
        and not node.keywords
    )
