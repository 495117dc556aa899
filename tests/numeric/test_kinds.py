"""Each kind equals its paper's equations written with Python loops, and a case done by hand."""

import math
from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from recsys_had import numeric
from recsys_had.numeric._encoder import Encoder
from recsys_had.numeric.autodis import AutoDis
from recsys_had.numeric.mlp import BottomMlp
from recsys_had.numeric.periodic import Periodic
from recsys_had.numeric.piecewise_linear import PiecewiseLinear
from recsys_had.numeric.scale import Scale

B, C, D = 5, 2, 3
Make = Callable[..., Encoder]
Draw = Callable[..., Tensor]


@pytest.fixture
def make(make: Make) -> Make:
    """Weights that Python may read as numbers."""
    return lambda kind, **options: make(kind, **options).requires_grad_(False)


def test_scale_is_the_value_times_a_vector_plus_the_bias(make: Make, draw: Draw) -> None:
    encoder = make("scale", bias=True)
    x, w, b = draw(B, C, seed=1), draw(C, D, seed=2), encoder.bias
    found = encoder(x, w)
    for row in range(B):
        for column in range(C):
            for d in range(D):
                expected = x[row, column] * w[column, d] + b[column, d]
                assert found[row, column, d].item() == pytest.approx(expected.item(), abs=1e-12)
    assert numeric.build("scale", num_columns=C, embedding_dim=D).state_dict() == {}


@pytest.mark.parametrize("relu", [False, True])
def test_periodic_is_a_map_of_sines_and_cosines(make: Make, draw: Draw, relu: bool) -> None:
    encoder = make("periodic", num_frequencies=2, relu=relu)
    assert isinstance(encoder, Periodic)
    x = draw(B, C, seed=1)
    found = encoder(x)
    for row in range(B):
        for column in range(C):
            phases = [2 * math.pi * f * float(x[row, column]) for f in encoder.frequencies[column]]
            waves = [math.sin(p) for p in phases] + [math.cos(p) for p in phases]
            for d in range(D):
                value = float(encoder.linear.bias[column, d]) + sum(
                    float(encoder.linear.weight[column, k, d]) * wave
                    for k, wave in enumerate(waves)
                )
                expected = max(value, 0.0) if relu else value
                assert found[row, column, d].item() == pytest.approx(expected, abs=1e-12)


def test_periodic_by_hand() -> None:
    """x = 1/4 at the frequency 1 is a quarter of a turn: sine 1, cosine 0."""
    encoder = Periodic(num_columns=1, embedding_dim=1, num_frequencies=1).double()
    with torch.no_grad():
        encoder.frequencies.fill_(1.0)
        encoder.linear.weight.copy_(torch.tensor([[[3.0], [5.0]]]))
        encoder.linear.bias.fill_(0.5)
    assert encoder(torch.tensor([[0.25]], dtype=torch.float64)).item() == pytest.approx(3.5)
    assert encoder(torch.tensor([[0.5]], dtype=torch.float64)).item() == pytest.approx(-4.5)


def test_frequencies_start_as_wide_as_sigma_says() -> None:
    torch.manual_seed(0)
    encoder = Periodic(num_columns=50, embedding_dim=1, num_frequencies=200, sigma=0.1)
    assert encoder.frequencies.std().item() == pytest.approx(0.1, rel=0.05)
    assert encoder.frequencies.mean().item() == pytest.approx(0.0, abs=0.005)


@pytest.mark.parametrize("relu", [False, True])
def test_piecewise_linear_is_a_map_of_the_shares_of_bins(
    make: Make, draw: Draw, relu: bool
) -> None:
    """The second column has a single bin, first and last at once; two more have no width."""
    encoder = make("piecewise_linear", relu=relu)
    assert isinstance(encoder, PiecewiseLinear)
    x = 2 * draw(40, C, seed=1)
    found = encoder(x)
    for row in range(len(x)):
        for column, edges in enumerate(([-1.0, -0.5, 0.75, 2.0], [0.0, 3.0])):
            value, shares = float(x[row, column]), []
            for t in range(1, len(edges)):
                if value < edges[t - 1] and t > 1:
                    shares.append(0.0)
                elif value >= edges[t] and t < len(edges) - 1:
                    shares.append(1.0)
                else:
                    shares.append((value - edges[t - 1]) / (edges[t] - edges[t - 1]))
            for d in range(D):
                total = float(encoder.linear.bias[column, d]) + sum(
                    float(encoder.linear.weight[column, t, d]) * share
                    for t, share in enumerate(shares)
                )
                expected = max(total, 0.0) if relu else total
                assert found[row, column, d].item() == pytest.approx(expected, abs=1e-12)


def test_shares_of_bins_by_hand() -> None:
    """Edges 0, 2, 4: below the first edge and above the last the line goes on."""
    encoder = PiecewiseLinear(num_columns=1, embedding_dim=1, num_bins=4)
    encoder.set_edges(0, torch.tensor([0.0, 2.0, 4.0]))
    shares = encoder.encode(torch.tensor([[-1.0], [0.0], [1.0], [2.0], [3.0], [4.0], [6.0]]))
    assert shares[:, 0].tolist() == [
        [-0.5, 0.0, 0.0, 0.0],
        [0.0, 0.0, 0.0, 0.0],
        [0.5, 0.0, 0.0, 0.0],
        [1.0, 0.0, 0.0, 0.0],
        [1.0, 0.5, 0.0, 0.0],
        [1.0, 1.0, 0.0, 0.0],
        [1.0, 2.0, 0.0, 0.0],
    ]


