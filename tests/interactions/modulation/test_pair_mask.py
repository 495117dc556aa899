"""AutoFIS: pairs of fields with a weight each, some of them left out."""

import math
import re
from collections.abc import Callable
from itertools import combinations
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from recsys_had.interactions import build
from recsys_had.interactions.algebra import Interaction

SEEDS = range(5)
WEIGHT = "ops.constant_0.weight"
Pairs = tuple[tuple[int, int], ...]
Randomise = Callable[[nn.Module, int], Interaction]


def inner_products(row: list[list[float]], pairs: Pairs) -> list[float]:
    products = []
    for i, j in pairs:
        total = 0.0
        for left, right in zip(row[i], row[j], strict=True):
            total += left * right
        products.append(total)
    return products


def all_pairs(num_fields: int) -> Pairs:
    return tuple(combinations(range(num_fields), 2))


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("batch_norm", [False, True])
@pytest.mark.parametrize(
    ("num_fields", "embedding_dim", "keep"),
    [
        (2, 1, None),
        (3, 4, None),
        (7, 3, None),
        (4, 2, ((0, 3),)),
        (6, 3, ((2, 5), (0, 1), (1, 5))),
    ],
)
def test_pair_mask_equals_the_paper_written_with_loops(
    draw: Callable[..., Tensor],
    randomise: Randomise,
    num_fields: int,
    embedding_dim: int,
    keep: Pairs | None,
    batch_norm: bool,
    seed: int,
) -> None:
    options: dict[str, Any] = {"keep": keep, "batch_norm": batch_norm}
    layer = randomise(
        build("pair_mask", num_fields=num_fields, embedding_dim=embedding_dim, **options), seed
    ).eval()
    pairs = all_pairs(num_fields) if keep is None else keep
    means, variances = [0.0] * len(pairs), [1 - 1e-5] * len(pairs)
    if batch_norm:
        running = dict(layer.named_buffers())
        means, variances = (
            draw(len(pairs), seed=n).abs().add(0.1).tolist() for n in (seed, 10 + seed)
        )
        running["ops.standardise_0.norm.running_mean"].copy_(torch.tensor(means).double())
        running["ops.standardise_0.norm.running_var"].copy_(torch.tensor(variances).double())
        means = running["ops.standardise_0.norm.running_mean"].tolist()
        variances = running["ops.standardise_0.norm.running_var"].tolist()
    weights = layer.get_parameter(WEIGHT).flatten().tolist()
    x_BFD = draw(4, num_fields, embedding_dim, seed=seed)
    expected = []
    for row in x_BFD.tolist():
        total = 0.0
        for number, product in enumerate(inner_products(row, pairs)):
            scaled = (product - means[number]) / math.sqrt(variances[number] + 1e-5)
            total += weights[number] * scaled
        expected.append([total])
    torch.testing.assert_close(
        layer(x_BFD), torch.tensor(expected, dtype=torch.float64), rtol=1e-11, atol=1e-11
    )


@pytest.mark.parametrize(
    ("keep", "weights", "expected"),
    [
        # e = (1, 2), (3, 1), (2, 5)
        # <e0, e1> = 3 + 2 = 5; <e0, e2> = 2 + 10 = 12; <e1, e2> = 6 + 5 = 11
        # 2 * 5 - 1 * 12 + 3 * 11 = 31
        (None, [2.0, -1.0, 3.0], 31.0),
        # 2 * 11 - 1 * 5 = 17
        (((1, 2), (0, 1)), [2.0, -1.0], 17.0),
    ],
)
def test_pair_mask_of_three_fields_of_two_numbers(
    keep: Pairs | None, weights: list[float], expected: float
) -> None:
    layer = build("pair_mask", num_fields=3, embedding_dim=2, keep=keep)
    with torch.no_grad():
        layer.get_parameter(WEIGHT).copy_(torch.tensor(weights).unsqueeze(1))
    row = torch.tensor([[[1.0, 2.0], [3.0, 1.0], [2.0, 5.0]]])
    assert layer(row).tolist() == [[expected]]


@pytest.mark.parametrize("batch_norm", [False, True])
@pytest.mark.parametrize("keep", [None, ((0, 2), (1, 3))])
def test_pair_mask_gradients_equal_finite_differences(
    draw: Callable[..., Tensor],
    randomise: Randomise,
    check_gradients: Callable[[nn.Module, Tensor], bool],
    keep: Pairs | None,
    batch_norm: bool,
) -> None:
    layer = build("pair_mask", num_fields=4, embedding_dim=3, keep=keep, batch_norm=batch_norm)
    assert check_gradients(randomise(layer, 0), draw(4, 4, 3, seed=0))


