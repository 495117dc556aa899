"""Checkpoints of a running training, that any number of processes can go on from.

A checkpoint is a folder: a safetensors file a rank, with the pieces of weights and optimizer state
that rank held and, in the file's own header, of which tensor each is which part; and a manifest
with the counters of the training and every file's digest. It is written by a thread beside its
place while training goes on, and moved into place when all ranks' files lie whole on the disk, so a
checkpoint is whole or absent. Nothing in it is executed when it is read.

Whoever reads it, at whatever world size and plan, takes from each file the parts that overlap its
own pieces.
"""

import json
import logging
import os
import shutil
import threading
from collections.abc import Iterable, Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
import xxhash
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor
from torchrec.distributed.model_parallel import DistributedModelParallel

from recsys_had.errors import CheckpointError
from recsys_had.training.distributed import from_rank_zero
from recsys_had.training.optimizers import Optimizers
from recsys_had.training.pieces import Piece, local_pieces, overlap, pieces_of

CHECKPOINT = "checkpoint"
_MANIFEST = "manifest.json"
_PIECES = "pieces"
_RANDOM = "random/"
_BLOCK = 1 << 24

log = logging.getLogger(__name__)


class Checkpoints:
    """The last checkpoints of one training; every rank holds one and calls it in step.

    Args:
        work: folder of the unfinished training; they lie in ``work/checkpoint``.
        model: the sharded model.
        optimizers: of the model.
        keep: how many are kept.
    """

    def __init__(
        self, work: Path, *, model: DistributedModelParallel, optimizers: Optimizers, keep: int
    ) -> None:
        self._folder = work / CHECKPOINT
        self._fresh = work / "checkpoint.tmp"
        self._model = model
        self._optimizers = optimizers
        self._keep = keep
        self._writer: _Writer | None = None
        self._counters: dict[str, Any] = {}

    @property
    def is_writing(self) -> bool:
        """Whether one was begun that is not in its place yet: the same on every rank."""
        return self._writer is not None

    def begin(self, counters: dict[str, Any]) -> None:
        """Copies the present state and begins to write it, once the one before is done.

        Args:
            counters: what else the training must know to go on; ``step`` is its name's number.
        """
        self.settle(wait=True)
        from_rank_zero(self._make_room)
        self._counters = counters
        first = dist.get_rank() == 0
        # Training goes on while they are written, and slices of one FBGEMM buffer share memory,
        # which safetensors refuses: each is copied.
        held = [
            piece.taken(piece.tensor.detach().cpu().clone())
            for piece in (*state_pieces(self._model, self._optimizers), *_random_pieces())
            if first or not piece.is_copy
        ]
        self._writer = _Writer(self._fresh / _file_name(dist.get_rank()), held)

    def _make_room(self) -> None:
        shutil.rmtree(self._fresh, ignore_errors=True)
        self._fresh.mkdir(parents=True)

    def settle(self, *, wait: bool) -> None:
        """Moves the begun checkpoint into its place, if all ranks' files are written.

        Args:
            wait: wait for them; else leave it if one is not.

        Raises:
            OSError: the file could not be written.
            CheckpointError: one of several ranks could not write its own.
        """
        if self._writer is None:
            return
        if wait:
            self._writer.join()
        if not _all(self._writer.is_done):
            return
        writer, self._writer = self._writer, None
        errors: list[Any] = [None] * dist.get_world_size()
        dist.all_gather_object(errors, writer.error and _text(writer.error))
        if any(errors):
            shutil.rmtree(self._fresh, ignore_errors=True)
            if writer.error is not None and dist.get_world_size() == 1:
                raise writer.error
            rank = next(rank for rank, error in enumerate(errors) if error)
            raise CheckpointError(
                f"{self._folder}: rank {rank} could not write its part: {errors[rank]}. Free some "
                "space; --resume goes on from the last checkpoint, if there is one."
            )
        digests: list[Any] = [None] * dist.get_world_size()
        dist.all_gather_object(digests, writer.digest)
        from_rank_zero(lambda: self._publish(digests))

    def _publish(self, digests: list[str]) -> None:
        manifest = {
            "world_size": dist.get_world_size(),
            "devices": sorted(_random_states()),
            "counters": self._counters,
            "files": {_file_name(rank): digest for rank, digest in enumerate(digests)},
        }
        note = self._fresh / _MANIFEST
        with note.open("w") as file:
            json.dump({**manifest, "digest": _text_digest(manifest)}, file)
            file.flush()
            os.fsync(file.fileno())
        self._folder.mkdir(exist_ok=True)
        name = f"step-{self._counters['step']:09d}"
        # Of the same step there may be one already, with other counters: the later stands first.
        again = len([*self._folder.glob(f"{name}*")])
        self._fresh.rename(self._folder / (f"{name}.{again}" if again else name))
        _sync_folder(self._folder)
        # The one just published stands first.
        for old in _found(self._folder)[self._keep :]:
            shutil.rmtree(old, ignore_errors=True)

    def counters(self) -> list[dict[str, Any]]:
        """Those of every checkpoint that is kept, and of one that is being written."""
        manifests = (_manifest(folder) for folder in _found(self._folder))
        kept = [manifest["counters"] for manifest in manifests if manifest is not None]
        return [*kept, self._counters] if self.is_writing else kept

    def load(self) -> dict[str, Any] | None:
        """Restores the newest whole checkpoint in place; its counters, None where there is none.

        ``same_ranks`` among them tells whether random states were restored too, which another
        number of processes cannot have.

        Raises:
            CheckpointError: it is of another model or optimizer, or none is whole.
        """
        chosen: tuple[Path, dict[str, Any]] | None = None
        candidates = from_rank_zero(lambda: _found(self._folder))
        for folder in candidates:
            manifest = from_rank_zero(partial(_manifest, folder))
            if manifest is not None and _all(_is_whole(folder, manifest)):
                chosen = folder, manifest
                break
            from_rank_zero(partial(_set_aside, folder))
        if chosen is None:
            if candidates:
                raise CheckpointError(
                    f"{self._folder}: no checkpoint in it is whole. Add --overwrite to start anew."
                )
            return None
        folder, manifest = chosen
        same_ranks = (manifest["world_size"], manifest["devices"]) == (
            dist.get_world_size(),
            sorted(_random_states()),
        )
        own = [*state_pieces(self._model, self._optimizers)]
        random = _random_pieces() if same_ranks else []
        _restore(folder, [*manifest["files"]], own + random)
        _set_random_states(random)
        counters: dict[str, Any] = manifest["counters"]
        return {**counters, "same_ranks": same_ranks}


