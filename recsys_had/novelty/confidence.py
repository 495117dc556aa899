"""Novelty by the model's own doubt: maximum probability and energy.

Letters: B rows.
"""

import numpy as np

from recsys_had.novelty.method import Novelty, Seen, WithoutState


class MaxProbability(WithoutState):
    """One minus the probability of the likelier class: ``1 - max(p, 1 - p) = sigmoid(-|l|)``.

    Paper: Hendrycks & Gimpel 2017, A Baseline for Detecting Misclassified and Out-of-Distribution
    Examples (arXiv:1610.02136), for two classes.
    Differs from the paper: nothing.
    """

    def __call__(self, seen: Seen) -> Novelty:
        """0 where the model is sure, 0.5 where it cannot tell."""
        size = np.abs(seen.logit.astype(np.float64))
        return np.asarray(np.exp(-np.logaddexp(0.0, size)), np.float32)


class Energy(WithoutState):
    """The energy of the two classes' logits, 0 and l: ``-log(exp(0) + exp(l)) = -softplus(l)``.

    A click model gives one logit; the class without a click has the logit 0. So the energy falls
    where the logit rises, and orders rows by their scores alone.

    Paper: Liu et al. 2020, Energy-based Out-of-distribution Detection, eq. 4, at temperature 1
    (arXiv:2010.03759).
    Differs from the paper: nothing.
    """

    def __call__(self, seen: Seen) -> Novelty:
        """Never above 0."""
        return np.asarray(-np.logaddexp(0.0, seen.logit.astype(np.float64)), np.float32)
