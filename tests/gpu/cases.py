"""What the tests of this folder share: layers with their options, optimizers, an experiment."""

import os
from typing import Any, Literal, get_args, get_origin

import torch
from torch import Tensor, nn

from recsys_had import interactions
from tests.training.small_model import MODEL

F, D = 8, 4
# Set, the tests marked gpu run on the CPU: so their own code can be tried without a GPU.
TRY_ON_CPU = "RECSYS_HAD_GPU_TESTS_ON_CPU"


def _world_sizes() -> list[int]:
    """One rank, two, and as many as there are GPUs."""
    num_gpus = 2 if os.environ.get(TRY_ON_CPU) else torch.cuda.device_count()
    return sorted({1, min(2, max(1, num_gpus)), max(1, num_gpus)})


WORLD_SIZES = _world_sizes()


def _settings(name: str) -> list[dict[str, Any]]:
    """As it comes, with every switch on, and with each word its options know."""
    options = interactions.options(name)
    on = {key: True for key in ("batch_norm", "layer_norm") if key in options}
    words = [
        {key: word}
        for key, option in options.items()
        if get_origin(option.annotation) is Literal and key != "activation"
        for word in get_args(option.annotation)
        if word != option.default
    ]
    return [{}, *([on] if on else []), *words]


LAYERS: dict[str, tuple[str, dict[str, Any]]] = {
    "-".join([name, *options, *(v for v in options.values() if isinstance(v, str))]): (
        name,
        options,
    )
    for name in interactions.names()
    for options in _settings(name)
}


def layer(key: str, **more: Any) -> nn.Module:
    """A layer of ``LAYERS`` in float64, the same at every call."""
    name, options = LAYERS[key]
    torch.manual_seed(7)
    return interactions.build(name, num_fields=F, embedding_dim=D, **options, **more).double()


def inputs(key: str, rows: int) -> list[Tensor]:
    """What it reads, the same at every call."""
    generator = torch.Generator().manual_seed(3)
    name, options = LAYERS[key]
    shapes = [expr.shape for expr in interactions.sources_of(name, F, D, **options)]
    return [torch.randn(rows, *s, dtype=torch.float64, generator=generator) for s in shapes]


def experiment(*, numeric: dict[str, Any] | None = None, **train: Any) -> dict[str, Any]:
    """Several sets of tables, batch normalisation, a dense input; seven steps of 64 and a tail."""
    settings = {"batch_size": 64, "learning_rate": 0.003, "seed": 5, "epochs": 3, **train}
    return {"dataset": "small", "model": {**MODEL, "numeric": numeric}, "train": settings}