@pytest.mark.parametrize("seed", SEEDS)
def test_a_new_pair_mask_is_a_share_of_fm(draw: Callable[..., Tensor], seed: int) -> None:
    layer = build("pair_mask", num_fields=6, embedding_dim=3).double()
    x_BFD = draw(4, 6, 3, seed=seed)
    fm = build("fm", num_fields=6, embedding_dim=3)
    # 0.6 was stored in single precision.
    torch.testing.assert_close(layer(x_BFD), 0.6 * fm(x_BFD), rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("seed", SEEDS)
def test_pair_mask_of_kept_pairs_is_that_of_all_whose_other_weights_are_zero(
    draw: Callable[..., Tensor], randomise: Randomise, seed: int
) -> None:
    keep = ((1, 4), (0, 2), (3, 4))
    kept = randomise(build("pair_mask", num_fields=5, embedding_dim=3, keep=keep), seed)
    whole = build("pair_mask", num_fields=5, embedding_dim=3).double()
    with torch.no_grad():
        whole.get_parameter(WEIGHT).zero_()
        for number, pair in enumerate(keep):
            place = all_pairs(5).index(pair)
            whole.get_parameter(WEIGHT)[place] = kept.get_parameter(WEIGHT)[number]
    x_BFD = draw(4, 5, 3, seed=seed)
    torch.testing.assert_close(kept(x_BFD), whole(x_BFD), rtol=0, atol=1e-12)


@pytest.mark.parametrize("seed", SEEDS)
def test_pair_mask_with_batch_norm_does_not_see_the_length_of_the_embeddings(
    draw: Callable[..., Tensor], randomise: Randomise, seed: int
) -> None:
    layer = randomise(build("pair_mask", num_fields=5, embedding_dim=3, batch_norm=True), seed)
    x_BFD = 10 * draw(50, 5, 3, seed=seed)
    lengths = 1 + draw(5, 1, seed=100 + seed).abs()
    torch.testing.assert_close(layer(x_BFD * lengths), layer(x_BFD), rtol=0, atol=1e-5)
    # The products are centred over the rows.
    assert layer(x_BFD).mean().item() == pytest.approx(0, abs=1e-10)


def test_the_weights_of_the_pairs_are_all_that_pair_mask_learns() -> None:
    layer = build("pair_mask", num_fields=5, embedding_dim=3, batch_norm=True)
    assert [name for name, _ in layer.named_parameters()] == [WEIGHT]
    # Scale and shift are no state either: they are 1 and 0 for good.
    told = {name.rpartition(".")[2] for name in layer.state_dict()}
    assert told == {"weight", "running_mean", "running_var", "num_batches_tracked"}
    assert len(layer.state_dict()) == 4


def test_a_compiled_pair_mask_with_batch_norm_gives_the_same_values(
    draw: Callable[..., Tensor], randomise: Randomise
) -> None:
    layer = randomise(build("pair_mask", num_fields=5, embedding_dim=3, batch_norm=True), 0)
    x_BFD = draw(6, 5, 3, seed=0)
    layer(x_BFD)
    layer.eval()
    compiled = torch.compile(layer, backend="aot_eager", fullgraph=True, dynamic=False)
    torch.testing.assert_close(compiled(x_BFD), layer(x_BFD), rtol=0, atol=1e-12)
    torch._dynamo.reset()


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("keep", [None, ((0, 2), (1, 3))])
def test_pair_mask_is_a_polynomial_of_the_degree_it_claims(
    draw: Callable[..., Tensor],
    randomise: Randomise,
    measure_degree: Callable[[nn.Module, Tensor], int | None],
    keep: Pairs | None,
    seed: int,
) -> None:
    layer = randomise(build("pair_mask", num_fields=5, embedding_dim=3, keep=keep), seed)
    assert measure_degree(layer, draw(2, 5, 3, seed=seed)) == layer.degree == 2
    normed = build("pair_mask", num_fields=5, embedding_dim=3, keep=keep, batch_norm=True)
    assert normed.degree is None


@pytest.mark.parametrize(
    ("keep", "line"),
    [
        ((), "keep must name a pair or more; got none. Leave it out to keep all."),
        (
            ((0, 1), (2, 1)),
            "keep must name pairs (i, j), 0 <= i < j < 4, each once; got (2, 1).",
        ),
        (((1, 1),), "keep must name pairs (i, j), 0 <= i < j < 4, each once; got (1, 1)."),
        (((0, 4),), "keep must name pairs (i, j), 0 <= i < j < 4, each once; got (0, 4)."),
        (((-1, 2),), "keep must name pairs (i, j), 0 <= i < j < 4, each once; got (-1, 2)."),
        (
            ((0, 1), (0, 1)),
            "keep must name pairs (i, j), 0 <= i < j < 4, each once; got (0, 1).",
        ),
    ],
)
def test_pair_mask_refuses_what_is_no_pair(keep: Pairs, line: str) -> None:
    with pytest.raises(ValueError, match=f"^{re.escape('pair_mask: ' + line)}$"):
        build("pair_mask", num_fields=4, embedding_dim=3, keep=keep)


def test_pair_mask_refuses_an_input_without_a_pair() -> None:
    line = (
        "pair_mask: needs two fields or more to form a pair; got 1. "
        "Let it read a node of shape (B, F, D)."
    )
    with pytest.raises(ValueError, match=f"^{re.escape(line)}$"):
        build("pair_mask", num_fields=1, embedding_dim=4)


@pytest.mark.parametrize("batch_norm", [False, True])
@pytest.mark.parametrize(
    ("keep", "pairs", "run"),
    # All inner products run as one matrix product of 5 fields with 5 fields.
    [(None, 10, 2 * 5 * 5 * 8), (((0, 1), (1, 4), (2, 3)), 3, 0)],
)
def test_pair_mask_counts_its_operations_and_parameters(
    count_matmul_flops: Callable[[nn.Module, int, int], int],
    count_parameters: Callable[[nn.Module], int],
    keep: Pairs | None,
    pairs: int,
    run: int,
    batch_norm: bool,
) -> None:
    layer = build("pair_mask", num_fields=5, embedding_dim=8, keep=keep, batch_norm=batch_norm)
    # Each pair takes 8 products and 7 sums, a norm 2, its weight a product; then they are summed.
    beside = pairs * (8 + 7 + 1 + (2 if batch_norm else 0)) + pairs - 1
    assert layer.flops.other == layer.flops_per_row == beside
    assert layer.flops.matmul == 0
    assert count_matmul_flops(layer.eval(), 5, 8) == run
    assert count_parameters(layer) == pairs
