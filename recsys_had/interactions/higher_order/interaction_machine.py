"""Products of up to so many fields, channel by channel (DeepIM's interaction machine)."""

from recsys_had.interactions._catalog import interaction, require, require_pairs
from recsys_had.interactions._symmetric import symmetric_sums
from recsys_had.interactions.algebra import Expr, cat


@interaction(paper="Yu et al. 2020, doi 10.1145/3340531.3412077")
def interaction_machine(x: Expr, *, order: int = 3) -> Expr:
    """Sums the Hadamard products of all sets of one field, of two, up to ``order``, each apart.

    ``y_m = sum_{i1<...<im} e_i1 * ... * e_im`` for ``m`` from 1 to ``order``, from power sums by
    Newton's identities: linear in the number of fields, whatever the order. HOFM adds up these
    numbers; here each order keeps its D, for whatever reads them to weigh.

    Shape: ``(B, F, D) -> (B, min(order, F), D)``.
    Paper: Yu et al. 2020, Deep Interaction Machine (doi 10.1145/3340531.3412077).
    Differs from the paper: the map that weighs them, and the batch normalisation it may have before
    it, are nodes of their own.

    Args:
        order: the largest number of fields multiplied, where there are as many; the polynomial
            degree.

    Raises:
        ValueError: ``order`` is below 1, or there is one field.

    >>> import torch
    >>> from recsys_had.interactions import build
    >>> layer = build("interaction_machine", num_fields=3, embedding_dim=1)
    >>> layer(torch.tensor([[[2.0], [3.0], [5.0]]]))  # 2 + 3 + 5, 2*3 + 2*5 + 3*5, 2*3*5
    tensor([[[10.],
             [31.],
             [30.]]])
    """
    require(order=order)
    require_pairs(x)
    return cat(*symmetric_sums(x, min(order, x.num_tokens)))
