"""The two-stream head of FinalMLP."""

from recsys_had.interactions._catalog import interaction, require
from recsys_had.interactions.algebra import Expr, add, chunk, flatten, lin, pool


@interaction(paper="Mao et al. 2023, arXiv:2304.00902")
def bilinear_fusion(x: Expr, y: Expr, *, num_heads: int = 1) -> Expr:
    """Makes one number of two streams: each alone, and all products across, head by head.

    ``z = b + w1^T x + w2^T y + sum_h x_h^T W_h y_h``: both streams are cut into as many equal parts
    as there are heads, and part h of one meets part h of the other. All ``W_h`` together begin as
    one Xavier column, as in the authors' code.

    Shape: ``(B, F, D), (B, F', D') -> (B, 1)``.
    Paper: Mao et al. 2023, FinalMLP, the stream fusion layer (arXiv:2304.00902).
    Differs from the paper: nothing.

    Args:
        num_heads: parts the streams are cut into; it must divide both widths.

    Raises:
        ValueError: ``num_heads`` is below 1, or does not divide a width.

    >>> import torch
    >>> from recsys_had.interactions import build
    >>> layer = build("bilinear_fusion", num_fields=3, embedding_dim=4, num_heads=2)
    >>> layer(torch.zeros(2, 3, 4), torch.zeros(2, 3, 4)).shape
    torch.Size([2, 1])
    """
    require(num_heads=num_heads)
    first, second = flatten(x), flatten(y)
    widths = first.num_channels, second.num_channels
    if any(width % num_heads for width in widths):
        raise ValueError(
            f"num_heads must divide both widths, {widths[0]} and {widths[1]}; got {num_heads}."
        )
    heads = zip(chunk(first, num_heads), chunk(second, num_heads), strict=True)
    std = (2 / (1 + widths[0] * widths[1] / num_heads)) ** 0.5
    across = [pool(lin(a, out=b.num_channels, std=std) * b, "C") for a, b in heads]
    return add(lin(first, out=1, bias=True), lin(second, out=1), *across)
