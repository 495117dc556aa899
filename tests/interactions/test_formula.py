"""Interactions written as text: what they may say, what they compute, what is refused."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from recsys_had.interactions import algebra, build, formula, names
from recsys_had.interactions.algebra import Expr, Interaction, source
from recsys_had.interactions.formula import FormulaError, check_formula, express_formula

F, D = 5, 4


def expressed(text: str, **options: object) -> Expr:
    return express_formula(text, {"x": source(F, D)}, options)


def layer_of(text: str, **options: object) -> Interaction:
    x = source(F, D)
    return Interaction(express_formula(text, {"x": x}, options), [x])


def test_every_function_of_the_algebra_can_be_written() -> None:
    functions = {
        name
        for name in algebra.__all__
        if callable(getattr(algebra, name)) and not isinstance(getattr(algebra, name), type)
    }
    # A formula is given its sources; it makes none.
    assert set(formula.PRIMITIVES) == functions - {"source", "field_effects", "Activation", "Pairs"}
    for name in formula.ACTIVATIONS:
        assert expressed(f"{name}(x)").degree is None


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("fm", 's = pool(x, "T")\npool(s * s - pool(x * x, "T"), "C") * 0.5'),
        (
            "hadamard_cross",
            "first = flatten(x)\ny = first\n"
            "for _ in range(3):\n    y = first * lin(y, bias=True) + y\ny",
        ),
        ("bilinear", "left, right = pairs(x)\nlin(left, per='T') * right"),
        ("cross_net", "h = flatten(x)\ny = h\nfor _ in range(3):\n"
         "    y = h * lin(y, out=1) + constant(1, num_channels(h)) + y\ny"),
    ],
)  # fmt: skip
def test_a_formula_is_the_interaction_written_in_python(
    draw: Callable[..., Tensor], name: str, text: str
) -> None:
    python, written = build(name, num_fields=F, embedding_dim=D), layer_of(text)
    written.load_state_dict(python.state_dict())
    x = draw(3, F, D, seed=1).float()
    torch.testing.assert_close(written(x), python(x), rtol=0, atol=0)
    assert (written.degree, written.flops) == (python.degree, python.flops)


def test_values_are_given_by_name() -> None:
    assert expressed('lin(x, "T", out=width)', width=7).shape == (7, D)
    assert expressed("act(x, how)", how="relu").degree is None
    assert expressed("lin(x, out=num_channels(x) // 2)").shape == (F, 2)


def test_lists_are_written_as_lists() -> None:
    assert expressed("mlp(x, hidden_units=[8, 3])").shape == (1, 3)
    assert expressed("mlp(x, hidden_units=(8, 3))").shape == (1, 3)
    assert expressed("mlp(x, hidden_units=widths)", widths=(8, 3)).shape == (1, 3)


def test_numbers_are_added_and_subtracted(draw: Callable[..., Tensor]) -> None:
    x = draw(3, F, D, seed=1).float()
    torch.testing.assert_close(layer_of("1 - x")(x), 1 - x)
    torch.testing.assert_close(layer_of("x + 0.5 - 2")(x), x - 1.5)
    torch.testing.assert_close(layer_of("2 + x * 3")(x), 2 + x * 3)
    assert expressed("1 - x * x").degree == 2


def test_a_line_is_counted_from_the_beginning_of_the_text() -> None:
    with pytest.raises(FormulaError) as told:
        expressed("\n\ny = x\n\nlin(y, out=0)\n")
    assert told.value.line == 5


def test_inputs_are_read_by_name() -> None:
    inputs = {"x": source(F, D), "gate": source(1, D)}
    assert express_formula("x * gate", inputs, {}).degree == 2


def test_interactions_are_called_by_name() -> None:
    text = "lin(flatten(cat(bilinear(x, kind='field_all'), bilinear(senet(x)))), out=3)"
    assert expressed(text).shape == (1, 3)
    assert expressed("hadamard_cross(x, num_layers=2)").degree == 3


def test_no_interaction_has_the_name_of_a_function() -> None:
    assert not {*formula.PRIMITIVES, *formula.ACTIVATIONS, *formula.SIZES} & {*names()}


def test_tokens_are_cut_and_signs_turned(draw: Callable[..., Tensor]) -> None:
    x = draw(2, F, D, seed=2)
    torch.testing.assert_close(layer_of("-x[1:3] - x[:2]")(x), -x[:, 1:3] - x[:, :2])
    torch.testing.assert_close(layer_of("x[:-1]")(x), x[:, :-1])


@pytest.mark.parametrize(
    ("text", "line", "message"),
    [
        ("", 1, "must end with an expression alone: what it computes."),
        ("y = x", 1, "must end with an expression alone: what it computes."),
        ("y = x\nlin(y", 2, "'(' was never closed."),
        ("y = x\nlin(z)", 2, "'z' is unknown. Known: width, x, y."),
        ("lin(x, out=widht)", 1, "'widht' is unknown. Did you mean 'width'?"),
        ("bilinaer(x)", 1, "no function 'bilinaer'. Did you mean 'bilinear'?"),
        ("lni(x)", 1, "no function 'lni'. Did you mean 'lin'?"),
        ("x.shape", 1, "`x.shape` is no part of a formula."),
        ("__import__('os')", 1, "no function '__import__'. Known:"),
        ("x.__class__.__mro__", 1, "`x.__class__.__mro__` is no part of a formula."),
        ("(lambda: x)()", 1, "`(lambda: x)()` is no part of a formula."),
        ("[x for y in x]", 1, "`[x for y in x]` is no part of a formula."),
        ("x ** 2", 1, "`x ** 2` is no part of a formula."),
        ("x[0]", 1, "`x[0]` is no part of a formula."),
        ("lin(**x)", 1, "`**` is no part of a formula."),
        ("lin(*x)", 1, "`*x` is no part of a formula."),
        ("import os\nx", 1, "must be `name = expression` or `for _ in range(n):`."),
        ("def f(): pass\nx", 1, "must be `name = expression` or `for _ in range(n):`."),
        ("while True: y = x\nx", 1, "must be `name = expression` or `for _ in range(n):`."),
        ("x.y = x\nx", 1, "only names can be given a value."),
        ("for _ in x:\n    y = x\nx", 1, "must be `name = expression` or"),
    ],
)
def test_what_is_no_formula_is_refused_with_its_line(text: str, line: int, message: str) -> None:
    with pytest.raises(FormulaError) as told:
        check_formula(text, ("x", "width"))
    assert told.value.line == line
    assert told.value.message.startswith(message)


@pytest.mark.parametrize(
    ("text", "line", "message"),
    [
        ("y = x\nlin(y, out=0)", 2, "out must be at least 1; got 0."),
        (
            "lin(x, widht=3)",
            1,
            "lin: has no 'widht'. Known: bias, mean, out, per, rank, std, uniform.",
        ),
        ("x * lin(x, out=3)", 1, f"had: shapes must be equal, or 1 where they differ; got ({F},"),
        ("3", 1, "must give an expression; got 3."),
        ("pairs(x)", 1, "must give an expression; got 2 expressions."),
        ("a, b, c = pairs(x)\na", 1, "3 names for 2 values."),
        ("a, b = x\na", 1, "2 names for 1 values."),
        ("for _ in range(1000):\n    x = x + x\nx", 1, "range must be a whole number up to 100;"),
        ("for _ in range(0):\n    y = x\ny", 3, "'y' has no value yet."),
        ("x[3:1]", 1, "tokens slice(3, 1, None) of 5: must be one run of tokens."),
        ("num_tokens(3)", 1, "num_tokens takes one expression."),
        ("lin(x, out=max(2))", 1, "max takes two whole numbers or more."),
        ("x + 'a'", 1, "only expressions and numbers are calculated with; got 'a'."),
        ("'ab' * 3000", 1, "only expressions and numbers are calculated with; got 'ab'."),
        ("x * True", 1, "only expressions and numbers are calculated with; got True."),
        ("x // 2", 1, "// is of numbers. Multiply an expression by a number: 0.5 * x."),
        ("chunk(x, 2)[0:1]", 1, "only an expression has tokens; got 2 expressions."),
        ("x[0.5:]", 1, "tokens are counted in whole numbers."),
        ("lin(x, 16)", 1, "lin: on must be 'C', 'T' or 'TC'; got 16."),
        ("lin(x, out=8.0)", 1, "lin: out must be a whole number or None; got 8.0."),
        ("lin(x, out=True)", 1, "lin: out must be a whole number or None; got True."),
        ("lin(x, out='8')", 1, "lin: out must be a whole number or None; got '8'."),
        ("lin(x, out=x)", 1, "lin: out must be a whole number or None; got an expression of shape"),
        ("lin(x, std=-1)", 1, "lin: std must be at least 0; got -1."),
        ("lin(x, out=10000000000000)", 1, "cannot be made: "),
        ("lin(x, out=9000000000000000000)", 1, "cannot be made: "),
        ("lin(x, out=100000000000000000000000)", 1, ""),
        ("a = chunk(x, 2)\nlin(a)", 2, "lin: x must be an expression; got 2 expressions."),
        ("lin()", 1, "lin: missing a required argument: 'x'."),
        ("constant(1.5, 4)", 1, "constant: num_tokens must be a whole number; got 1.5."),
        ("constant(0, 4)", 1, "constant: must be of one token and channel or more, and of no neg"),
        ("take(x, 1.7)", 1, "take: places must be a whole number; got 1.7."),
        ("reshape(x, 2.0)", 1, "reshape: num_tokens must be a whole number; got 2.0."),
        (
            "outer(x, x, 'lower')",
            1,
            "outer: keep must be 'all' or 'upper' or a list of pairs of whole",
        ),
        (
            "outer(x, x, keep=None)",
            1,
            "outer: keep must be 'all' or 'upper' or a list of pairs of whole",
        ),
        ("mlp(x, hidden_units=[4], batch_norm='no')", 1, "mlp: batch_norm must be True or False;"),
        (
            "mlp(x, hidden_units=400)",
            1,
            "mlp: hidden_units must be a list of whole numbers; got 40",
        ),
        ("mlp(x, hiden_units=[4])", 1, "mlp: has no 'hiden_units'. Did you mean 'hidden_units'?"),
        ("x * 1" + 400 * "0", 1, "cannot be made: "),
        (
            "for _ in range(100):\n    for _ in range(100):\n"
            "        for _ in range(100):\n            x = x * x\nx",
            4,
            "takes more than 20,000 steps. Repeat less.",
        ),
        (" + ".join(["x"] * 5000), 1, ""),
        (
            "bilinear(x, kind='all')",
            1,
            "bilinear: kind must be 'field_all', 'field_each' or 'field_interaction'; got 'all'.",
        ),
        ("fm(x, x)", 1, "fm: takes 1 without a name; got 2. Name the others."),
        ("relu(x, 3)", 1, "relu takes one expression."),
        ("lin(x, out=3 // 0)", 1, "integer division or modulo by zero."),
    ],
)
def test_what_cannot_be_computed_is_told_with_its_line(text: str, line: int, message: str) -> None:
    with pytest.raises(FormulaError) as told:
        expressed(text)
    assert told.value.line == line
    assert told.value.message.startswith(message)
