"""Runs a command of recsys-had in which one rank fails.

``python fault_ranks.py FAULT RANK STEP WORD...``: at the given step, on the given rank, the fault
comes; the words are those of the command line.
"""

import errno
import os
import signal
import sys
from collections.abc import Callable
from typing import Any

import torch
from recsys_had.pipelines.cli import main
from torch import Tensor

from recsys_had import run_folder
from recsys_had.errors import ConfigError
from recsys_had.training import piece_files
from recsys_had.training.loop import Trainer
from recsys_had.training.pieces import local_pieces


def kill(trainer: Trainer) -> None:
    """As the kernel does when memory runs out."""
    os.kill(os.getpid(), signal.SIGKILL)


def hang(trainer: Trainer) -> None:
    """Answers no more."""
    os.kill(os.getpid(), signal.SIGSTOP)


def mistake(trainer: Trainer) -> None:
    """An error this rank alone finds."""
    raise ConfigError("model.embedding_dim: 9 rows take more than there is. Lower the width.")


def bug(trainer: Trainer) -> None:
    """An error nobody foresaw."""
    raise AssertionError("no such thing")


def nan(trainer: Trainer) -> None:
    """The vectors of a field are no numbers."""
    with torch.no_grad():
        for piece in local_pieces(trainer.sharded):
            if piece.name == "embeddings.tables.fields.embedding_bags.B.weight":
                piece.tensor.fill_(torch.nan)


def disk(trainer: Trainer) -> None:
    """The next checkpoint, or the best weights, find no room."""

    def full(*arguments: Any, **options: Any) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    piece_files.save_file = full


def publish(trainer: Trainer) -> None:
    """The run folder, which rank 0 alone writes, finds no room."""

    def full(*arguments: Any, **options: Any) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    run_folder.save_file = full


FAULTS: dict[str, Callable[[Trainer], None]] = {
    "kill": kill,
    "hang": hang,
    "mistake": mistake,
    "bug": bug,
    "nan": nan,
    "disk": disk,
    "publish": publish,
}


def inject(fault: str, rank: int, at: int) -> None:
    """Makes the fault come before that step; of a launcher's several attempts, in the first."""
    step = Trainer.step

    def failing(self: Trainer, *steps: Any, coming: Any) -> Tensor:
        first = os.environ.get("TORCHELASTIC_RESTART_COUNT", "0") == "0"
        if first and self.progress.step == at and int(os.environ["RANK"]) == rank:
            FAULTS[fault](self)
        return step(self, *steps, coming=coming)

    Trainer.step = failing  # type: ignore[method-assign]


if __name__ == "__main__":
    name, rank, at, *words = sys.argv[1:]
    inject(name, int(rank), int(at))
    sys.argv = ["recsys-had", *words]
    main()
