"""The weights of a training's best epoch, kept by pieces as checkpoints are."""

import shutil
from functools import partial
from pathlib import Path

from torchrec.distributed.model_parallel import DistributedModelParallel

from recsys_had.errors import CheckpointError
from recsys_had.training import piece_files
from recsys_had.training.distributed import from_rank_zero
from recsys_had.training.pieces import local_pieces


class BestWeights:
    """The best epochs' weights; every rank holds one and calls it in step.

    Args:
        work: folder of the unfinished training; they lie in ``work/best-EPOCH``.
        model: the sharded model.
    """

    def __init__(self, work: Path, *, model: DistributedModelParallel) -> None:
        self._work = work
        self._model = model

    def keep(self, epoch: int, *, needed: set[int]) -> None:
        """Writes the present weights, and drops those of epochs nobody needs.

        Args:
            epoch: 1-based; its place is taken if it has one.
            needed: further epochs, which checkpoints go back to.

        Raises:
            OSError: they could not be written.
            CheckpointError: one of several ranks could not write its own.
        """
        fresh = self._work / "best.tmp"
        place = self._place(epoch)
        from_rank_zero(partial(piece_files.make_room, fresh))
        found: str | Exception
        try:
            found = piece_files.write_pieces(fresh, piece_files.snapshot(local_pieces(self._model)))
        except Exception as error:  # told to all ranks, which raise it
            found = error
        digests = piece_files.agreed_digests(place, fresh, found)

        def publish() -> None:
            shutil.rmtree(place, ignore_errors=True)
            piece_files.publish(fresh, place, digests=digests, content={"epoch": epoch})
            kept = {self._place(one) for one in needed | {epoch}}
            for old in set(self._work.glob("best-*")) - kept:
                shutil.rmtree(old)

        from_rank_zero(publish)

    def restore(self, epoch: int) -> None:
        """Writes the weights of an epoch into every rank's pieces.

        Raises:
            CheckpointError: they are not there, or not what was written.
        """
        place = self._place(epoch)
        manifest = from_rank_zero(partial(piece_files.read_manifest, place))
        if manifest is None or not piece_files.is_whole(place, manifest):
            raise CheckpointError(f"{place}: is not whole. Add --overwrite to start anew.")
        piece_files.restore(place, manifest, [*local_pieces(self._model)])

    def _place(self, epoch: int) -> Path:
        return self._work / f"best-{epoch}"
