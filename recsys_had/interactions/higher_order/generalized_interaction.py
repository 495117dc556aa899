"""Products of mapped fields in subspaces of their own (AOANet's generalized interaction)."""

from recsys_had.interactions._catalog import interaction, require
from recsys_had.interactions.algebra import Expr, cat, constant, lin, pool


@interaction(paper="Lang et al. 2021, doi 10.1145/3447548.3467133")
def generalized_interaction(x: Expr, *, num_layers: int = 3, num_subspaces: int = 4) -> Expr:
    """Weighs and maps the products of fields with a layer's vectors, once for each subspace.

    ``y_o = sum_ij alpha_oij (x_i * V_o b_j)``, and ``b`` of the next layer is all ``y_o`` of this
    one; the first has ``b = x``. With ``alpha`` of 1 and ``V`` the identity this is a product of
    two sums, as in FM; other operations of pairs are other ``alpha`` and ``V``. The pairs are never
    made: ``sum_j (sum_i alpha_oij x_i) * V_o b_j``.

    Shape: ``(B, F, D) -> (B, num_subspaces, D)``.
    Paper: Lang et al. 2021, Architecture and Operation Adaptive Network (doi
    10.1145/3447548.3467133).
    Differs from the paper: its ``V_o`` is a matrix whose columns are weighed by a vector, here a
    matrix with a learned diagonal beside: as many numbers, the same functions. ``V_o`` begins as
    the identity, as in the published code, and ``alpha`` near the 1 it begins at there, from where
    all subspaces below the last layer would stay the same; from the second layer on near
    ``1 / num_subspaces``, so that numbers do not grow with the subspaces. The search for an
    architecture, which prunes ``alpha``, is left out.

    Args:
        num_layers: number of layers, each of which adds 1 to the degree.
        num_subspaces: vectors of each layer.

    Raises:
        ValueError: an option is below 1.

    >>> import torch
    >>> from recsys_had.interactions import build
    >>> layer = build("generalized_interaction", num_fields=5, embedding_dim=8, num_layers=2)
    >>> layer(torch.zeros(2, 5, 8)).shape, layer.degree
    (torch.Size([2, 4, 8]), 3)
    """
    require(num_layers=num_layers, num_subspaces=num_subspaces)
    below, size = x, 1.0
    for _ in range(num_layers):
        below = cat(*(_subspace(x, below, size) for _ in range(num_subspaces)))
        size = 1 / num_subspaces
    return below


def _subspace(x: Expr, below: Expr, size: float) -> Expr:
    weighed = lin(x, "T", out=below.num_tokens, std=0.01 * size, mean=size)
    mapped = lin(below, std=0.0) + below * constant(1, below.num_channels, mean=1.0)
    return pool(weighed * mapped, "T")
