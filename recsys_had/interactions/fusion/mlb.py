"""Low-rank bilinear pooling of two inputs."""

from recsys_had.interactions._catalog import interaction, require
from recsys_had.interactions.algebra import Activation, Expr, act, flatten, lin


@interaction(paper="Kim et al. 2017, arXiv:1610.04325")
def mlb(
    x: Expr, y: Expr, *, rank: int = 64, out: int = 64, activation: Activation = "tanh"
) -> Expr:
    """Multiplies two inputs in a common low-rank space.

    ``z = P^T (tanh(U^T x) * tanh(V^T y)) + b``.

    Shape: ``(B, F, D), (B, F', D') -> (B, out)``.
    Paper: Kim et al. 2017, Hadamard Product for Low-rank Bilinear Pooling (arXiv:1610.04325).
    Differs from the paper: the activation is an option; with ``identity`` it is of degree 2.

    Args:
        rank: width of the common space.
        out: width of the output.
        activation: of both maps.

    Raises:
        ValueError: a width below 1, or no such activation.

    >>> import torch
    >>> from recsys_had.interactions import build
    >>> layer = build("mlb", num_fields=3, embedding_dim=4, out=5)
    >>> layer(torch.zeros(2, 3, 4), torch.zeros(2, 3, 4)).shape
    torch.Size([2, 5])
    """
    require(rank=rank, out=out)
    first, second = (act(lin(flatten(part), out=rank), activation) for part in (x, y))
    return lin(first * second, out=out, bias=True)
