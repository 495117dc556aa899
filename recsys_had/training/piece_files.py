"""Folders of pieces: a safetensors file a rank, and a manifest with every file's digest.

Each file tells in its own header of which tensor each of its parts is which. So whoever reads the
folder, at whatever world size and plan, takes from each file what overlaps its own pieces. A folder
is written beside its place and moved there when all ranks' files lie whole on the disk: it is whole
or absent. Nothing in it is executed when it is read.
"""

import json
import os
import shutil
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
import xxhash
from safetensors import safe_open
from safetensors.torch import save_file

from recsys_had.errors import CheckpointError
from recsys_had.training.pieces import Piece, overlap

_MANIFEST = "manifest.json"
_PIECES = "pieces"
_BLOCK = 1 << 24


def make_room(fresh: Path) -> None:
    """An empty folder to write into."""
    shutil.rmtree(fresh, ignore_errors=True)
    fresh.mkdir(parents=True)


def snapshot(pieces: Iterable[Piece]) -> list[Piece]:
    """Copies of the pieces this rank's file holds: of what all ranks hold, rank 0's alone.

    Training goes on while they are written, and slices of one FBGEMM buffer share memory, which
    safetensors refuses: each is copied.
    """
    first = dist.get_rank() == 0
    return [
        piece.taken(piece.tensor.detach().to("cpu", copy=True))
        for piece in pieces
        if first or not piece.is_copy
    ]


def write_pieces(folder: Path, pieces: Iterable[Piece]) -> str:
    """Writes this rank's file into a folder; its digest."""
    path = folder / _file_name(dist.get_rank())
    held = list(pieces)
    places = {
        _key(piece): {"name": piece.name, "shape": piece.shape, "offset": piece.offset}
        for piece in held
    }
    tensors = {_key(piece): piece.tensor.contiguous() for piece in held}
    save_file(tensors, path, metadata={_PIECES: json.dumps(places)})
    with path.open("rb") as file:
        os.fsync(file.fileno())
    return _file_digest(path)


def agreed_digests(place: Path, fresh: Path, found: str | Exception) -> list[str]:
    """Every rank's digest, or the end of all if one could not write its file.

    Args:
        place: where the folder is to stand, for the message.
        fresh: where it was written; it is removed if it is not whole.
        found: this rank's digest, or what kept it from writing.

    Raises:
        OSError: this rank, the only one, could not write.
        CheckpointError: one of several could not.
    """
    outcomes: list[Any] = [None] * dist.get_world_size()
    mine = (None, _text(found)) if isinstance(found, Exception) else (found, None)
    dist.all_gather_object(outcomes, mine)
    problems = {rank: error for rank, (_, error) in enumerate(outcomes) if error is not None}
    if problems:
        shutil.rmtree(fresh, ignore_errors=True)
        if isinstance(found, Exception) and dist.get_world_size() == 1:
            raise found
        rank = min(problems)
        raise CheckpointError(
            f"{place}: rank {rank} could not write its part: {problems[rank]}. Free some space; "
            "--resume goes on from the last checkpoint, if there is one."
        )
    return [digest for digest, _ in outcomes]


def publish(
    fresh: Path, place: Path, *, digests: Sequence[str], content: Mapping[str, Any]
) -> None:
    """Writes the manifest of a folder whose files are whole and moves it to its place.

    Args:
        fresh: the folder.
        place: where it is to stand; nothing does yet.
        digests: of each rank's file.
        content: what else the manifest tells.
    """
    files = {_file_name(rank): digest for rank, digest in enumerate(digests)}
    manifest = {**content, "files": files}
    with (fresh / _MANIFEST).open("w") as file:
        json.dump({**manifest, "digest": _text_digest(manifest)}, file)
        file.flush()
        os.fsync(file.fileno())
    fresh.rename(place)
    _sync_folder(place.parent)


def read_manifest(folder: Path) -> dict[str, Any] | None:
    """A folder's manifest; None where it is not whole."""
    try:
        content: dict[str, Any] = json.loads((folder / _MANIFEST).read_text())
        digest = content.pop("digest")
    except (OSError, ValueError, KeyError, AttributeError):
        return None
    return content if digest == _text_digest(content) else None


def restore(
    folder: Path, manifest: Mapping[str, Any], own: list[Piece], *, optional: str | None = None
) -> None:
    """Fills pieces from the files' parts that overlap them.

    Args:
        folder: of the files.
        manifest: of the folder.
        own: this rank's pieces, written in place.
        optional: beginning of the names of tensors that nobody need ask for.

    Raises:
        CheckpointError: the files hold other tensors, or not all of one.
    """
    files = list(manifest["files"])
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
    _require_same(folder, saved, own, optional)
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
    folder: Path,
    saved: Mapping[str, list[tuple[str, str, Piece]]],
    own: list[Piece],
    optional: str | None,
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
    lost = sorted(
        name for name in set(shapes) - held if optional is None or not name.startswith(optional)
    )
    problems = [problem for problem, _ in told if problem is not None]
    if not problems and lost:
        problems = [f"the model has no {lost[0]}"]
    if problems:
        raise CheckpointError(f"{folder}: does not fit this model; {problems[0]}.")


def _key(piece: Piece) -> str:
    return f"{piece.name}@{'-'.join(map(str, piece.offset))}"


def is_whole(folder: Path, manifest: Mapping[str, Any]) -> bool:
    """Whether all files are as they were written; each rank reads a share of them."""
    try:
        mine = all(
            _file_digest(folder / file) == digest
            for number, (file, digest) in enumerate(sorted(manifest["files"].items()))
            if number % dist.get_world_size() == dist.get_rank()
        )
    except OSError:
        mine = False
    return all_say(mine)


def all_say(answer: bool) -> bool:
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


def _text(error: Exception) -> str:
    """What an error says, never nothing."""
    return getattr(error, "strerror", None) or str(error) or type(error).__name__
