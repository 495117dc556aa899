"""Where two streams of equal width meet (EDCN's bridge)."""

from typing import Literal

from recsys_had.interactions._catalog import interaction
from recsys_had.interactions.algebra import Expr, act, add, cat, flatten, lin, reshape, softmax

Kind = Literal["hadamard", "add", "concat", "attention"]
_KINDS = ("hadamard", "add", "concat", "attention")


@interaction(paper="Chen et al. 2021, CIKM 2021")
def bridge(x: Expr, y: Expr, *, kind: Kind = "hadamard") -> Expr:
    """Makes one stream of two that have the same shape.

    ``hadamard``: ``x * y``. ``add``: ``x + y``. ``concat``: ``relu(W [x ; y] + b)``, back to the
    width of one. ``attention``: ``a(x) * x + a'(y) * y`` with ``a(x) = softmax(P relu(W x + b))``
    over all numbers of the stream, each stream with weights of its own.

    Shape: ``(B, F, D), (B, F, D) -> (B, F, D)``.
    Paper: Chen et al. 2021, EDCN: Enhancing Explicit and Implicit Feature Interactions via
    Information Sharing for Parallel Deep CTR Models, the bridge module, CIKM 2021.
    Differs from the paper: the streams may be cut into fields, which changes nothing; ``concat``
    and ``attention`` read a stream as one vector.

    Args:
        kind: hadamard, add, concat or attention.

    Raises:
        ValueError: the shapes differ, or there is no such kind.

    >>> import torch
    >>> from recsys_had.interactions import build
    >>> layer = build("bridge", num_fields=1, embedding_dim=3)
    >>> layer(torch.tensor([[[1.0, 2.0, 3.0]]]), torch.tensor([[[4.0, 0.0, 2.0]]]))
    tensor([[4., 0., 6.]])
    """
    if kind not in _KINDS:
        raise ValueError(f"kind must be one of {', '.join(_KINDS)}; got '{kind}'.")
    if x.shape != y.shape:
        raise ValueError(
            f"both streams must be of one shape; got {x.shape} and {y.shape} (tokens, channels)."
        )
    if kind in ("hadamard", "add"):
        return x * y if kind == "hadamard" else x + y
    streams = flatten(x), flatten(y)
    if kind == "concat":
        both = cat(*streams, on="C")
        met = act(lin(both, out=streams[0].num_channels, bias=True), "relu")
    else:
        met = add(*(_attention(stream) * stream for stream in streams))
    return reshape(met, x.num_tokens)


def _attention(stream: Expr) -> Expr:
    """Weights of a stream's numbers that sum to 1."""
    return softmax(lin(act(lin(stream, bias=True), "relu")), "C")
