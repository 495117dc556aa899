"""Token mixing without parameters (RankMixer)."""

from recsys_had.interactions._catalog import interaction, require
from recsys_had.interactions.algebra import Expr, act, lin, norm, reshape, take


@interaction(paper="Zhu et al. 2025, arXiv:2507.15551")
def rank_mixer(
    x: Expr,
    *,
    num_layers: int = 2,
    num_tokens: int | None = None,
    head_dim: int = 2,
    expansion: int = 4,
) -> Expr:
    """Deals the parts of every token out to all tokens, and gives each token a network of its own.

    ``S = LN(mix(X[l]) + X[l])``; ``X[l+1] = LN(FFN(S) + S)``. Token h of ``mix(X)`` is the h-th of
    T heads of every token, side by side. ``FFN_t(s) = W2_t gelu(W1_t s + b1_t) + b2_t`` has weights
    of each token's own. ``X[0]`` is the row cut into T tokens, each mapped by itself to T heads.

    Shape: ``(B, F, D) -> (B, T, T*head_dim)`` with T the number of tokens.
    Paper: Zhu et al. 2025, RankMixer, the dense block (arXiv:2507.15551).
    Differs from the paper: a field is a token unless ``num_tokens`` cuts the row otherwise, where
    it groups fields by meaning first; the width is told by a head's, so that T heads always fit.
    Its sparse mixture of experts is left out, and the mean over the tokens is the next node's.

    Args:
        num_layers: number of blocks.
        num_tokens: T, equal parts the row is cut into; None for the fields.
        head_dim: width of a head; a token is T heads wide.
        expansion: how many times wider than a token its network's hidden layer is.

    Raises:
        ValueError: an option is below 1, or the row cannot be cut into so many equal tokens.

    >>> import torch
    >>> from recsys_had.interactions import build
    >>> build("rank_mixer", num_fields=6, embedding_dim=4)(torch.zeros(2, 6, 4)).shape
    torch.Size([2, 6, 12])
    """
    require(num_layers=num_layers, num_tokens=num_tokens, head_dim=head_dim, expansion=expansion)
    tokens = x.num_tokens if num_tokens is None else num_tokens
    width = tokens * head_dim
    x = lin(reshape(x, tokens), out=width, per="T", bias=True)
    for _ in range(num_layers):
        mixed = norm(_mix(x) + x)
        hidden = act(lin(mixed, out=expansion * width, per="T", bias=True), "gelu")
        x = norm(lin(hidden, out=width, per="T", bias=True) + mixed)
    return x


def _mix(x: Expr) -> Expr:
    """Gives token h the h-th head of every token; they are as many as the heads."""
    num = x.num_tokens
    order = (token * num + head for head in range(num) for token in range(num))
    return reshape(take(reshape(x, num * num), *order), num)
