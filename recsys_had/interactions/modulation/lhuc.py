"""Gates from a context (LHUC, PPNet)."""

from recsys_had.interactions._catalog import interaction, require
from recsys_had.interactions.algebra import Expr, act, cat, flatten, lin, reshape, stop_gradient

# So that every gate begins at 1, whatever the input.
_NEAR_ZERO = 1e-3


@interaction(paper="Swietojanski et al. 2016, arXiv:1601.02828")
def lhuc(x: Expr, context: Expr, *, hidden_units: int = 64, reads_x: bool = True) -> Expr:
    """Scales every number of the first input by a gate that the second one sets.

    ``y = 2 sigmoid(W2 relu(W1 [c ; sg(x)] + b1) + b2) * x``: ``c`` is the flattened context (user,
    author or scenario fields) and ``sg`` stops the gradient, so the gates never train what they
    scale. A gate lies between 0 and 2 and begins near 1. With ``reads_x=False`` the gate network
    reads ``c`` alone.

    Shape: ``(B, F, D), (B, F', D') -> (B, F, D)``.
    Paper: Swietojanski et al. 2016, LHUC (arXiv:1601.02828), with PPNet's gate on context
    and features (Chang et al. 2023, PEPNet, arXiv:2302.01115).
    Differs from the paper: the scaled input is a node of the graph, not every layer of one network.
    PPNet's gates of all layers read the embeddings, by default a gate reads what it scales; the
    definition ``ppnet`` hands the embeddings on as context.

    Args:
        hidden_units: width of the gate's hidden layer.
        reads_x: whether the gates read what they scale.

    Raises:
        ValueError: a width below 1.

    >>> import torch
    >>> from recsys_had.interactions import build
    >>> layer = build("lhuc", num_fields=3, embedding_dim=4)
    >>> layer(torch.zeros(2, 3, 4), torch.zeros(2, 3, 4)).shape
    torch.Size([2, 3, 4])
    """
    require(hidden_units=hidden_units)
    read = flatten(context)
    if reads_x:
        read = cat(read, stop_gradient(flatten(x)), on="C")
    hidden = act(lin(read, out=hidden_units, bias=True), "relu")
    width = x.num_tokens * x.num_channels
    gates = act(lin(hidden, out=width, bias=True, std=_NEAR_ZERO), "sigmoid")
    return 2.0 * reshape(gates, x.num_tokens) * x
