"""Effects of fields and pairs: exact where the function is a polynomial."""

from collections.abc import Callable
from itertools import combinations

import pytest
import torch
from torch import Tensor

from recsys_had.interactions import build, express
from recsys_had.interactions.algebra import Interaction, attribution, field_effects, lin, source

Draw = Callable[..., Tensor]


def test_the_pairs_of_a_factorization_machine_are_its_inner_products(draw: Draw) -> None:
    x = draw(3, 5, 4, seed=1)
    found = field_effects(build("fm", num_fields=5, embedding_dim=4), x)
    inner = x @ x.transpose(1, 2)
    inner.diagonal(dim1=1, dim2=2).zero_()
    torch.testing.assert_close(found.pair, inner)
    torch.testing.assert_close(
        found.single, torch.zeros(3, 5, dtype=torch.float64), atol=1e-12, rtol=0
    )
    torch.testing.assert_close(found.rest, torch.zeros(3, dtype=torch.float64), atol=1e-12, rtol=0)


def test_a_polynomial_worked_out_by_hand() -> None:
    # f(a, b, c) = 2 + a + a^2 b + 3 a b c at a=2, b=3, c=5: the constant is 2; a adds a = 2 alone;
    # a and b together add a^2 b = 12; all three add 3 a b c = 90.
    def function(x: Tensor) -> Tensor:
        a, b, c = x[:, :, 0].T
        return 2 + a + a * a * b + 3 * a * b * c

    found = field_effects(function, torch.tensor([[[2.0], [3.0], [5.0]]]))
    assert found.constant.tolist() == [2.0]
    assert found.single.tolist() == [[2.0, 0.0, 0.0]]
    assert found.pair.tolist() == [[[0.0, 12.0, 0.0], [12.0, 0.0, 0.0], [0.0, 0.0, 0.0]]]
    assert found.rest.tolist() == [90.0]
    assert found.total().tolist() == [106.0]


@pytest.mark.parametrize(("name", "rest"), [("bilinear", False), ("hadamard_cross", True)])
def test_the_parts_sum_to_the_output_and_degree_two_leaves_no_rest(
    draw: Draw, name: str, rest: bool
) -> None:
    x = source(4, 3)
    layer = Interaction(lin(express(name, x), "TC", out=1, bias=True), [x]).double()
    rows = draw(6, 4, 3, seed=2)
    found = field_effects(layer, rows)
    torch.testing.assert_close(found.total(), layer(rows).squeeze(1))
    assert (found.rest.abs().max() > 1e-6) == rest


def test_a_field_of_zeros_has_no_effect(draw: Draw) -> None:
    x = draw(4, 5, 2, seed=3)
    x[:, 2] = 0
    found = field_effects(lambda x: x.sin().prod(dim=1).sum(dim=1) + x.exp().sum(dim=(1, 2)), x)
    assert found.single[:, 2].abs().max() < 1e-12
    assert found.pair[:, 2].abs().max() < 1e-12


def test_the_pieces_do_not_depend_on_how_many_are_evaluated_together(
    draw: Draw, monkeypatch: pytest.MonkeyPatch
) -> None:
    x = draw(3, 6, 2, seed=4)
    layer = build("fm", num_fields=6, embedding_dim=2)
    whole = field_effects(layer, x)
    monkeypatch.setattr(attribution, "_ROWS_AT_A_TIME", 1)
    torch.testing.assert_close(field_effects(layer, x).pair, whole.pair)


def test_pairs_are_those_of_the_definition_taken_one_by_one(draw: Draw) -> None:
    x = draw(2, 4, 3, seed=5)
    layer = build("mlp", num_fields=4, embedding_dim=3, hidden_units=(5, 1)).double()
    found = field_effects(layer, x)

    def only(*fields: int) -> Tensor:
        masked = torch.zeros_like(x)
        masked[:, list(fields)] = x[:, list(fields)]
        return layer(masked).squeeze(1).detach()

    for i, j in combinations(range(4), 2):
        expected = only(i, j) - only(i) - only(j) + only()
        torch.testing.assert_close(found.pair[:, i, j], expected)


def test_several_outputs_are_refused(draw: Draw) -> None:
    with pytest.raises(ValueError, match=r"must give one number a row; got shape \(3,\)\. Sum it"):
        field_effects(build("bi_interaction", num_fields=4, embedding_dim=3), draw(2, 4, 3, seed=6))
