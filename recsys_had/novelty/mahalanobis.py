"""Novelty by the distance from the classes' means, in the metric of their common covariance.

Letters: B rows, Z terms of the logit.
"""

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from recsys_had.errors import DataError
from recsys_had.novelty.method import Fitting, Novelty, Seen, State

_MOST_TERMS = 2048


class Mahalanobis:
    """Squared Mahalanobis distance of the penultimate features to the nearer class's mean.

    ``novelty = min_c (z - mu_c)^T S^-1 (z - mu_c)``, where ``mu_c`` is the mean of the terms of
    the logit over the training rows of label c, and S their covariance about these means, shrunk
    towards a multiple of the identity by as much as :func:`shrunk` says.

    Paper: Lee et al. 2018, A Simple Unified Framework for Detecting Out-of-Distribution Samples,
    eq. 1-2 (arXiv:1807.03888).
    Differs from the paper: the last layer alone, and a shrunk covariance.

    Args:
        means: ``(2, Z)``, mu of each class.
        root: ``(Z, Z)``, a matrix R with ``R R^T = S^-1``.
    """

    needs_terms = True

    def __init__(self, *, means: NDArray[np.float32], root: NDArray[np.float32]) -> None:
        if root.shape != (means.shape[1],) * 2 or len(means) != 2:
            raise ValueError(f"means of shape {means.shape} and a root of shape {root.shape}")
        # Row by row in memory, as it comes back from where it is kept: products take their sums in
        # another order elsewise.
        self._means, self._root = np.ascontiguousarray(means), np.ascontiguousarray(root)
        self._root_ZZ = torch.from_numpy(self._root)
        self._at = torch.from_numpy(self._means) @ self._root_ZZ

    @classmethod
    def fit(cls, fitting: Fitting) -> "Mahalanobis":
        """Finds means and covariance, in two passes over the rows.

        Raises:
            DataError: a class has no row, the terms never change, or there are too many.
        """
        label = torch.from_numpy(fitting.label)
        width = len(fitting.weights())
        if width > _MOST_TERMS:
            raise DataError(
                f"{fitting.place}: mahalanobis holds a square of the logit's terms, and takes "
                f"{_MOST_TERMS:,} of them at most; got {width:,}. Choose costarr or likelihood."
            )
        counts = torch.bincount(label.long(), minlength=2)
        if not counts.all():
            raise DataError(
                f"{fitting.place}: mahalanobis needs rows of both labels; got {len(label)} rows, "
                f"{int(counts[1])} of them clicks. Choose likelihood or unseen."
            )
        sums = torch.zeros(2, width, dtype=torch.float64)
        for z, own in _features(fitting, label):
            sums.index_add_(0, own, z)
        means = sums / counts.unsqueeze(1)
        squares = torch.zeros(width, width, dtype=torch.float64)
        for z, own in _features(fitting, label):
            apart = z - means[own]
            squares += apart.T @ apart
        covariance = shrunk(squares / len(label), rows=len(label))
        if covariance is None:
            raise DataError(
                f"{fitting.place}: mahalanobis cannot be fitted: the logit's terms are the same in "
                "every row of a class. Choose likelihood or unseen."
            )
        precision = torch.cholesky_inverse(torch.linalg.cholesky(covariance))
        root = torch.linalg.cholesky(precision)
        return cls(means=means.float().numpy(), root=root.float().numpy())

    @classmethod
    def load(cls, state: Mapping[str, Any], weights: Callable[[], Tensor]) -> "Mahalanobis":
        """Means and covariance as they were found."""
        return cls(means=state["means"], root=state["root"])

    def state(self) -> State:
        """Means and the root."""
        return {"means": self._means, "root": self._root}

    def __call__(self, seen: Seen) -> Novelty:
        """The squared distance, never below 0."""
        mapped = torch.cat(list(seen.terms), dim=1) @ self._root_ZZ
        apart = [((mapped - at) ** 2).sum(dim=1) for at in self._at]
        return np.asarray(torch.minimum(*apart).numpy(), np.float32)


def shrunk(covariance: Tensor, *, rows: int) -> Tensor | None:
    """A covariance of few rows, drawn towards a multiple of the identity; None where all is 0.

    ``(1 - r) S + r tr(S) / Z I`` with the r of least expected error under normality.

    Paper: Chen et al. 2010, Shrinkage Algorithms for MMSE Covariance Estimation, eq. 23.
    Differs from the paper: its terms of 2 / Z are left out, as in scikit-learn, and r is at least
    1e-6.

    >>> shrunk(torch.zeros(2, 2), rows=3)
    """
    width = len(covariance)
    trace = covariance.trace()
    if trace <= 0:
        return None
    mean_square = (covariance**2).mean()
    middle = trace / width
    above = mean_square + middle**2
    below = (rows + 1) * (mean_square - middle**2 / width)
    share = 1.0 if below <= 0 else min(1.0, float(above / below))
    # Terms that never change leave S singular, however many rows there are.
    share = max(share, 1e-6)
    eye = torch.eye(width, dtype=covariance.dtype)
    return (1 - share) * covariance + share * middle * eye


def _features(fitting: Fitting, label: Tensor) -> Any:
    """Terms and labels of the rows, batch by batch."""
    first = 0
    for seen in fitting.passes(True):
        z = torch.cat(list(seen.terms), dim=1).double()
        yield z, label[first : first + len(z)].long()
        first += len(z)