def _text(error: Exception) -> str:
    """What an error says, never nothing."""
    return getattr(error, "strerror", None) or str(error) or type(error).__name__


class _Writer(threading.Thread):
    """Writes pieces to a file and finds its digest.

    Args:
        path: the file.
        pieces: what it holds; nothing else may change them.
    """

    def __init__(self, path: Path, pieces: list[Piece]) -> None:
        super().__init__(name="recsys_had-checkpoint", daemon=True)
        self._path = path
        self._pieces = pieces
        self.digest = ""
        self.error: Exception | None = None
        self.start()

    @property
    def is_done(self) -> bool:
        return not self.is_alive()

    def run(self) -> None:
        """Ends with a digest or an error."""
        try:
            places = {
                _key(piece): {"name": piece.name, "shape": piece.shape, "offset": piece.offset}
                for piece in self._pieces
            }
            tensors = {_key(piece): piece.tensor.contiguous() for piece in self._pieces}
            save_file(tensors, self._path, metadata={_PIECES: json.dumps(places)})
            with self._path.open("rb") as file:
                os.fsync(file.fileno())
            self.digest = _file_digest(self._path)
        except Exception as error:  # told to the rank's own thread, which raises it
            self.error = error
        finally:
            self._pieces = []


def _key(piece: Piece) -> str:
    return f"{piece.name}@{'-'.join(map(str, piece.offset))}"


def state_pieces(model: DistributedModelParallel, optimizers: Optimizers) -> Iterator[Piece]:
    """This rank's pieces of weights, buffers and optimizer state, as references."""
    weights: dict[str, list[Piece]] = {}
    for piece in local_pieces(model):
        weights.setdefault(piece.name, []).append(piece)
        yield _renamed(piece, f"model/{piece.name}")
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


def _random_states() -> dict[str, Tensor]:
    """What this rank draws dropout from, by device."""
    states = {"cpu": torch.get_rng_state()}
    if torch.cuda.is_available():
        states["cuda"] = torch.cuda.get_rng_state()
    return states


def _random_pieces() -> list[Piece]:
    """The same as tensors of the checkpoint, each under this rank's own name."""
    return [
        Piece(f"{_RANDOM}{device}/{dist.get_rank()}", tuple(state.shape), (0,), state)
        for device, state in _random_states().items()
    ]


def _set_random_states(pieces: Iterable[Piece]) -> None:
    for piece in pieces:
        if piece.name.startswith(f"{_RANDOM}cpu/"):
            torch.set_rng_state(piece.tensor)
        else:
            torch.cuda.set_rng_state(piece.tensor)


