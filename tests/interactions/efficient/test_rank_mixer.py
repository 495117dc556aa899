"""RankMixer's token mixing and per-token networks."""

import math
import re
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from recsys_had.interactions import build
from recsys_had.interactions.algebra import Interaction

SEEDS = range(5)
Randomise = Callable[[nn.Module, int], Interaction]
Row = list[list[float]]


def affine(op: nn.Module, row: Row) -> Row:
    """Every token by its own matrix and bias."""
    out = []
    for token, matrix, shifts in zip(row, op.weight.tolist(), op.bias.tolist(), strict=True):
        out.append(
            [
                sum(w * number for w, number in zip(line, token, strict=True)) + shift
                for line, shift in zip(matrix, shifts, strict=True)
            ]
        )
    return out


def layer_norm(op: nn.Module, row: Row) -> Row:
    out = []
    for token in row:
        mean = sum(token) / len(token)
        variance = sum((number - mean) ** 2 for number in token) / len(token)
        scaled = [(number - mean) / math.sqrt(variance + 1e-5) for number in token]
        scales, shifts = op.weight.tolist(), op.bias.tolist()
        out.append([z * a + b for z, a, b in zip(scaled, scales, shifts, strict=True)])
    return out


def sums(first: Row, second: Row) -> Row:
    return [
        [a + b for a, b in zip(*tokens, strict=True)] for tokens in zip(first, second, strict=True)
    ]


def mix(row: Row) -> Row:
    """Token h is head h of every token."""
    head_dim = len(row[0]) // len(row)
    out = []
    for head in range(len(row)):
        dealt: list[float] = []
        for token in row:
            dealt += token[head * head_dim : (head + 1) * head_dim]
        out.append(dealt)
    return out


def gelu(z: float) -> float:
    return z * (1 + math.erf(z / math.sqrt(2))) / 2


def plain_rank_mixer(row: Row, layer: Interaction, num_layers: int, num_tokens: int) -> Row:
    """Zhu et al. 2025: ``S = LN(mix(X) + X)``, then ``LN(FFN(S) + S)``."""
    flat = [number for field in row for number in field]
    width = len(flat) // num_tokens
    cut = [flat[t * width : (t + 1) * width] for t in range(num_tokens)]
    x = affine(layer.ops["lin_0"], cut)
    for number in range(num_layers):
        mixed = layer_norm(layer.ops[f"layernorm_{2 * number}"], sums(mix(x), x))
        hidden = affine(layer.ops[f"lin_{2 * number + 1}"], mixed)
        hidden = [[gelu(z) for z in token] for token in hidden]
        made = affine(layer.ops[f"lin_{2 * number + 2}"], hidden)
        x = layer_norm(layer.ops[f"layernorm_{2 * number + 1}"], sums(made, mixed))
    return x


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize(
    ("num_fields", "embedding_dim", "num_tokens"),
    [(1, 3, None), (3, 2, None), (4, 3, 4), (4, 3, 2), (2, 3, 6), (3, 1, 1)],
)
@pytest.mark.parametrize(("num_layers", "head_dim", "expansion"), [(1, 2, 4), (3, 2, 1), (2, 3, 2)])
def test_rank_mixer_equals_the_paper_written_with_loops(
    draw: Callable[..., Tensor],
    randomise: Randomise,
    num_layers: int,
    head_dim: int,
    expansion: int,
    num_fields: int,
    embedding_dim: int,
    num_tokens: int | None,
    seed: int,
) -> None:
    layer = build(
        "rank_mixer",
        num_fields=num_fields,
        embedding_dim=embedding_dim,
        num_layers=num_layers,
        num_tokens=num_tokens,
        head_dim=head_dim,
        expansion=expansion,
    )
    layer = randomise(layer, seed)
    x_BFD = draw(3, num_fields, embedding_dim, seed=seed)
    tokens = num_tokens or num_fields
    expected = torch.tensor(
        [plain_rank_mixer(row, layer, num_layers, tokens) for row in x_BFD.tolist()],
        dtype=torch.float64,
    )
    # A single token is flat.
    expected = expected.flatten(1) if tokens == 1 else expected
    torch.testing.assert_close(layer(x_BFD), expected, rtol=1e-10, atol=1e-10)


def test_rank_mixer_of_two_fields_of_two_numbers() -> None:
    layer = build(
        "rank_mixer", num_fields=2, embedding_dim=2, num_layers=1, head_dim=1, expansion=1
    ).double()
    identity = torch.eye(2, dtype=torch.float64)
    swap = identity.flip(0)
    with torch.no_grad():
        for name, weight in (
            ("lin_0", torch.stack([identity, 2 * identity])),
            ("lin_1", torch.stack([100 * identity, 100 * swap])),
            ("lin_2", torch.stack([swap / 50, identity / 25])),
        ):
            layer.get_parameter(f"ops.{name}.weight").copy_(weight)
        layer.get_parameter("ops.lin_0.bias").copy_(torch.tensor([[0.0, 1.0], [0.0, 0.0]]))
        layer.get_parameter("ops.layernorm_0.bias").copy_(torch.tensor([0.0, 2.0]))
        layer.get_parameter("ops.layernorm_1.weight").copy_(torch.tensor([1.0, 3.0]))
    # e = (5, 0), (1, 3). Token 1 is (5, 0 + 1), token 2 is 2 (1, 3) = (2, 6).
    # Heads of one number: mix = (5, 2), (1, 6); with the residual (10, 3), (3, 12)
    # LN: (1, -1), (-1, 1); with the bias (1, 1), (-1, 3)
    # Networks; gelu(100 z) is 100 z or 0:
    #   token 1: (100, 100), swapped over 50 (2, 2); plus (1, 1) = (3, 3)
    #   token 2: swapped (300, -100), so (300, 0); over 25 (12, 0); plus (-1, 3) = (11, 3)
    # LN: (0, 0), (1, -1), times (1, 3): (0, 0), (1, -3)
    row = torch.tensor([[[5.0, 0.0], [1.0, 3.0]]], dtype=torch.float64)
    # A layer norm adds 1e-5 to the variance, of 12 and 16 here.
    expected = torch.tensor([[[0.0, 0.0], [1.0, -3.0]]], dtype=torch.float64)
    torch.testing.assert_close(layer(row), expected, rtol=0, atol=1e-2)


