"""The linear part of a model."""

from recsys_had.interactions._catalog import interaction
from recsys_had.interactions.algebra import Expr, flatten, pool


@interaction(paper="Richardson et al. 2007, Predicting Clicks", own_tables=lambda fields, dim: 1)
def linear(x: Expr) -> Expr:
    """Sums the weights of a row's ids.

    ``y = sum_i w_i``, where ``w_i`` is row ``id_i`` of field i's own table of width 1; of a dense
    input, its value times a learned weight. The model's bias is the graph's.

    Shape: ``(B, F, D) -> (B, 1)``; D is 1 on the layer's own tables.
    Paper: Richardson et al. 2007, Predicting Clicks, eq. 1 (logistic regression).
    Differs from the paper: the bias is counted once in the graph, not here.

    >>> import torch
    >>> from recsys_had.interactions import build
    >>> build("linear", num_fields=2, embedding_dim=1)(torch.tensor([[[3.0], [4.0]]]))
    tensor([[7.]])
    """
    return pool(flatten(x), "C")
