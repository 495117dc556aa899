"""The training loop: steps, epochs, validation, early stopping, the best weights."""

import logging
import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import chain, islice, pairwise
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.distributed as dist
from torch import Tensor
from tqdm import tqdm

from recsys_had.batch import Batch
from recsys_had.calibration import Calibrator, ToScores, fit_calibrator, log_kept_share
from recsys_had.config import Bce, Experiment, Focal
from recsys_had.data.folder import DataFolder
from recsys_had.data.parquet import Position, SplitReader, Step
from recsys_had.errors import DivergenceError
from recsys_had.metrics import evaluate_with_ece, improves, monitored
from recsys_had.model.ctr import CTRModel
from recsys_had.model.embeddings import field_specs
from recsys_had.model.torchrec_tables import TORCHREC
from recsys_had.run_folder import RunFolder
from recsys_had.seeds import derived_seed
from recsys_had.training import published
from recsys_had.training.arrivals import Arrivals
from recsys_had.training.best_weights import BestWeights
from recsys_had.training.bins import fit_bins
from recsys_had.training.blame import not_finite
from recsys_had.training.checkpoint import Checkpoints
from recsys_had.training.distributed import from_rank_zero
from recsys_had.training.evaluation import Answers, Metrics, Scored, answers, measured
from recsys_had.training.interrupt import Interruption, stop
from recsys_had.training.lookahead import Lookahead
from recsys_had.training.losses import require_students, row_losses
from recsys_had.training.novelty import require_novelty
from recsys_had.training.optimizers import Optimizers
from recsys_had.training.pieces import gather_state
from recsys_had.training.preflight import (
    refuse_pipeline_of_managed,
    require_both_classes,
    require_calibration_rows,
    set_pace,
    warn_of_warmup,
)
from recsys_had.training.pretrained import write_pretrained
from recsys_had.training.progress import Progress
from recsys_had.training.sharder import half_codecs, table_type
from recsys_had.training.sharding import shard
from recsys_had.training.warm_start import warm_start

log = logging.getLogger("recsys_had")


@dataclass(frozen=True)
class TrainResult:
    """What a training came to; weights and scores are on rank 0 alone.

    Args:
        progress: counters and history.
        metrics: of each split with rows, with the best weights: what ``evaluate`` will say.
        state: the best weights, whole and unpadded.
        scored: the scored rows of a split.
        calibrator: what the experiment had fitted on the validation rows, or None.
    """

    progress: Progress
    metrics: dict[str, Metrics]
    state: dict[str, Tensor] | None
    scored: dict[str, Scored]
    calibrator: Calibrator | None = None


