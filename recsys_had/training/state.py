"""What a training's checkpoint holds of a rank: weights, optimizer state, random states."""

from collections.abc import Iterable, Iterator

import torch
import torch.distributed as dist
from torch import Tensor
from torchrec.distributed.model_parallel import DistributedModelParallel

from recsys_had.model.embeddings import is_field_table
from recsys_had.training.optimizers import Optimizers
from recsys_had.training.pieces import Piece, local_pieces, pieces_of

RANDOM = "random/"


def state_pieces(model: DistributedModelParallel, optimizers: Optimizers) -> Iterator[Piece]:
    """This rank's pieces of weights, buffers and optimizer state, as references."""
    weights: dict[str, list[Piece]] = {}
    for piece in local_pieces(model):
        weights.setdefault(piece.name, []).append(piece)
        yield _renamed(piece, f"model/{piece.name}")
        if optimizers.lazy is not None and is_field_table(piece.name):
            for key, value in optimizers.lazy.moments(piece):
                yield _renamed(piece.taken(value), f"tables/{piece.name}/{key}")
    # The tables' optimizers have one name whether they are fused or plain, and one number a row
    # has one axis: so a checkpoint moves between them.
    if optimizers.fused is not None:
        for name, entry in optimizers.fused.state_dict()["state"].items():
            for value in entry.values():
                yield from pieces_of(f"tables/{name}", value)
    for optimizer in optimizers.plain[1:]:
        for weight, entry in optimizer.state.items():
            name = next(name for name, one in optimizers.copied.items() if one is weight)
            if "sum" in entry:
                total = entry["sum"]
                yield from pieces_of(
                    f"tables/{name}", total[:, 0] if total.shape[1] == 1 else total
                )
    for name, weight in optimizers.named.items():
        # Of a table that lies elsewhere this rank has an empty weight, which takes no steps.
        for piece in weights.get(name, ()):
            for key, value in optimizers.adam.state.get(weight, {}).items():
                if value.dim() == 0:
                    yield Piece(f"adam/{name}/{key}", (), (), value)
                    continue
                yield _renamed(piece.taken(value), f"adam/{name}/{key}")


def _renamed(piece: Piece, name: str) -> Piece:
    return Piece(name, piece.shape, piece.offset, piece.tensor, is_copy=piece.is_copy)


def random_states() -> dict[str, Tensor]:
    """What this rank draws dropout from, by device."""
    states = {"cpu": torch.get_rng_state()}
    if torch.cuda.is_available():
        states["cuda"] = torch.cuda.get_rng_state()
    return states


def random_pieces() -> list[Piece]:
    """The same as tensors of the checkpoint, each under this rank's own name."""
    return [
        Piece(f"{RANDOM}{device}/{dist.get_rank()}", tuple(state.shape), (0,), state)
        for device, state in random_states().items()
    ]


def set_random_states(pieces: Iterable[Piece]) -> None:
    """Makes this rank draw on from where the pieces say."""
    for piece in pieces:
        if piece.name.startswith(f"{RANDOM}cpu/"):
            torch.set_rng_state(piece.tensor)
        else:
            torch.cuda.set_rng_state(piece.tensor)
