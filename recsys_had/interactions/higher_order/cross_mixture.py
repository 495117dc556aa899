"""A mixture of low-rank crosses (DCN-V2)."""

from recsys_had.interactions._catalog import interaction, require
from recsys_had.interactions.algebra import Expr, act, add, chunk, constant, flatten, lin, softmax


@interaction(paper="Wang et al. 2021, arXiv:2008.13535")
def cross_mixture(x: Expr, *, num_layers: int = 3, num_experts: int = 4, rank: int = 32) -> Expr:
    """Crosses in several low-rank subspaces, weighted by the row itself.

    ``x[l+1] = sum_k g_k(x[l]) [x[0] * (U_k tanh(C_k tanh(V_k^T x[l])) + b)] + x[l]`` with ``g`` a
    softmax of a linear map and ``b`` shared by the experts of a layer.

    Shape: ``(B, F, D) -> (B, F*D)``.
    Paper: Wang et al. 2021, DCN V2, eq. 3-4 (arXiv:2008.13535).
    Differs from the paper: nothing; the activation it leaves open is tanh, as in its published
    code.

    Args:
        num_layers: number of crosses.
        num_experts: K, subspaces of each.
        rank: width of each subspace.

    Raises:
        ValueError: an option is below 1.

    >>> import torch
    >>> from recsys_had.interactions import build
    >>> build("cross_mixture", num_fields=3, embedding_dim=4)(torch.zeros(2, 3, 4)).shape
    torch.Size([2, 12])
    """
    require(num_layers=num_layers, num_experts=num_experts, rank=rank)
    first = crossed = flatten(x)

    def expert(hidden: Expr, bias: Expr) -> Expr:
        narrow = act(lin(act(lin(hidden, out=rank), "tanh")), "tanh")
        return first * (lin(narrow, out=first.num_channels) + bias)

    for _ in range(num_layers):
        gates = chunk(softmax(lin(crossed, out=num_experts), "C"), num_experts)
        bias = constant(*first.shape)
        crossed = add(*(gate * expert(crossed, bias) for gate in gates), crossed)
    return crossed
