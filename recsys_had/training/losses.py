"""What a training minimises: a loss a row, of the model's logit and of its heads' own.

Letters: B rows of a rank's batch, S students: the heads, or passes with dropout of their own.
"""

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional

from recsys_had.config import Bce, Focal, LossConfig
from recsys_had.errors import ConfigError

# Takes a loss for each row of this rank; gives its mean over the rows of all ranks.
Mean = Callable[[Tensor], Tensor]


def row_losses(logit_B: Tensor, students_BS: Tensor, label_B: Tensor, *, config: LossConfig,
               mean: Mean = torch.mean) -> Tensor:  # fmt: skip
    """The loss of each row; a training minimises its mean over the rows of all ranks.

    ``bce``: binary cross entropy of the logit. ``focal``: ``alpha_t (1 - p_t)^gamma`` times that,
    ``p_t`` the probability of the true class (Lin et al. 2017, arXiv:1708.02002). ``tri_bce``:
    each student's cross entropy beside it, weighted by how much worse than the whole it is,
    ``L + sum_s max(0, L_s - L) L_s`` (Li et al. 2024, arXiv:2407.13349); the weights are means over
    the batch, and constants to the gradient, on which the paper is silent.
    ``self_distillation``: each student's cross entropy against the whole's probability (Zhu et al.
    2023, FINAL, doi:10.1145/3539618.3591988), through which no gradient flows.

    Args:
        logit_B: the model's logits.
        students_BS: logits of its heads, or of passes.
        label_B: 0 or 1.
        config: the loss.
        mean: mean of a row loss over the rows of all ranks.

    >>> from recsys_had.config import Bce, TriBce
    >>> logit, label = torch.tensor([0.0]), torch.tensor([1.0])
    >>> row_losses(logit, logit[:, None], label, config=Bce())
    tensor([0.6931])
    >>> row_losses(logit, torch.tensor([[-1.0, 1.0]]), label, config=TriBce())
    tensor([1.5075])
    """
    whole = functional.binary_cross_entropy_with_logits(logit_B, label_B, reduction="none")
    match config.kind:
        case "bce":
            return whole
        case "focal":
            # Its derivative at 0 is infinite for a gamma below 1.
            wrong = (-torch.expm1(-whole)).clamp_min(torch.finfo(whole.dtype).tiny)
            focal = wrong**config.gamma * whole
            if config.alpha is None:
                return focal
            return focal * torch.where(label_B > 0.5, config.alpha, 1 - config.alpha)
        case "tri_bce":
            own = _cross_entropies(students_BS, label_B)
            worse = [mean(own[:, s].detach()) - mean(whole.detach()) for s in range(own.shape[1])]
            return whole + own @ torch.stack(worse).clamp_min(0)
        case "self_distillation":
            teacher = torch.sigmoid(logit_B.detach())
            return whole + _cross_entropies(students_BS, teacher).sum(dim=1)


def require_students(config: LossConfig, *, num_heads: int, has_dropout: bool) -> None:
    """Refuses a loss that compares the heads of a model with one, or passes that are all alike.

    Raises:
        ConfigError: there is nothing to compare.
    """
    if isinstance(config, Bce | Focal):
        return
    if config.passes > 1 and not has_dropout:
        raise ConfigError(
            f"train.loss.passes: {config.kind} compares {config.passes} passes, which are all "
            "alike in a model without dropout. Give a node some, or leave passes out."
        )
    if max(num_heads, config.passes) < 2:
        raise ConfigError(
            f"train.loss: {config.kind} compares a model's heads with their sum or mean; this "
            "model has one head. Give it a second one, set train.loss.passes to 2, or use bce."
        )


def _cross_entropies(students_BS: Tensor, target_B: Tensor) -> Tensor:
    target = target_B.unsqueeze(1).expand_as(students_BS)
    return functional.binary_cross_entropy_with_logits(students_BS, target, reduction="none")