def _restore(folder: Path, files: list[str], own: list[Piece]) -> None:
    """Fills pieces from the files' parts that overlap them.

    Raises:
        CheckpointError: the files hold other tensors, or not all of one.
    """
    saved: dict[str, list[tuple[str, str, Piece]]] = {}
    for file in files:
        with safe_open(folder / file, framework="pt") as reader:
            places = json.loads(reader.metadata()[_PIECES])
            for key, place in places.items():
                sizes = tuple(reader.get_slice(key).get_shape())
                part = Piece(
                    place["name"],
                    tuple(place["shape"]),
                    tuple(place["offset"]),
                    torch.empty(sizes, device="meta"),
                )
                saved.setdefault(part.name, []).append((file, key, part))
    _require_same(folder, saved, own)
    readers: dict[str, Any] = {file: safe_open(folder / file, framework="pt") for file in files}
    with torch.no_grad():
        for piece in own:
            filled = 0
            for file, key, part in saved[piece.name]:
                shared = overlap(piece, part)
                if shared is None:
                    continue
                mine, theirs = shared
                reader = readers[file]
                target = piece.tensor[mine] if mine else piece.tensor
                target.copy_(reader.get_slice(key)[theirs] if theirs else reader.get_tensor(key))
                filled += target.numel()
                if not piece.shape:
                    break
            if filled != piece.tensor.numel():
                raise CheckpointError(
                    f"{folder}: holds {filled} of the {piece.tensor.numel()} numbers of a part of "
                    f"{piece.name}."
                )


def _require_same(
    folder: Path, saved: Mapping[str, list[tuple[str, str, Piece]]], own: list[Piece]
) -> None:
    """Refuses a checkpoint of something else."""
    shapes = {name: parts[0][2].shape for name, parts in saved.items()}
    problem = None
    for piece in own:
        if piece.name not in shapes:
            problem = f"it lacks {piece.name}"
        elif shapes[piece.name] != piece.shape:
            here, there = piece.shape, shapes[piece.name]
            problem = f"{piece.name} has shape {there} in it and {here} here"
        if problem is not None:
            break
    told: list[Any] = [None] * dist.get_world_size()
    dist.all_gather_object(told, (problem, {piece.name for piece in own}))
    held = {name for _, names in told for name in names}
    lost = sorted(name for name in set(shapes) - held if not name.startswith(_RANDOM))
    problems = [problem for problem, _ in told if problem is not None]
    if not problems and lost:
        problems = [f"the model has no {lost[0]}"]
    if problems:
        raise CheckpointError(f"{folder}: does not fit this model; {problems[0]}.")


def _found(folder: Path) -> list[Path]:
    """The checkpoints of a folder, newest first."""
    return sorted(folder.glob("step-*"), reverse=True) if folder.is_dir() else []


def _set_aside(folder: Path) -> None:
    """Takes a damaged checkpoint out of those that count."""
    log.warning("%s: is not whole; the checkpoint before it is tried.", folder)
    aside = folder.with_name(f"damaged-{folder.name}")
    shutil.rmtree(aside, ignore_errors=True)
    folder.rename(aside)


def _manifest(folder: Path) -> dict[str, Any] | None:
    """A checkpoint's manifest; None where it is not whole."""
    try:
        content: dict[str, Any] = json.loads((folder / _MANIFEST).read_text())
        digest = content.pop("digest")
    except (OSError, ValueError, KeyError, AttributeError):
        return None
    return content if digest == _text_digest(content) else None


def _is_whole(folder: Path, manifest: dict[str, Any]) -> bool:
    """Whether this rank's share of the files is as it was written."""
    try:
        return all(
            _file_digest(folder / file) == digest
            for number, (file, digest) in enumerate(sorted(manifest["files"].items()))
            if number % dist.get_world_size() == dist.get_rank()
        )
    except (OSError, SafetensorError):
        return False


def _all(answer: bool) -> bool:
    """Whether every rank says so."""
    if dist.get_world_size() == 1:
        return answer
    said = torch.tensor(int(answer))
    dist.all_reduce(said, op=dist.ReduceOp.MIN)
    return bool(said)


def _file_name(rank: int) -> str:
    return f"rank-{rank:05d}.safetensors"


def _file_digest(path: Path) -> str:
    digest = xxhash.xxh3_128()
    with path.open("rb") as file:
        while block := file.read(_BLOCK):
            digest.update(block)
    return digest.hexdigest()


def _text_digest(content: Mapping[str, Any]) -> str:
    return xxhash.xxh3_128(json.dumps(content, sort_keys=True).encode()).hexdigest()


def _sync_folder(folder: Path) -> None:
    """Makes a rename outlast a power cut."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
