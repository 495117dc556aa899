"""Gates that are the same for every row (FinalMLP's feature selection without a context)."""

from recsys_had.interactions._catalog import interaction
from recsys_had.interactions.algebra import Expr, constant
from recsys_had.interactions.modulation.feature_selection import feature_selection


@interaction(paper="Mao et al. 2023, arXiv:2304.00902")
def learned_gate(x: Expr, *, hidden_units: tuple[int, ...] = (64,)) -> Expr:
    """Scales every number of the input by a learned gate, the same for every row.

    ``y = 2 sigmoid(mlp(c)) * x`` as ``feature_selection`` has it, with a learned vector ``c``, as
    wide as a field, in place of chosen fields. The gates depend on no row, so the degree stays.

    Shape: ``(B, F, D) -> (B, F, D)``.
    Paper: Mao et al. 2023, FinalMLP, the stream-specific feature selection where no field is
    chosen as its context (arXiv:2304.00902).
    Differs from the paper: the authors' code begins with a vector of zeros; here it is small, since
    relu layers whose biases begin at 0 pass neither zeros nor their gradient.

    Args:
        hidden_units: width of each hidden layer of the gate's network.

    Raises:
        ValueError: no hidden layer, or a width below 1.

    >>> import torch
    >>> from recsys_had.interactions import build
    >>> build("learned_gate", num_fields=3, embedding_dim=4)(torch.zeros(2, 3, 4)).shape
    torch.Size([2, 3, 4])
    """
    context = constant(1, x.num_channels, std=0.01)
    return feature_selection(x, context, hidden_units=hidden_units)
