"""Gates from chosen fields (FinalMLP's feature selection)."""

from recsys_had.interactions._catalog import interaction, require_widths
from recsys_had.interactions.algebra import Expr, act, flatten, lin, reshape


@interaction(paper="Mao et al. 2023, arXiv:2304.00902")
def feature_selection(x: Expr, context: Expr, *, hidden_units: tuple[int, ...] = (64,)) -> Expr:
    """Scales every number of the first input by a gate that the second one alone sets.

    ``y = 2 sigmoid(mlp(c)) * x``: ``c`` is the flattened context, the fields by which one stream is
    to see the others; ``mlp`` has relu layers and a linear one as wide as ``x``. A gate lies
    between 0 and 2, and begins near 1 where embeddings are small. ``lhuc`` reads ``x`` too;
    ``learned_gate`` needs no context.

    Shape: ``(B, F, D), (B, F', D') -> (B, F, D)``.
    Paper: Mao et al. 2023, FinalMLP, the stream-specific feature selection (arXiv:2304.00902).
    Differs from the paper: nothing. The authors' code gives each context tables of its own, which
    here are a set of the experiment's ``tables``.

    Args:
        hidden_units: width of each hidden layer of the gate's network.

    Raises:
        ValueError: no hidden layer, or a width below 1.

    >>> import torch
    >>> from recsys_had.interactions import build
    >>> layer = build("feature_selection", num_fields=3, embedding_dim=4)
    >>> layer(torch.zeros(2, 3, 4), torch.zeros(2, 3, 4)).shape
    torch.Size([2, 3, 4])
    """
    require_widths(hidden_units)
    hidden = flatten(context)
    for units in hidden_units:
        hidden = act(lin(hidden, out=units, bias=True), "relu")
    width = x.num_tokens * x.num_channels
    gates = act(lin(hidden, out=width, bias=True), "sigmoid")
    return 2.0 * reshape(gates, x.num_tokens) * x
