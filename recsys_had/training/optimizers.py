"""The two regimes of optimization, their learning-rate schedule and gradient clipping."""

import math
from collections.abc import Mapping, Sequence, Set
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed._shard.sharded_tensor.api import ShardedTensor
from torchrec.distributed.model_parallel import DistributedModelParallel
from torchrec.modules.embedding_modules import EmbeddingBagCollection
from torchrec.optim import SGD, Adagrad, RowWiseAdagrad
from torchrec.optim.apply_optimizer_in_backward import apply_optimizer_in_backward
from torchrec.optim.rowwise_adagrad import RowWiseAdagrad as PlainRowWiseAdagrad

from recsys_had.batch import Bags
from recsys_had.config import TrainConfig
from recsys_had.model.ctr import CTRModel
from recsys_had.model.embeddings import is_field_table, is_table
from recsys_had.model.torchrec_tables import padded_width
from recsys_had.training import published
from recsys_had.training.lazy_adam import LazyAdam

FUSED: dict[str, type[torch.optim.Optimizer]] = {
    "rowwise_adagrad": RowWiseAdagrad,
    "adagrad": Adagrad,
    "sgd": SGD,
}
# What a fused one does, on tables it does not reach: every row without a gradient stays.
_PLAIN: dict[str, type[torch.optim.Optimizer]] = {
    "rowwise_adagrad": PlainRowWiseAdagrad,
    "adagrad": torch.optim.Adagrad,
    "sgd": torch.optim.SGD,
}
_EPS = 1e-8


def attach_fused(
    model: CTRModel, config: TrainConfig, *, leave_out: Set[tuple[str, str]] = frozenset()
) -> None:
    """Gives each set of tables its fused optimizer; called before the model is sharded.

    Args:
        model: the whole model.
        config: the training part of an experiment.
        leave_out: tables, by their collection's path and their name, that get none.
    """
    kind = FUSED[config.table_optimizer]
    for set_name, tables in model.embeddings.tables.items():
        assert isinstance(tables, EmbeddingBagCollection)
        settings = _table_settings(config, width=model.embeddings.widths[set_name])
        path = f"embeddings.tables.{set_name}"
        held = [
            bag.weight
            for name, bag in tables.embedding_bags.items()
            if (path, name) not in leave_out
        ]
        # The settings are changed by their reader: each call has its own.
        apply_optimizer_in_backward(kind, held, dict(settings))


def _table_settings(config: TrainConfig, *, width: int) -> dict[str, Any]:
    """Rate and eps of the tables of a width.

    Row-wise Adagrad divides by the root mean square over a row's width. A padded row counts its
    padding in that mean, so both are scaled by ``sqrt(width / padded)``, which restores the update
    of the unpadded row exactly.
    """
    scale = 1.0
    if config.table_optimizer == "rowwise_adagrad":
        scale = math.sqrt(width / padded_width(width))
    settings: dict[str, Any] = {"lr": config.table_learning_rate * scale}
    if config.table_optimizer != "sgd":
        settings["eps"] = _EPS * scale
    return settings


