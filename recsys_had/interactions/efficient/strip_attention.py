"""Attention of all fields to a few mixed ones (S2AFormer's strip attention), carried over."""

from recsys_had.interactions._attention import attend
from recsys_had.interactions._catalog import interaction, require
from recsys_had.interactions.algebra import Expr, lin


@interaction(paper="S2AFormer 2025, strip self-attention")
def strip_attention(x: Expr, *, num_strips: int = 4, attention_dim: int = 8) -> Expr:
    """Lets every field attend to a few learned mixes of all fields; linear in their number.

    ``y = x + softmax(Q K^T / sqrt(c)) V W`` with ``Q = X Wq`` of width ``c``, and ``K`` and ``V``
    made of ``X' = P X``, ``num_strips`` mixes of the fields: F times ``num_strips`` products take
    the place of F times F.

    Shape: ``(B, F, D) -> (B, F, D)``.
    Paper: S2AFormer 2025, strip self-attention, which compresses tokens and channels.
    Differs from the paper: its pooling of neighbours in an image is a learned mix of fields;
    reconstructed from its description.

    Args:
        num_strips: mixes that are attended to.
        attention_dim: c, width of queries and keys.

    Raises:
        ValueError: an option is below 1.

    >>> import torch
    >>> from recsys_had.interactions import build
    >>> build("strip_attention", num_fields=6, embedding_dim=4)(torch.zeros(2, 6, 4)).shape
    torch.Size([2, 6, 4])
    """
    require(num_strips=num_strips, attention_dim=attention_dim)
    strips = lin(x, "T", out=num_strips)
    query, key = lin(x, out=attention_dim), lin(strips, out=attention_dim)
    found = attend(query, key, lin(strips), scaled=True)
    return x + lin(found)
