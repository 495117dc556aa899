"""Self-attention over fields whose pairwise and unary parts are apart (DESTINE)."""

from typing import Literal

from recsys_had.interactions._attention import attend
from recsys_had.interactions._catalog import interaction, require
from recsys_had.interactions.algebra import Activation, Expr, act, cat, chunk, lin, pool, softmax
from recsys_had.interactions.algebra import dropout as drop


@interaction(paper="Xu et al. 2021, arXiv:2101.03654")
def disentangled_attention(
    x: Expr,
    *,
    num_layers: int = 3,
    num_heads: int = 2,
    attention_dim: int = 32,
    residual: Literal["each", "last", "none"] = "each",
    relu: bool = False,
    scaled: bool = False,
    dropout: float = 0.0,
) -> Expr:
    """Lets every field gather by what two fields say of each other, and by what each says alone.

    ``x[l+1]_i = sum_j (softmax_j(<q_i - mean(q), k_j - mean(k)>) + softmax_j(u_j)) v_j + R x[l]_i``
    in each head, with ``q``, ``k``, ``v`` and the number ``u`` linear maps of a field and the means
    over the fields. The whitened products tell only what is particular to a pair; the second
    weight is the same whichever field asks.

    Shape: ``(B, F, D) -> (B, F, attention_dim)``.
    Paper: Xu et al. 2021, DESTINE, the disentangled self-attention (arXiv:2101.03654).
    Differs from the paper: ``u`` has no bias, nor without ``relu`` have ``q`` and ``k``: softmax
    and the means take them away again. Dropout is drawn for the two weights apart, of the second
    once for all that ask. Heads are parts of the channels, as in AutoInt; the published code gives
    a head F of the parts of a row's fields in order, so that the first of two sees the first half
    of the fields. With one head there is no difference.

    Args:
        num_layers: number of layers.
        num_heads: heads of each; it must divide the width.
        attention_dim: width of a layer's output, over all heads.
        residual: where a map is added: of what it reads in ``each`` layer, of the fields after the
            ``last`` one, or ``none``.
        relu: whether queries, keys and values are cut at 0 first.
        scaled: divide the products by the root of a head's width.
        dropout: share of the attention's weights dropped in training.

    Raises:
        ValueError: an option is below 1, the heads do not divide the width, no such residual, or a
            dropout outside [0, 1).

    >>> import torch
    >>> from recsys_had.interactions import build
    >>> layer = build("disentangled_attention", num_fields=6, embedding_dim=4)
    >>> layer(torch.zeros(2, 6, 4)).shape
    torch.Size([2, 6, 32])
    """
    require(num_layers=num_layers, num_heads=num_heads, attention_dim=attention_dim)
    if residual not in ("each", "last", "none"):
        raise ValueError(f"residual must be each, last or none; got '{residual}'.")
    before: Activation = "relu" if relu else "identity"
    fields, biased = x, (relu, relu, True)
    for _ in range(num_layers):
        q, k, v = (act(lin(x, out=attention_dim, bias=bias), before) for bias in biased)
        q, k = q - pool(q, "T", "mean"), k - pool(k, "T", "mean")
        gathered = attend(q, k, v, num_heads=num_heads, scaled=scaled, dropout=dropout)
        alone = drop(softmax(lin(x, out=num_heads), "T"), dropout)
        heads = zip(chunk(v, num_heads), chunk(alone, num_heads), strict=True)
        gathered += cat(*(pool(part * weight, "T") for part, weight in heads), on="C")
        x = gathered + lin(x, out=attention_dim, bias=True) if residual == "each" else gathered
    return x + lin(fields, out=attention_dim, bias=True) if residual == "last" else x