class Trainer:
    """Trains one experiment on one encoded data folder; every rank runs one.

    Args:
        experiment: what to train.
        data: the encoded rows.
        device: this rank's device.
        work: folder for checkpoints and the best weights; shared by the ranks.
        on_metrics: told every step's and epoch's metrics, with the step's number (rank 0).
        show_progress: draw a progress bar.

    Raises:
        DataError: there is no training row, or all have the same label.
    """

    def __init__(
        self,
        *,
        experiment: Experiment,
        data: DataFolder,
        device: torch.device,
        work: Path,
        on_metrics: Callable[[dict[str, float], int], None] = lambda metrics, step: None,
        show_progress: bool = False,
    ) -> None:
        self._config = experiment.train
        self._data = data
        self._device = device
        self.work = work
        work.mkdir(parents=True, exist_ok=True)
        self._on_metrics = on_metrics
        self._show_progress = show_progress
        require_both_classes(data)
        if self._config.pipeline:
            refuse_pipeline_of_managed(data.card)
        if self._config.calibration is not None:
            require_calibration_rows(data)
        # Rows that validate are not sampled: their scores are corrected, as any others.
        self._shift = log_kept_share(data.manifest.get("sampling"))
        self._reader = self._read("train", seed=self._config.seed)
        self.model = CTRModel(
            fields=field_specs(data.card, data.num_embeddings),
            dense=data.card.dense,
            config=experiment.model,
            vectors=data.card.vectors,
            seed=self._config.seed,
            # Of several ranks each fills its own parts alone, as a GPU's rank fills the GPU's.
            tables_on="cpu" if dist.get_world_size() == 1 and device.type == "cpu" else "meta",
            table_type=table_type(self._config),
            backend=TORCHREC,
        )
        if self._config.has_legacy_defaults:
            published.draw_scales(self.model.graph, seed=self._config.seed)
        fit_bins(self.model, data)
        graph = self.model.graph
        require_students(
            self._config.loss, num_heads=graph.num_heads, has_dropout=graph.has_dropout
        )
        require_novelty(graph, self._config, data.card)
        set_pace(graph, self._config, device)
        self._codecs = half_codecs(self._config)
        self.sharded = shard(self.model, self._config, device=device, codecs=self._codecs)
        self.optimizers = Optimizers(
            self.sharded, self._config, widths=self.model.embeddings.widths
        )
        updates = -(-self._reader.num_steps // self._config.accumulate_steps)
        warn_of_warmup(self._config, self._config.epochs * updates)
        # The vectors as they were looked up: the update makes all of a bad step's wrong.
        self._seen: list[dict[str, Tensor]] = []
        self.model.embeddings.register_forward_hook(
            lambda module, arguments, found: self._seen.append(found) if module.training else None
        )
        self._arrivals = Arrivals(self.model, self.sharded, self.optimizers)
        self._lookahead: Lookahead | None = None
        if self._config.pipeline:
            self._lookahead = Lookahead(self.sharded, device)
        self._checkpoints = Checkpoints(
            work,
            model=self.sharded,
            optimizers=self.optimizers,
            keep=self._config.keep_checkpoints,
        )
        self._best = BestWeights(work, model=self.sharded)
        self.progress = Progress()
        self.losses: list[float] = []
        torch.manual_seed(self._config.seed + 1 + dist.get_rank())

    def resume(self) -> bool:
        """Takes up the last whole checkpoint, of any number of ranks; tells whether there was one.

        With as many ranks as wrote it the training goes on bit for bit. With another number the
        rows of the epoch that remain are trained on once each, as they would have been, but in
        other batches if the batch size per rank is kept, and with other draws of dropout.
        """
        counters = self._checkpoints.load()
        if counters is None:
            return False
        same_ranks = counters.pop("same_ranks")
        self.progress = Progress(**counters)
        self.optimizers.plateau_scale = self.progress.plateau_scale
        if not same_ranks:
            seed = derived_seed(self._config.seed, self.progress.step, dist.get_rank())
            torch.manual_seed(seed >> 1)
        return True

    def warm_start(self, run: RunFolder) -> dict[str, Any]:
        """Begins with an earlier run's weights; see :mod:`recsys_had.training.warm_start`."""
        return warm_start(run, data=self._data, sharded=self.sharded, model=self.model)

    def take_pretrained(self, files: Mapping[str, Path]) -> dict[str, Any]:
        """Begins with given rows of tables; see :mod:`recsys_had.training.pretrained`."""
        return write_pretrained(files, data=self._data, sharded=self.sharded, model=self.model)

    def run(self) -> TrainResult:
        """Trains to the end, then measures the best weights on every other split.

        Raises:
            KeyboardInterrupt: a SIGINT came; a checkpoint was written.
            SystemExit: a SIGTERM came; a checkpoint was written.
            DivergenceError: the loss is not finite.
        """
        progress = self.progress
        with Interruption() as interruption:
            while not progress.finished:
                self._train_epoch(interruption)
                self._end_epoch()
                requested = self._agreed(interruption.requested)
                self._save(wait=requested is not None)
                self._stop_if_asked(requested)
            self._checkpoints.settle(wait=True)
        self._best.restore(self.progress.best_epoch)
        state = gather_state(self.sharded, self.model)
        found = {name: self._ask(name) for name in ("valid", "test") if self._data.rows(name)}
        calibrator = from_rank_zero(lambda: self._fit_calibrator(found.get("valid")))
        to_scores = ToScores(shift=self._shift, calibrator=calibrator)
        scored = {split: rows.scored(to_scores) for split, rows in found.items()}
        metrics: dict[str, Metrics] = from_rank_zero(
            lambda: {
                split: measured(split, rows, measure=evaluate_with_ece)
                for split, rows in scored.items()
            }
        )
        return TrainResult(progress, metrics, state, scored, calibrator)

    def step(self, *steps: Step, coming: Sequence[Step] = ()) -> Tensor:
        """One update, of the gradients of one step or of several; the sum of this rank's losses.

        Where the experiment asks for it, the ids of the steps ``coming`` next are sent ahead.

        The gradient is that of the mean loss over the rows of all ranks: each rank's sum is
        divided by the global number of rows, and the mean over ranks that TorchRec and DDP
        take is undone by the factor ``world_size``. With weights it is the weighted mean: losses
        are multiplied by them, and the divisor is their sum over all ranks. Where that is 0, so
        is the gradient.
        """
        progress = self.progress
        epochs_done = progress.epoch + progress.row / self._reader.num_rows
        self.optimizers.prepare(progress.step, done=epochs_done / self._config.epochs)
        divisor = sum(step.total for step in steps)
        batches = self._on_device([step.batch for step in steps])
        self._arrivals.admit([batch.sparse for batch in batches], step=progress.step + 1)
        if self._codecs is not None:
            self._codecs.set_scale(divisor, world_size=dist.get_world_size())
        self._seen.clear()
        if self._lookahead is not None:
            self._lookahead.begin([step.batch for step in coming])
        sums: list[Tensor] = []
        for step, batch in zip(steps, batches, strict=True):
            losses = self._row_losses(batch, step)
            loss_sum = (losses if batch.weight is None else losses * batch.weight).sum()
            loss = loss_sum * (dist.get_world_size() / divisor if divisor else 0.0)
            if self._lookahead is not None and step is steps[-1]:
                # Not before: what was sent is looked up next.
                self._lookahead.send()
            torch.autograd.backward(loss)
            sums.append(loss_sum.detach())
        self.optimizers.apply([self.model.embeddings.rows_of(batch.sparse) for batch in batches])
        return sums[0] if len(sums) == 1 else torch.stack(sums).sum()

    def _on_device(self, batches: Sequence[Batch]) -> list[Batch]:
        if self._lookahead is not None:
            return self._lookahead.take(batches)
        return [batch.to(self._device) for batch in batches]

    def _row_losses(self, batch: Batch, step: Step) -> Tensor:
        def mean(losses: Tensor) -> Tensor:
            total = (losses if batch.weight is None else losses * batch.weight).sum()
            if dist.get_world_size() > 1:
                dist.all_reduce(total)
            return total / (step.total or 1.0)

        loss = self._config.loss
        if isinstance(loss, Bce | Focal):
            logit = self.sharded(batch)
            return row_losses(logit, logit.unsqueeze(1), batch.label, config=loss)
        found = self.sharded(batch, passes=loss.passes)
        return row_losses(found[:, 0], found[:, 1:], batch.label, config=loss, mean=mean)

    def evaluate(self, split: str) -> tuple[Metrics, Scored]:
        """Scores a split and measures it over all its rows; no calibrator is fitted yet."""
        scored = self._ask(split).scored(ToScores(shift=self._shift))
        metrics: Metrics = from_rank_zero(lambda: measured(split, scored))
        return metrics, scored

    def _ask(self, split: str) -> Answers:
        return answers(self.sharded, self._read(split, seed=None), device=self._device)

    def _fit_calibrator(self, valid: Answers | None) -> Calibrator | None:
        """What the experiment asks for, fitted on the validation rows' corrected logits."""
        method = self._config.calibration
        if method is None:
            return None
        assert valid is not None, "the rows are looked for before the training"
        return fit_calibrator(
            valid.label,
            valid.logit + np.float64(self._shift),
            valid.weight,
            method=method,
            fitted_on={"split": "valid"},
            place=f"{self._data.path}/valid",
        )

    def _read(self, split: str, *, seed: int | None) -> SplitReader:
        return SplitReader(
            self._data.path / split,
            layout=self._data.layout,
            batch_size=self._config.batch_size,
            rank=dist.get_rank(),
            world_size=dist.get_world_size(),
            seed=seed,
            pool_rows=self._config.shuffle_pool_rows,
        )

    def _train_epoch(self, interruption: Interruption) -> None:
        progress = self.progress
        every = self._config.checkpoint_every_steps
        start = Position(progress.epoch, progress.row)
        begin = time.perf_counter()
        with tqdm(
            total=self._reader.num_rows,
            initial=progress.row,
            desc=f"epoch {progress.epoch + 1}/{self._config.epochs}",
            unit=" rows",
            unit_scale=True,
            disable=not self._show_progress,
        ) as bar:
            groups = _in_groups(self._reader.steps(start), self._config.accumulate_steps)
            for steps, coming in _with_next(groups):
                loss_sum, requested = self._agree(
                    self.step(*steps, coming=coming), interruption.requested
                )
                total = sum(step.total for step in steps)
                mean = loss_sum / total if total else 0.0
                if not math.isfinite(mean):
                    raise DivergenceError(
                        f"step {progress.step + 1}: the loss is {mean}. {self._where(steps)} "
                        "Lower train.learning_rate or set train.gradient_clip_norm."
                    )
                rows = sum(step.global_rows for step in steps)
                progress.step += 1
                progress.row = steps[-1].after.row
                progress.loss_sum += loss_sum
                progress.weight_sum += sum(step.global_weight or 0.0 for step in steps)
                progress.train_rows += rows
                self.losses.append(mean)
                self._on_metrics({"train_loss": mean}, progress.step)
                bar.update(rows)
                if self._checkpoints.is_writing:
                    self._checkpoints.settle(wait=False)
                if requested or (every and progress.step % every == 0):
                    progress.train_seconds += time.perf_counter() - begin
                    self._save(wait=requested is not None)
                    self._stop_if_asked(requested)
                    begin = time.perf_counter()
        progress.train_seconds += time.perf_counter() - begin

    def _where(self, steps: Sequence[Step]) -> str:
        """What in an update's rows was not finite before it, on whichever rank."""
        own = (
            not_finite(step.batch, seen, self.model.embeddings)
            for step, seen in zip(steps, self._seen, strict=True)
        )
        found: list[Any] = [None] * dist.get_world_size()
        dist.all_gather_object(found, next(filter(None, own), None))
        told = next(filter(None, found), None)
        return told or "The fields' vectors are finite: it comes of the network."

    def _agree(self, loss_sum: Tensor, requested: int | None) -> tuple[float, int | None]:
        """Sum of the losses of all ranks, and the signal any of them got."""
        if dist.get_world_size() == 1:
            return float(loss_sum), requested
        total = loss_sum.to(torch.float64, copy=True)
        dist.all_reduce(total)
        return float(total), self._agreed(requested)

    def _agreed(self, requested: int | None) -> int | None:
        """The signal any rank got: no rank stops while another goes on."""
        if dist.get_world_size() == 1:
            return requested
        signal = torch.tensor(requested or 0, device=self._device)
        dist.all_reduce(signal, op=dist.ReduceOp.MAX)
        return int(signal) or None

    def _end_epoch(self) -> None:
        """Validates, keeps the best weights, moves the schedule and decides on going on."""
        progress = self.progress
        config = self._config
        has_weight = self._data.layout.has_weight
        total = progress.weight_sum if has_weight else self._reader.num_rows
        entry: dict[str, Any] = {
            "epoch": progress.epoch + 1,
            "train_loss": progress.loss_sum / (total or 1),
        }
        value: float | None = None
        if self._data.rows("valid"):
            metrics, _ = self.evaluate("valid")
            entry["valid"] = metrics
            value = monitored(metrics, config.monitor)
            if value is None:
                log.warning(
                    "valid: %s is undefined where all labels that count are the same; "
                    "the last weights are kept.",
                    config.monitor,
                )
        gained = value is None or improves(
            config.monitor, value, progress.best, min_delta=config.least_gain
        )
        if gained:
            progress.best, progress.epochs_without_gain = value, 0
            self._keep_best()
        else:
            progress.epochs_without_gain += 1
            if config.schedule == "plateau":
                progress.plateau_scale *= config.plateau_factor
                self.optimizers.plateau_scale = progress.plateau_scale
        progress.history.append(entry)
        self._report(entry)
        progress.epoch, progress.row = progress.epoch + 1, 0
        progress.loss_sum = progress.weight_sum = 0.0
        out_of_patience = (
            config.patience is not None and progress.epochs_without_gain >= config.patience
        )
        progress.finished = out_of_patience or progress.epoch >= config.epochs

    def _report(self, entry: dict[str, Any]) -> None:
        flat = {"epoch_train_loss": entry["train_loss"], "epoch": entry["epoch"]}
        valid = entry.get("valid", {})
        flat |= {f"valid_{name}": number for name, number in valid.items() if number is not None}
        self._on_metrics(flat, self.progress.step)
        if dist.get_rank() == 0:
            told = " ".join(f"{name} {number:.6g}" for name, number in flat.items())
            log.info("%s (%.1f s training)", told, self.progress.train_seconds)

    def _save(self, *, wait: bool) -> None:
        """Begins a checkpoint; waits for it where the training is about to end."""
        self._checkpoints.begin(asdict(self.progress))
        if wait:
            self._checkpoints.settle(wait=True)

    def _stop_if_asked(self, requested: int | None) -> None:
        if requested:
            log.warning("stopped at step %d; add --resume to go on.", self.progress.step)
            stop(requested)

    def _keep_best(self) -> None:
        """Keeps the weights of the epoch that ends, and those a checkpoint goes back to."""
        self.progress.best_epoch = self.progress.epoch + 1
        needed = from_rank_zero(
            lambda: {counters["best_epoch"] for counters in self._checkpoints.counters()}
        )
        self._best.keep(self.progress.best_epoch, needed=needed)


def _in_groups(steps: Iterator[Step], size: int) -> Iterator[tuple[Step, ...]]:
    """Steps by so many; the last group may be smaller."""
    while group := tuple(islice(steps, size)):
        yield group


def _with_next(groups: Iterator[tuple[Step, ...]]) -> Iterator[tuple[tuple[Step, ...], ...]]:
    """Each group with the one after it, which is empty after the last."""
    yield from pairwise(chain(groups, [()]))
