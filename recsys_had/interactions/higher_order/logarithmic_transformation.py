"""Products of learned real powers of the fields (AFN)."""

from recsys_had.interactions._catalog import interaction, require
from recsys_had.interactions.algebra import Expr, act, lin, norm
from recsys_had.interactions.algebra.pointwise import log_abs


@interaction(paper="Cheng et al. 2020, arXiv:1909.03276")
def logarithmic_transformation(x: Expr, *, num_neurons: int = 64, batch_norm: bool = True) -> Expr:
    """Multiplies the fields, each to a learned power, once for every neuron.

    ``y_k = BN(exp(sum_i w_ki BN(ln max(|e_i|, 1e-5))))``, without the normalisations ``prod_i
    max(|e_i|, 1e-5)^w_ki``. BN normalises a field, or a neuron, over the batch and D. The first
    one's bias is undone by the second while training, but for a trace.

    Shape: ``(B, F, D) -> (B, K, D)``, K = num_neurons.
    Paper: Cheng et al. 2020, Adaptive Factorization Network (arXiv:1909.03276), its logarithmic
    transformation layer.
    Differs from the paper: sizes are clipped at 1e-5 and a neuron has no bias, as in the open
    benchmark's code; the authors' own clips at 1e-4 and has one.

    Args:
        num_neurons: K, the products.
        batch_norm: normalise the logarithms and the products over the batch of all ranks.

    Raises:
        ValueError: ``num_neurons`` is below 1.

    >>> import torch
    >>> from recsys_had.interactions import build
    >>> layer = build("logarithmic_transformation", num_fields=3, embedding_dim=4, num_neurons=5)
    >>> layer(torch.zeros(2, 3, 4)).shape
    torch.Size([2, 5, 4])
    """
    require(num_neurons=num_neurons)
    logs = norm(log_abs(x), "token_batch") if batch_norm else log_abs(x)
    products = act(lin(logs, "T", out=num_neurons), "exp")
    return norm(products, "token_batch") if batch_norm else products
