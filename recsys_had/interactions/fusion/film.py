"""Feature-wise linear modulation."""

from recsys_had.interactions._catalog import interaction
from recsys_had.interactions.algebra import Expr, flatten, lin

# So that the input passes as it is at the beginning, whatever the context.
_NEAR_ZERO = 1e-3


@interaction(paper="Perez et al. 2018, arXiv:1709.07871")
def film(x: Expr, context: Expr) -> Expr:
    """Scales and shifts the channels of the first input as the second one says.

    ``y = gamma(c) * x + beta(c)`` with ``gamma`` and ``beta`` linear maps of the flattened context
    to a number for each channel, the same for all fields; ``gamma`` begins around 1 and
    ``beta`` around 0.

    Shape: ``(B, F, D), (B, F', D') -> (B, F, D)``.
    Paper: Perez et al. 2018, FiLM, eq. 1-2 (arXiv:1709.07871).
    Differs from the paper: nothing; the generator is a linear map.

    >>> import torch
    >>> from recsys_had.interactions import build
    >>> layer = build("film", num_fields=3, embedding_dim=4)
    >>> layer(torch.zeros(2, 3, 4), torch.zeros(2, 3, 4)).shape
    torch.Size([2, 3, 4])
    """
    read = flatten(context)
    scale = lin(read, out=x.num_channels, bias=1.0, std=_NEAR_ZERO)
    return scale * x + lin(read, out=x.num_channels, bias=True, std=_NEAR_ZERO)
