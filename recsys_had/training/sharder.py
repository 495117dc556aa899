"""In what precision tables are held, and vectors travel between ranks: TorchRec's sharder."""

import math
from typing import Any, cast

import torch
from fbgemm_gpu.quantize_comm import QuantizationContext, QuantizedCommCodec
from fbgemm_gpu.split_embedding_configs import SparseType
from torch import Tensor
from torchrec.distributed.embeddingbag import EmbeddingBagCollectionSharder
from torchrec.distributed.types import CommOp, ModuleSharder, QuantizedCommCodecs

from recsys_had.config import TrainConfig


def table_type(config: TrainConfig) -> torch.dtype:
    """Of the tables' numbers."""
    return torch.float16 if config.table_precision == "fp16" else torch.float32


class HalfCodecs:
    """Makes float16 of what ranks send one another, and float32 of what they receive.

    A gradient of a mean over many rows is too small for float16, which loses what is below 6e-8,
    and multiplied by a number made for many rows, that of a few is too large: it is clipped at
    65504. So it is multiplied by what its own update's mean divided it by.
    """

    def __init__(self) -> None:
        self._backward = _ScaledCodec()
        forward = QuantizedCommCodec(SparseType.FP16)
        self.registry = {
            op.name: QuantizedCommCodecs(forward=forward, backward=self._backward)
            for op in (
                CommOp.POOLED_EMBEDDINGS_ALL_TO_ALL,
                CommOp.POOLED_EMBEDDINGS_REDUCE_SCATTER,
            )
        }

    def set_scale(self, divisor: float, *, world_size: int) -> None:
        """Sets what gradients are multiplied by on their way; on all ranks alike.

        Args:
            divisor: rows of the update over all ranks, or the sum of their weights.
            world_size: ranks in all, by which the loss is multiplied.
        """
        if divisor > 0:
            self._backward.scale = 2.0 ** round(math.log2(divisor / world_size))


class _ScaledCodec(QuantizedCommCodec):  # type: ignore[misc]
    """FBGEMM's own loss scale is taken back in half precision, where it came too late to help."""

    def __init__(self) -> None:
        super().__init__(SparseType.FP16, is_fwd=False)
        self.scale = 1.0

    def encode(self, input_tensor: Tensor, ctx: QuantizationContext | None = None) -> Tensor:
        """Scales what is sent, and makes it half."""
        sent: Tensor = super().encode(input_tensor * self.scale, ctx)
        return sent

    def decode(self, input_tensor: Tensor, ctx: QuantizationContext | None = None) -> Tensor:
        """Makes what was received whole, and takes the scale back."""
        received: Tensor = super().decode(input_tensor, ctx)
        return received / self.scale


def half_codecs(config: TrainConfig) -> HalfCodecs | None:
    """What an experiment's ranks need to send one another float16; None where they send float32."""
    return HalfCodecs() if config.communication == "fp16" else None


def table_sharder(codecs: HalfCodecs | None) -> ModuleSharder[Any]:
    """The sharder of all tables."""
    registry = None if codecs is None else codecs.registry
    sharder = EmbeddingBagCollectionSharder(qcomm_codecs_registry=registry)
    return cast(ModuleSharder[Any], sharder)