class Optimizers:
    """Everything that changes weights: fused and plain optimizers, the schedule, the clipping.

    In regime ``scale`` a fused optimizer changes sharded tables inside the backward pass, one of
    the same kind the data-parallel ones after it, or lazy Adam all of them; Adam changes the rest.

    Args:
        model: the sharded model.
        config: the training part of an experiment.
        widths: of each set of tables, padding not counted.
    """

    def __init__(
        self,
        model: DistributedModelParallel,
        config: TrainConfig,
        *,
        widths: Mapping[str, int],
    ) -> None:
        self._config = config
        self.plateau_scale = 1.0
        self.fused = model.fused_optimizer if config.kernel == "fused" else None
        sharded = {
            name for name, value in model.state_dict().items() if isinstance(value, ShardedTensor)
        }
        groups = _dense_groups(model, config)
        self.adam = torch.optim.Adam(
            [
                {
                    "params": [weight for _, weight in group["named"]],
                    "lr": group["lr"],
                    "weight_decay": group["weight_decay"],
                }
                for group in groups
            ],
            eps=_EPS,
            fused=True,
        )
        for group in self.adam.param_groups:
            for weight in group["params"]:
                # As its first step would make it: a checkpoint is read into what is there.
                self.adam.state[weight] = {
                    "step": torch.zeros((), dtype=torch.float32, device=weight.device),
                    "exp_avg": torch.zeros_like(weight),
                    "exp_avg_sq": torch.zeros_like(weight),
                }
        self.plain: list[torch.optim.Optimizer] = [self.adam]
        self.named: dict[str, Tensor] = {
            name: weight for group in groups for name, weight in group["named"]
        }
        # Alone, a rank's gradients are those of all.
        self._sharded_names = sharded & set(self.named) if dist.get_world_size() > 1 else set()
        self._groups = [*self.adam.param_groups]
        self.copied: dict[str, Tensor] = {}
        if config.regime == "scale":
            self.copied = {
                name: weight
                for name, weight in model.named_parameters()
                if is_field_table(name) and name not in sharded
            }
        if self.fused is not None:
            self._groups += list(self.fused.param_groups)
            for name, weight in self.copied.items():
                width = widths[name.split(".")[2]]
                settings = _table_settings(config, width=width)
                self.plain.append(_PLAIN[config.table_optimizer]([weight], **settings))
                self._groups += self.plain[-1].param_groups
        self.lazy: LazyAdam | None = None
        if config.table_optimizer == "lazy_adam":
            self.lazy = LazyAdam(
                model, rate=config.table_learning_rate, eps=_EPS, copies=self.copied
            )
            self._groups += self.lazy.param_groups
        self._step = 0
        self._rates = [group["lr"] for group in self._groups]

    def rate_factor(self, step: int, *, done: float) -> float:
        """What the learning rates are multiplied by.

        Args:
            step: 0-based; the warm-up counts steps.
            done: share of all epochs' rows seen; the schedules go by it, so that a training taken
                up with another number of ranks goes on where it was.
        """
        config = self._config
        factor = self.plateau_scale
        if step < config.warmup_steps:
            factor *= (step + 1) / config.warmup_steps
        if config.schedule == "linear":
            factor *= 1 - done
        elif config.schedule == "cosine":
            factor *= 0.5 * (1 + math.cos(math.pi * done))
        return factor

    def prepare(self, step: int, *, done: float) -> None:
        """Sets the rates of a step and clears gradients; called before the forward pass."""
        factor = self.rate_factor(step, done=done)
        for group, rate in zip(self._groups, self._rates, strict=True):
            group["lr"] = rate * factor
            if self._config.regime == "published" and self._config.schedule == "plateau":
                group["lr"] = max(rate * factor, min(rate, published.LEAST_RATE))
            if self._config.has_legacy_defaults:
                group["eps"] = published.adam_eps(_EPS, beta2=group["betas"][1], step=step)
        for optimizer in self.plain:
            optimizer.zero_grad(set_to_none=True)
        if self.fused is not None:
            # The fused kernels update inside the backward pass: here they learn their rate.
            self.fused.zero_grad()
        if self.lazy is not None:
            self.lazy.zero_grad()
        self._step = step

    def apply(self, rows: Sequence[Bags]) -> None:
        """Clips and applies what the backward pass left; fused tables are updated already.

        Args:
            rows: that this rank's batches looked up.
        """
        if self._config.gradient_clip_norm is not None:
            self._clip(self._config.gradient_clip_norm)
        for optimizer in self.plain:
            optimizer.step()
        if self.lazy is not None:
            self.lazy.step(self._step + 1, rows)

    def _clip(self, max_norm: float) -> None:
        local: list[Tensor] = []
        shared: list[Tensor] = []
        for name, weight in self.named.items():
            if weight.grad is not None:
                (local if name in self._sharded_names else shared).append(weight.grad)
        # A rank without a table, too, sums up where the others do: collectives of tensors on
        # different devices never meet.
        none = torch.zeros((), device=next(iter(self.named.values())).device)
        squares = sum((grad.square().sum() for grad in shared), none)
        sharded = sum((grad.square().sum() for grad in local), none.clone())
        if self._sharded_names or dist.get_world_size() > 1:
            dist.all_reduce(sharded)
        norm = torch.sqrt(squares + sharded)
        scale = torch.clamp(max_norm / (norm + 1e-6), max=1.0)
        for grad in [*local, *shared]:
            grad.mul_(scale)


def _dense_groups(model: nn.Module, config: TrainConfig) -> list[dict[str, Any]]:
    """Weights Adam trains: in regime ``published`` the tables form a group of their own.

    The vectors of ``scale`` are such rows; what other kinds of numeric columns learn is not:
    every row of a batch trains it, so it belongs to the network.
    """
    tables: list[tuple[str, Tensor]] = []
    others: list[tuple[str, Tensor]] = []
    dense_tables = config.regime == "published"
    for name, weight in model.named_parameters():
        if dense_tables and is_table(name):
            tables.append((name, weight))
        elif not is_field_table(name):
            others.append((name, weight))
    groups = [
        {"named": others, "lr": config.learning_rate, "weight_decay": config.dense_l2},
        {
            "named": tables,
            "lr": config.table_learning_rate,
            "weight_decay": config.embedding_l2,
        },
    ]
    return [group for group in groups if group["named"]]
