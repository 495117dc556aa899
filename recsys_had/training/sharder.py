"""In what precision tables are held, and vectors travel between ranks: TorchRec's sharder."""

from typing import Any, cast

import torch
from torchrec.distributed.embeddingbag import EmbeddingBagCollectionSharder
from torchrec.distributed.fbgemm_qcomm_codec import (
    CommType,
    QCommsConfig,
    get_qcomm_codecs_registry,
)
from torchrec.distributed.types import ModuleSharder

from recsys_had.config import TrainConfig


def table_type(config: TrainConfig) -> torch.dtype:
    """Of the tables' numbers."""
    return torch.float16 if config.table_precision == "fp16" else torch.float32


def table_sharder(config: TrainConfig, *, world_size: int) -> ModuleSharder[Any]:
    """The sharder of all tables.

    A gradient of a mean over a step's rows is too small for float16, which loses what is below
    6e-8: on its way it is multiplied by a power of two near that number of rows.

    Args:
        config: the training part of an experiment.
        world_size: ranks in all.
    """
    codecs = None
    if config.communication == "fp16":
        rows = config.batch_size * world_size
        told = QCommsConfig(
            forward_precision=CommType.FP16,
            backward_precision=CommType.FP16,
            backward_loss_scale=float(1 << (rows.bit_length() - 1)),
        )
        codecs = get_qcomm_codecs_registry(told, device=torch.device("cpu"))
    sharder = EmbeddingBagCollectionSharder(qcomm_codecs_registry=codecs)
    return cast(ModuleSharder[Any], sharder)
