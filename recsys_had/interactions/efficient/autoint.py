"""Multi-head self-attention over fields (AutoInt)."""

from typing import Literal

from recsys_had.interactions._attention import attend
from recsys_had.interactions._catalog import interaction, require
from recsys_had.interactions.algebra import Expr, act, lin, norm


@interaction(paper="Song et al. 2019, arXiv:1810.11921")
def autoint(
    x: Expr,
    *,
    num_layers: int = 3,
    num_heads: int = 2,
    attention_dim: int = 32,
    residual: Literal["mapped", "kept", "none"] = "mapped",
    layer_norm: bool = False,
    scaled: bool = False,
    dropout: float = 0.0,
) -> Expr:
    """Lets every field gather from the fields it attends to; quadratic in the number of fields.

    ``x[l+1] = relu([softmax(Q_h K_h^T) V_h for each head h] + W x[l])`` with ``Q``, ``K`` and ``V``
    linear maps of each field, ``attention_dim`` wide in all.

    Shape: ``(B, F, D) -> (B, F, attention_dim)``.
    Paper: Song et al. 2019, AutoInt, eq. 5-8 (arXiv:1810.11921).
    Differs from the paper: nothing by default; the last four options are those of published runs.

    Args:
        num_layers: number of layers.
        num_heads: heads of each; it must divide the width.
        attention_dim: width of a layer's output, over all heads.
        residual: what is added to what a field gathered: the field, ``mapped`` by ``W``; the field
            ``kept`` as it is, mapped only where its width is another; or ``none``.
        layer_norm: normalise each field's sum before its relu.
        scaled: divide the products by the root of a head's width.
        dropout: share of the attention's weights dropped in training.

    Raises:
        ValueError: an option is below 1, the heads do not divide the width, no such residual, or a
            dropout outside [0, 1).

    >>> import torch
    >>> from recsys_had.interactions import build
    >>> build("autoint", num_fields=6, embedding_dim=4)(torch.zeros(2, 6, 4)).shape
    torch.Size([2, 6, 32])
    """
    require(num_layers=num_layers, num_heads=num_heads, attention_dim=attention_dim)
    if residual not in ("mapped", "kept", "none"):
        raise ValueError(f"residual must be mapped, kept or none; got '{residual}'.")
    for _ in range(num_layers):
        q, k, v = (lin(x, out=attention_dim) for _ in range(3))
        gathered = attend(q, k, v, num_heads=num_heads, scaled=scaled, dropout=dropout)
        if residual != "none":
            fits = residual == "kept" and x.num_channels == attention_dim
            gathered = gathered + (x if fits else lin(x, out=attention_dim))
        x = act(norm(gathered) if layer_norm else gathered, "relu")
    return x
