"""A cross stream and a deep stream that meet after every layer (EDCN)."""

from recsys_had.interactions._catalog import interaction, require
from recsys_had.interactions.algebra import (
    Expr,
    act,
    cat,
    constant,
    flatten,
    lin,
    norm,
    reshape,
    softmax,
)
from recsys_had.interactions.algebra import dropout as drop
from recsys_had.interactions.fusion.bridge import Kind, bridge


@interaction(paper="Chen et al. 2021, CIKM 2021")
def edcn(
    x: Expr,
    *,
    num_layers: int = 3,
    kind: Kind = "hadamard",
    temperature: float = 1.0,
    dropout: float = 0.0,
    batch_norm: bool = False,
) -> Expr:
    """Runs crosses and dense layers side by side, joins them after each layer, parts them anew.

    Layer l gates what the layer before it joined, ``f[l]`` (``f[0]`` is the input), field by field
    and once for each stream: ``u = g * f[l]``, ``v = h * f[l]``, where ``g`` and ``h`` are softmax
    over the fields of learned logits divided by the temperature. Then ``c[l+1] = u[0] (w^T u) + b +
    u``, the cross; ``d[l+1] = relu(W v + b')``, the dense layer; ``f[l+1] = bridge(c[l+1],
    d[l+1])``. The output is ``[c ; d ; f]`` of the last layer.

    The gates of a stream sum to 1, so that a field shrinks about F times at every gate: without
    batch normalisation the last products are tiny.

    Shape: ``(B, F, D) -> (B, 3*F*D)``.
    Paper: Chen et al. 2021, EDCN: Enhancing Explicit and Implicit Feature Interactions via
    Information Sharing for Parallel Deep CTR Models, CIKM 2021.
    Differs from the paper: dropout of the dense layers and batch normalisation of both gated
    streams by option, as in its published runs; the map to one number is the head's.

    Args:
        num_layers: L, number of layers of each stream.
        kind: how the streams are joined; see ``bridge``.
        temperature: divides the gates' logits; the lower, the fewer fields pass.
        dropout: share of a dense layer's units dropped in training.
        batch_norm: normalise each gated stream over the batch of all ranks.

    Raises:
        ValueError: no layer, no such kind, a temperature that is not positive, a dropout outside
            [0, 1).

    >>> import torch
    >>> from recsys_had.interactions import build
    >>> build("edcn", num_fields=3, embedding_dim=4)(torch.zeros(2, 3, 4)).shape
    torch.Size([2, 36])
    """
    require(num_layers=num_layers)
    if temperature <= 0:
        raise ValueError(f"temperature must be above 0; got {temperature}.")
    joined = x
    first: Expr | None = None
    for _ in range(num_layers):
        fields = reshape(joined, x.num_tokens)
        crossed, deep = (_gated(fields, temperature, batch_norm) for _ in range(2))
        first = first or crossed
        crossed = first * lin(crossed, out=1) + constant(*first.shape) + crossed
        deep = drop(act(lin(deep, bias=True), "relu"), dropout)
        joined = bridge(crossed, deep, kind=kind)
    return cat(crossed, deep, joined, on="C")


def _gated(fields: Expr, temperature: float, batch_norm: bool) -> Expr:
    """One stream's part of what was joined: fields weighted by learned numbers that sum to 1."""
    gates = softmax((1 / temperature) * constant(fields.num_tokens, 1), "T")
    passed = flatten(gates * fields)
    return norm(passed, "batch") if batch_norm else passed
