"""Instance-guided masks (MaskNet), serial and parallel."""

from functools import reduce
from typing import Literal

from recsys_had.interactions._catalog import interaction, require, require_widths
from recsys_had.interactions.algebra import Expr, act, cat, flatten, lin, norm
from recsys_had.interactions.algebra import dropout as drop


@interaction(paper="Wang et al. 2021, arXiv:2102.07619")
def mask_net(
    x: Expr,
    *,
    kind: Literal["serial", "parallel"] = "serial",
    hidden_units: tuple[int, ...] = (400, 400, 400),
    mask_units: int = 64,
    dropout: float = 0.0,
    norm_embeddings: bool = True,
    norm_blocks: bool = True,
) -> Expr:
    """Multiplies what a layer reads by a mask computed from the row's raw embeddings.

    ``block(h) = relu(LN(W (mask(E) * h)))`` with ``mask(E) = W2 relu(W1 E + b1) + b2`` of the
    embeddings ``E`` as they are. Serial: the first block reads ``LN(E)``, each field normalised
    by itself, every other one the block before it. Parallel: all blocks read ``LN(E)``, and
    stand beside each other.

    Shape: ``(B, F, D) -> (B, hidden_units[-1])``, parallel ``(B, sum(hidden_units))``.
    Paper: Wang et al. 2021, MaskNet, the mask block and its two arrangements (arXiv:2102.07619).
    Differs from the paper: the parallel blocks may differ in width; the network on top of them is
    a node of its own; dropout by option. Both normalisations can be left out, as in runs of its
    published code.

    Args:
        kind: how the blocks are arranged.
        hidden_units: width of each block.
        mask_units: width of the hidden layer that makes a mask.
        dropout: share of units dropped in training.
        norm_embeddings: normalise what the first block, or each parallel one, reads.
        norm_blocks: normalise each block's units before their relu.

    Raises:
        ValueError: no block, a width below 1, a dropout outside [0, 1), no such kind.

    >>> import torch
    >>> from recsys_had.interactions import build
    >>> layer = build("mask_net", num_fields=3, embedding_dim=4, hidden_units=(8, 5))
    >>> layer(torch.zeros(2, 3, 4)).shape
    torch.Size([2, 5])
    """
    require(mask_units=mask_units)
    require_widths(hidden_units)
    if kind not in ("serial", "parallel"):
        raise ValueError(f"kind must be serial or parallel; got '{kind}'.")

    def block(hidden: Expr, units: int) -> Expr:
        made = act(lin(flatten(x), out=mask_units, bias=True), "relu")
        mask = lin(made, out=hidden.num_channels, bias=True)
        mapped = lin(mask * hidden, out=units)
        return drop(act(norm(mapped) if norm_blocks else mapped, "relu"), dropout)

    first = flatten(norm(x) if norm_embeddings else x)
    if kind == "serial":
        return reduce(block, hidden_units, first)
    return cat(*(block(first, units) for units in hidden_units), on="C")
