"""Checkpoints of a running training, that any number of processes can go on from.

Each is a folder of pieces (:mod:`recsys_had.training.piece_files`) with the counters of the
training in its manifest. A thread writes it while training goes on.
"""

import logging
import shutil
import threading
from functools import partial
from pathlib import Path
from typing import Any

import torch.distributed as dist
from torchrec.distributed.model_parallel import DistributedModelParallel

from recsys_had.errors import CheckpointError
from recsys_had.training import piece_files
from recsys_had.training.distributed import from_rank_zero
from recsys_had.training.optimizers import Optimizers
from recsys_had.training.pieces import Piece
from recsys_had.training.state import (
    RANDOM,
    random_pieces,
    random_states,
    set_random_states,
    state_pieces,
)

CHECKPOINT = "checkpoint"

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
        from_rank_zero(partial(piece_files.make_room, self._fresh))
        self._counters = counters
        own = (*state_pieces(self._model, self._optimizers), *random_pieces())
        self._writer = _Writer(self._fresh, piece_files.snapshot(own))

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
        if not piece_files.all_say(not self._writer.is_alive()):
            return
        found, self._writer = self._writer.outcome, None
        digests = piece_files.agreed_digests(self._folder, self._fresh, found)
        from_rank_zero(lambda: self._publish(digests))

    def _publish(self, digests: list[str]) -> None:
        self._folder.mkdir(exist_ok=True)
        name = f"step-{self._counters['step']:09d}"
        # Of the same step there may be one already, with other counters: the later stands first.
        again = len([*self._folder.glob(f"{name}*")])
        piece_files.publish(
            self._fresh,
            self._folder / (f"{name}.{again}" if again else name),
            digests=digests,
            content={
                "world_size": dist.get_world_size(),
                "devices": sorted(random_states()),
                "counters": self._counters,
            },
        )
        # The one just published stands first.
        for old in _found(self._folder)[self._keep :]:
            shutil.rmtree(old, ignore_errors=True)

    def counters(self) -> list[dict[str, Any]]:
        """Those of every checkpoint that is kept, and of one that is being written."""
        manifests = (piece_files.read_manifest(folder) for folder in _found(self._folder))
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
            manifest = from_rank_zero(partial(piece_files.read_manifest, folder))
            if manifest is not None and piece_files.is_whole(folder, manifest):
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
            sorted(random_states()),
        )
        own = [*state_pieces(self._model, self._optimizers)]
        random = random_pieces() if same_ranks else []
        piece_files.restore(folder, manifest, own + random, optional=RANDOM)
        set_random_states(random)
        counters: dict[str, Any] = manifest["counters"]
        return {**counters, "same_ranks": same_ranks}


class _Writer(threading.Thread):
    """Writes pieces into a folder and keeps the digest, or the error, that came of it.

    Args:
        folder: into which.
        pieces: what; nothing else may change them.
    """

    def __init__(self, folder: Path, pieces: list[Piece]) -> None:
        super().__init__(name="recsys_had-checkpoint", daemon=True)
        self._folder = folder
        self._pieces = pieces
        self.outcome: str | Exception = ""
        self.start()

    def run(self) -> None:
        """Ends with a digest or an error."""
        try:
            self.outcome = piece_files.write_pieces(self._folder, self._pieces)
        except Exception as error:  # told to the rank's own thread, which raises it
            self.outcome = error
        finally:
            self._pieces = []


def _found(folder: Path) -> list[Path]:
    """The checkpoints of a folder, newest first."""
    return sorted(folder.glob("step-*"), reverse=True) if folder.is_dir() else []


def _set_aside(folder: Path) -> None:
    """Takes a damaged checkpoint out of those that count."""
    log.warning("%s: is not whole; the checkpoint before it is tried.", folder)
    aside = folder.with_name(f"damaged-{folder.name}")
    shutil.rmtree(aside, ignore_errors=True)
    folder.rename(aside)