def test_rank_mixer_gradients_equal_finite_differences(
    draw: Callable[..., Tensor],
    randomise: Randomise,
    check_gradients: Callable[[nn.Module, Tensor], bool],
) -> None:
    layer = build("rank_mixer", num_fields=3, embedding_dim=2, num_layers=2, expansion=1)
    assert check_gradients(randomise(layer, 0), draw(2, 3, 2, seed=0))


@pytest.mark.parametrize("seed", SEEDS)
def test_every_field_reaches_every_token_through_one_mixing(
    draw: Callable[..., Tensor], randomise: Randomise, seed: int
) -> None:
    layer = randomise(build("rank_mixer", num_fields=5, embedding_dim=3, num_layers=1), seed)
    x_BFD = draw(1, 5, 3, seed=seed)
    whole = layer(x_BFD)
    for field in range(5):
        changed = x_BFD.clone()
        changed[:, field] += 1
        assert ((layer(changed) - whole).abs() > 1e-9).any(dim=2).all()


@pytest.mark.parametrize("seed", SEEDS)
def test_rank_mixer_of_as_many_tokens_as_fields_is_that_of_the_fields(
    draw: Callable[..., Tensor], randomise: Randomise, seed: int
) -> None:
    implicit = randomise(build("rank_mixer", num_fields=5, embedding_dim=3), seed)
    explicit = randomise(build("rank_mixer", num_fields=5, embedding_dim=3, num_tokens=5), seed)
    x_BFD = draw(3, 5, 3, seed=seed)
    torch.testing.assert_close(explicit(x_BFD), implicit(x_BFD), rtol=0, atol=0)


@pytest.mark.parametrize("seed", SEEDS)
def test_the_tokens_of_rank_mixer_have_mean_zero_and_length_one_before_the_last_affine_map(
    draw: Callable[..., Tensor], seed: int
) -> None:
    torch.manual_seed(seed)
    layer = build("rank_mixer", num_fields=5, embedding_dim=3).double()
    out = layer(draw(4, 5, 3, seed=seed))
    torch.testing.assert_close(out.mean(dim=2), torch.zeros_like(out[:, :, 0]))
    torch.testing.assert_close(
        out.square().mean(dim=2), torch.ones_like(out[:, :, 0]), rtol=0, atol=1e-3
    )


@pytest.mark.parametrize(
    ("options", "line"),
    [
        ({"num_layers": 0}, "num_layers must be at least 1; got 0."),
        ({"num_tokens": 0}, "num_tokens must be at least 1; got 0."),
        ({"head_dim": -1}, "head_dim must be at least 1; got -1."),
        ({"expansion": 0}, "expansion must be at least 1; got 0."),
        ({"num_tokens": 5}, "reshape: (3, 4) cannot be cut into 5 equal tokens."),
    ],
)
def test_rank_mixer_refuses_what_it_cannot_build(options: dict[str, Any], line: str) -> None:
    with pytest.raises(ValueError, match=f"^{re.escape('rank_mixer: ' + line)}$"):
        build("rank_mixer", num_fields=3, embedding_dim=4, **options)


@pytest.mark.parametrize(("num_tokens", "tokens"), [(None, 4), (2, 2), (6, 6)])
def test_rank_mixer_counts_its_operations_and_parameters(
    count_matmul_flops: Callable[[nn.Module, int, int], int],
    count_parameters: Callable[[nn.Module], int],
    num_tokens: int | None,
    tokens: int,
) -> None:
    layer = build(
        "rank_mixer",
        num_fields=4,
        embedding_dim=3,
        num_layers=2,
        num_tokens=num_tokens,
        head_dim=2,
        expansion=5,
    )
    width = 2 * tokens
    # The row's 12 numbers, 12 / T a token, to T tokens; in each of 2 blocks a network a token.
    weights = 12 * width + 2 * tokens * (2 * width * 5 * width)
    # A block: two sums and two norms (7) of all numbers, a gelu of the hidden ones.
    beside = 2 * tokens * (2 * (1 + 7) * width + 5 * width)
    assert layer.flops.matmul == count_matmul_flops(layer, 4, 3) == 2 * weights
    assert layer.flops.other == beside
    assert layer.flops_per_row == 2 * weights + beside
    # A bias to every number made; a norm has two a channel.
    biases = tokens * width + 2 * (tokens * (5 * width + width) + 2 * 2 * width)
    assert count_parameters(layer) == weights + biases
