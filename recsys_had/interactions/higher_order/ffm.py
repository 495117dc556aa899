"""The pairwise part of a field-aware factorization machine."""

from recsys_had.interactions._catalog import interaction
from recsys_had.interactions.algebra import Expr, pool
from recsys_had.interactions.higher_order.field_aware_products import field_aware_products


@interaction(
    paper="Juan et al. 2016, Field-aware Factorization Machines for CTR Prediction",
    own_tables=lambda fields, dim: (fields - 1) * dim,
)
def ffm(x: Expr) -> Expr:
    """Sums the inner products of all pairs of fields, each by its vector for the other.

    ``y = sum_{i<j} <e_i^(j), e_j^(i)>``, where field i has a vector for every other field j, in
    tables of the layer's own.

    Shape: ``(B, F, (F-1)*D) -> (B, 1)``; the order of a field's vectors is that of
    ``field_aware_products``.
    Paper: Juan et al. 2016, Field-aware Factorization Machines for CTR Prediction.
    Differs from the paper: the linear part is a node of its own.

    Raises:
        ValueError: there is one field, or no vector for each other field.

    >>> import torch
    >>> from recsys_had.interactions import build
    >>> layer = build("ffm", num_fields=2, embedding_dim=2)
    >>> layer(torch.tensor([[[1.0, 2.0], [3.0, 4.0]]]))
    tensor([[11.]])
    """
    return pool(field_aware_products(x, how="inner"), "T")
