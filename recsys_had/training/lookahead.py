"""Ids of the next update on their way to the ranks that look them up while this one is computed.

What TorchRec's TrainPipelineSparseDist does, through the same steps of its sharded modules. That
class finds by symbolic tracing which inputs a module reads, which our model does not allow, and
does the update itself, which ours accumulates, clips and gives rows before.
"""

from collections import deque
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torchrec.distributed.embeddingbag import ShardedEmbeddingBagCollection
from torchrec.distributed.model_parallel import DistributedModelParallel
from torchrec.sparse.jagged_tensor import KeyedJaggedTensor

from recsys_had.batch import Batch
from recsys_had.model.torchrec_tables import keyed_jagged


class Lookahead:
    """Sends ids ahead of the batches they are of; every rank holds one and calls it in step.

    ``begin`` tells the other ranks how many ids will come, ``send`` sends them; what the sharded
    model then looks up in training mode it has already. On a GPU all of it happens on a stream of
    its own, the copy to the GPU included.

    Args:
        sharded: the model; its collections of tables are taken over.
        device: this rank's.
    """

    def __init__(self, sharded: DistributedModelParallel, device: torch.device) -> None:
        self._device = device
        self._stream: torch.cuda.Stream | None = None
        if device.type == "cuda":
            self._stream = torch.cuda.Stream(device)  # type: ignore[no-untyped-call]
        self._lookups: list[_Lookup] = []
        self._begun: dict[int, Batch] = {}
        for module in sharded.modules():
            if isinstance(module, ShardedEmbeddingBagCollection):
                lookup = _Lookup(module, self._stream)
                # As TorchRec's own pipelines do it.
                module.forward = lookup
                self._lookups.append(lookup)

    def begin(self, batches: Sequence[Batch]) -> None:
        """Copies an update's batches to this rank's device and tells how many ids they have."""
        with self._aside():
            for batch in batches:
                here = self._begun[id(batch)] = batch.to(self._device)
                ids = keyed_jagged(here.sparse)
                for lookup in self._lookups:
                    lookup.begin(ids)

    def send(self) -> None:
        """Sends the ids themselves; they travel while the backward pass is computed."""
        with self._aside():
            for lookup in self._lookups:
                lookup.send()

    def take(self, batches: Sequence[Batch]) -> list[Batch]:
        """The same batches on this rank's device: those that were begun, or all anew.

        Raises:
            ValueError: others were begun, whose ids would be taken for theirs.
        """
        begun, self._begun = self._begun, {}
        if not begun:
            return [batch.to(self._device) for batch in batches]
        if list(begun) != [id(batch) for batch in batches]:
            raise ValueError("batches: must be those whose ids were sent ahead.")
        if self._stream is not None:
            now = torch.cuda.current_stream(self._device)
            now.wait_stream(self._stream)
            for batch in begun.values():
                batch.record_stream(now)
        return list(begun.values())

    def _aside(self) -> AbstractContextManager[Any]:
        return nullcontext() if self._stream is None else torch.cuda.stream(self._stream)


class _Lookup:
    """In place of a sharded collection's own ``forward``.

    Args:
        module: the collection.
        stream: that ids are sent on, on a GPU.
    """

    def __init__(
        self, module: ShardedEmbeddingBagCollection, stream: torch.cuda.Stream | None
    ) -> None:
        self._module = module
        self._own_forward = module.forward
        self._stream = stream
        self._begun: list[tuple[Any, Any]] = []
        self._sent: deque[tuple[Any, Any]] = deque()

    def begin(self, ids: KeyedJaggedTensor) -> None:
        context = self._module.create_context()
        self._begun.append((context, self._module.input_dist(context, ids)))

    def send(self) -> None:
        self._sent.extend((context, sizes.wait()) for context, sizes in self._begun)
        self._begun.clear()

    def __call__(self, *ids: Any) -> Any:
        if not self._module.training or not self._sent:
            return self._own_forward(*ids)
        context, underway = self._sent.popleft()
        if self._stream is None:
            return self._module.compute_and_output_dist(context, underway.wait())
        with torch.cuda.stream(self._stream):
            arrived = underway.wait()
        now = torch.cuda.current_stream(self._stream.device)
        now.wait_stream(self._stream)
        arrived.record_stream(now)
        context.record_stream(now)
        return self._module.compute_and_output_dist(context, arrived)
