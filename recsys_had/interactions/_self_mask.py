"""The self-masked factor of a fusing cross network's layers."""

from recsys_had.interactions.algebra import Expr, act, cat, constant, flatten, lin, norm, reshape


def self_masked(x: Expr, *, masked: bool) -> Expr:
    """``[h ; h * relu(LN(h))] + b`` with ``h = W x`` half as wide as the row ``x``.

    The two halves take turns: numbers 0, 2, 4, ... of the result are those of ``h``, and numbers
    1, 3, 5, ... their masked copies. An odd row has ``h`` half as wide rounded up, and the last
    masked copy is left out. Without the mask it is ``W x + b`` with ``W`` square.

    Args:
        x: a single token.
        masked: whether half of it is masked.
    """
    if not masked:
        return lin(x, bias=True)
    width = x.num_channels
    half = (width + 1) // 2
    h = lin(x, out=half)
    masked_h = h * act(norm(h), "relu")
    turns = cat(reshape(h, half), reshape(masked_h, half), on="C")
    return flatten(reshape(turns, 2 * half)[:width]) + constant(1, width)
