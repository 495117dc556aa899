"""Attention over pairs of fields (AFM)."""

from recsys_had.interactions._catalog import interaction, require, require_pairs
from recsys_had.interactions.algebra import Expr, Pairs, act, lin, outer, pool, softmax
from recsys_had.interactions.algebra import dropout as drop


@interaction(paper="Xiao et al. 2017, arXiv:1708.04617")
def afm(
    x: Expr,
    *,
    attention_dim: int = 16,
    attention_dropout: float = 0.0,
    dropout: float = 0.0,
    keep: Pairs | None = None,
) -> Expr:
    """Sums the Hadamard products of all pairs, weighted by an attention over the pairs.

    ``y = sum_{i<j} a_ij (e_i * e_j)`` with ``a = softmax(h^T relu(W (e_i * e_j) + b))`` over the
    pairs.

    Shape: ``(B, F, D) -> (B, D)``.
    Paper: Xiao et al. 2017, Attentional Factorization Machines, eq. 4-6 (arXiv:1708.04617).
    Differs from the paper: the bias and the linear part are nodes of their own, the map to one
    number is the head's, and dropout is on the attention and on the sum.

    Args:
        attention_dim: width of the attention's hidden layer.
        attention_dropout: share of the pairs dropped in training, after the softmax.
        dropout: share of the sum's coordinates dropped in training.
        keep: the pairs (i, j) that are left, i < j, fields counted from 0; all of them if None.

    Raises:
        ValueError: there is one field, a width below 1, a dropout outside [0, 1), or ``keep`` is
            empty or names what is no pair, or one twice.

    >>> import torch
    >>> from recsys_had.interactions import build
    >>> build("afm", num_fields=4, embedding_dim=8)(torch.zeros(2, 4, 8)).shape
    torch.Size([2, 8])
    """
    require_pairs(x)
    require(attention_dim=attention_dim)
    products = outer(x, x, "upper" if keep is None else keep)
    attention = lin(act(lin(products, out=attention_dim, bias=True), "relu"), out=1)
    weights = drop(softmax(attention, "T"), attention_dropout)
    return drop(pool(products * weights, "T"), dropout)
