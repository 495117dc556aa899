"""The deep part: a multi-layer perceptron."""

from recsys_had.interactions._catalog import interaction, require_widths
from recsys_had.interactions.algebra import Activation, Expr, act, flatten, lin, norm
from recsys_had.interactions.algebra import dropout as drop


@interaction(paper="Guo et al. 2017, arXiv:1703.04247")
def mlp(
    x: Expr,
    *,
    hidden_units: tuple[int, ...] = (400, 400, 400),
    activation: Activation = "relu",
    dropout: float = 0.0,
    batch_norm: bool = False,
) -> Expr:
    """Learns interactions implicitly, through layers of linear maps and activations.

    ``h[l+1] = dropout(act(W[l] h[l] + b[l]))`` from the flattened input on, or with batch
    normalisation ``dropout(act(norm(W[l] h[l])))``.

    Shape: ``(B, F, D) -> (B, hidden_units[-1])``.
    Paper: Guo et al. 2017, DeepFM, sec. 2.1 (arXiv:1703.04247), the deep component.
    Differs from the paper: batch normalisation, between map and activation, by option.

    Args:
        hidden_units: width of each layer.
        activation: of every layer.
        dropout: share of units dropped in training.
        batch_norm: normalise over the batch of all ranks. The maps then have no bias: a mean that
            is taken away takes it too, and its gradient would be rounding, of which Adam makes
            full steps.

    Raises:
        ValueError: no layer, a width below 1, a dropout outside [0, 1), no such activation.

    >>> import torch
    >>> from recsys_had.interactions import build
    >>> layer = build("mlp", num_fields=3, embedding_dim=4, hidden_units=(8, 5))
    >>> layer(torch.zeros(2, 3, 4)).shape
    torch.Size([2, 5])
    """
    require_widths(hidden_units)
    hidden = flatten(x)
    for units in hidden_units:
        hidden = lin(hidden, out=units, bias=not batch_norm)
        hidden = norm(hidden, "batch") if batch_norm else hidden
        hidden = drop(act(hidden, activation), dropout)
    return hidden