def test_bins_that_were_not_given_are_seen_and_a_single_edge_is_no_bin() -> None:
    encoder = PiecewiseLinear(num_columns=2, embedding_dim=3, num_bins=4)
    encoder.set_edges(1, torch.tensor([7.0]))
    found = encoder(torch.tensor([[1.0, 1e6]]))
    assert found[0, 0].isnan().all()
    torch.testing.assert_close(found[0, 1], encoder.linear.bias[1])


@pytest.mark.parametrize("learn_temperature", [False, True])
def test_autodis_averages_meta_embeddings_by_a_softmax(
    make: Make, draw: Draw, learn_temperature: bool
) -> None:
    encoder = make(
        "autodis",
        num_meta_embeddings=4,
        alpha=0.3,
        temperature=0.5,
        learn_temperature=learn_temperature,
    )
    assert isinstance(encoder, AutoDis)
    x = draw(B, C, seed=1)
    found = encoder(x)
    for row in range(B):
        for column in range(C):
            tau = 0.5
            if encoder.log_temperature is not None:
                tau = math.exp(float(encoder.log_temperature[column]))
            h = [float(w) * float(x[row, column]) for w in encoder.first[column]]
            h = [value if value > 0 else 0.01 * value for value in h]
            z = [
                sum(h[i] * float(encoder.second[column, i, j]) for i in range(4)) + 0.3 * h[j]
                for j in range(4)
            ]
            total = sum(math.exp(value / tau) for value in z)
            for d in range(D):
                expected = sum(
                    math.exp(z[j] / tau) / total * float(encoder.meta_embeddings[column, j, d])
                    for j in range(4)
                )
                assert found[row, column, d].item() == pytest.approx(expected, abs=1e-12)


def test_autodis_by_hand() -> None:
    """x = 2: h = (2, -0.02), z = 0.5 h, tau = 1.01: weights e and 1 over 1 + e."""
    encoder = AutoDis(
        num_columns=1, embedding_dim=1, num_meta_embeddings=2, alpha=0.5, temperature=1.01
    ).double()
    with torch.no_grad():
        encoder.first.copy_(torch.tensor([[1.0, -1.0]]))
        encoder.second.zero_()
        encoder.meta_embeddings.copy_(torch.tensor([[[1.0], [0.0]]]))
    found = encoder(torch.tensor([[2.0]], dtype=torch.float64)).item()
    assert found == pytest.approx(math.e / (1 + math.e), abs=1e-12)


def test_a_learned_temperature_starts_at_the_one_given() -> None:
    torch.manual_seed(1)
    fixed = AutoDis(num_columns=2, embedding_dim=3, temperature=0.3)
    torch.manual_seed(1)
    learned = AutoDis(num_columns=2, embedding_dim=3, temperature=0.3, learn_temperature=True)
    x = torch.randn(4, 2)
    torch.testing.assert_close(learned(x), fixed(x))
    assert [name for name, _ in learned.named_parameters()][-1] == "log_temperature"


def test_mlp_joins_all_columns_into_one_field(make: Make, draw: Draw) -> None:
    encoder = make("mlp", hidden_units=(4,))
    assert isinstance(encoder, BottomMlp)
    x = draw(B, C, seed=1)
    found = encoder(x)
    assert found.shape == (B, 1, D)
    for row in range(B):
        h = [float(value) for value in x[row]]
        for layer in encoder.layers:
            weight, bias = layer.weight, layer.bias
            h = [
                max(0.0, float(bias[j]) + sum(float(weight[j, i]) * h[i] for i in range(len(h))))
                for j in range(len(bias))
            ]
        assert found[row, 0].tolist() == pytest.approx(h, abs=1e-12)


def test_mlp_by_hand() -> None:
    """(1, -2) through (1, 1) is -1, through (2, 0) is 2; relu: (0, 2); the last map 3 * 2 + 1."""
    encoder = BottomMlp(num_columns=2, embedding_dim=1, hidden_units=(2,))
    with torch.no_grad():
        for layer, weight, bias in zip(
            encoder.layers, ([[1.0, 1.0], [2.0, 0.0]], [[5.0, 3.0]]), ([0.0, 0.0], [1.0]),
            strict=True,
        ):  # fmt: skip
            layer.weight.copy_(torch.tensor(weight))
            layer.bias.copy_(torch.tensor(bias))
    assert encoder(torch.tensor([[1.0, -2.0]])).tolist() == [[[7.0]]]


def test_none_makes_no_field() -> None:
    encoder = numeric.build("none", num_columns=2, embedding_dim=3)
    assert encoder(torch.zeros(4, 2)).shape == (4, 0, 3)


def test_scale_by_hand() -> None:
    encoder = Scale(num_columns=1, embedding_dim=2, bias=True)
    with torch.no_grad():
        encoder.bias.copy_(torch.tensor([[1.0, -1.0]]))
    assert encoder(torch.tensor([[3.0]]), torch.tensor([[2.0, 0.5]])).tolist() == [[[7.0, 0.5]]]
