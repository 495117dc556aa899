"""FiBiNET's SENET layer: fields weighted by what the row says of them."""

import re
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from recsys_had.interactions import build
from recsys_had.interactions.algebra import Interaction

SEEDS = range(5)
Randomise = Callable[[nn.Module, int], Interaction]
SQUEEZE, EXCITE = "ops.lin_0.weight", "ops.lin_1.weight"


def plain_senet(
    row: list[list[float]], squeeze: list[list[float]], excite: list[list[float]]
) -> list[list[float]]:
    """Huang et al. 2019, eq. 4-6."""
    means = [sum(field) / len(field) for field in row]
    hidden = []
    for weights in squeeze:
        total = 0.0
        for weight, mean in zip(weights, means, strict=True):
            total += weight * mean
        hidden.append(max(total, 0.0))
    out = []
    for weights, field in zip(excite, row, strict=True):
        total = 0.0
        for weight, unit in zip(weights, hidden, strict=True):
            total += weight * unit
        out.append([max(total, 0.0) * number for number in field])
    return out


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize(("num_fields", "reduction_ratio"), [(1, 3), (6, 3), (7, 2), (5, 1)])
def test_senet_equals_the_paper_written_with_loops(
    draw: Callable[..., Tensor],
    randomise: Randomise,
    num_fields: int,
    reduction_ratio: int,
    seed: int,
) -> None:
    layer = randomise(
        build("senet", num_fields=num_fields, embedding_dim=4, reduction_ratio=reduction_ratio),
        seed,
    )
    x_BFD = draw(4, num_fields, 4, seed=seed)
    weights = [layer.get_parameter(name).tolist() for name in (SQUEEZE, EXCITE)]
    expected = torch.tensor(
        [plain_senet(row, *weights) for row in x_BFD.tolist()], dtype=torch.float64
    )
    # A single token is flat.
    expected = expected.flatten(1) if num_fields == 1 else expected
    torch.testing.assert_close(layer(x_BFD), expected, rtol=0, atol=1e-12)


def test_senet_doubles_one_field_and_silences_another() -> None:
    layer = build("senet", num_fields=3, embedding_dim=2, reduction_ratio=3)
    with torch.no_grad():
        layer.get_parameter(SQUEEZE).copy_(torch.tensor([[1.0, 2.0, -1.0]]))
        layer.get_parameter(EXCITE).copy_(torch.tensor([[1.0], [-1.0], [0.5]]))
    # means (2, 1, 2); hidden relu(2 + 2 - 2) = 2; weights relu(2, -2, 1) = (2, 0, 1)
    row = torch.tensor([[[1.0, 3.0], [0.0, 2.0], [2.0, 2.0]]])
    assert layer(row).tolist() == [[[2.0, 6.0], [0.0, 0.0], [2.0, 2.0]]]


def test_senet_gradients_equal_finite_differences(
    draw: Callable[..., Tensor],
    randomise: Randomise,
    check_gradients: Callable[[nn.Module, Tensor], bool],
) -> None:
    layer = randomise(build("senet", num_fields=6, embedding_dim=3), 4)
    x_BFD = draw(4, 6, 3, seed=4)
    # Silent fields have no gradient: the check says something where most are not silent.
    assert (layer(x_BFD) != 0).double().mean() > 0.5
    assert check_gradients(layer, x_BFD)


@pytest.mark.parametrize("seed", SEEDS)
def test_senet_never_turns_a_field_around(
    draw: Callable[..., Tensor], randomise: Randomise, seed: int
) -> None:
    layer = randomise(build("senet", num_fields=9, embedding_dim=4), seed)
    x_BFD = draw(5, 9, 4, seed=seed)
    factor_BFD = layer(x_BFD) / x_BFD
    assert (factor_BFD >= 0).all()
    first_BF1 = factor_BFD[:, :, :1]
    torch.testing.assert_close(factor_BFD, first_BF1.expand_as(factor_BFD), rtol=1e-13, atol=0)


@pytest.mark.parametrize("seed", SEEDS)
def test_senet_of_a_positive_multiple_grows_with_its_square(
    draw: Callable[..., Tensor], randomise: Randomise, seed: int
) -> None:
    layer = randomise(build("senet", num_fields=9, embedding_dim=4), seed)
    x_BFD = draw(5, 9, 4, seed=seed)
    torch.testing.assert_close(layer(3 * x_BFD), 9 * layer(x_BFD), rtol=1e-12, atol=1e-12)
    assert not layer(0 * x_BFD).any()


@pytest.mark.parametrize("seed", SEEDS)
def test_senet_is_no_polynomial_as_it_claims(
    draw: Callable[..., Tensor],
    randomise: Randomise,
    measure_degree: Callable[[nn.Module, Tensor], int | None],
    seed: int,
) -> None:
    layer = randomise(build("senet", num_fields=9, embedding_dim=4), seed)
    assert measure_degree(layer, draw(3, 9, 4, seed=seed)) is None
    assert layer.degree is None


@pytest.mark.parametrize("reduction_ratio", [0, -2])
def test_senet_refuses_a_ratio_below_one(reduction_ratio: int) -> None:
    line = f"senet: reduction_ratio must be at least 1; got {reduction_ratio}."
    with pytest.raises(ValueError, match=f"^{re.escape(line)}$"):
        build("senet", num_fields=6, embedding_dim=4, reduction_ratio=reduction_ratio)


@pytest.mark.parametrize(
    ("num_fields", "reduction_ratio", "hidden"), [(40, 1, 40), (7, 3, 2), (2, 3, 1)]
)
def test_senet_counts_its_operations_and_parameters(
    count_matmul_flops: Callable[[nn.Module, int, int], int],
    count_parameters: Callable[[nn.Module], int],
    num_fields: int,
    reduction_ratio: int,
    hidden: int,
) -> None:
    layer = build("senet", num_fields=num_fields, embedding_dim=5, reduction_ratio=reduction_ratio)
    # Two maps without a bias, 2 a weight. A mean of 5 is four additions and a division; each relu
    # is one operation, and the weighting one product a number.
    maps = 2 * num_fields * hidden + 2 * hidden * num_fields
    beside = (4 + 1) * num_fields + (hidden + num_fields) + 5 * num_fields
    assert layer.flops.matmul == count_matmul_flops(layer, num_fields, 5) == maps
    assert layer.flops.other == beside
    assert layer.flops_per_row == maps + beside
    assert count_parameters(layer) == 2 * num_fields * hidden
