"""The way from a logit to a score, the same wherever scores are made."""

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from recsys_had.calibration.calibrator import Calibrator, Segments
from recsys_had.calibration.maps import sigmoid

Logits = NDArray[np.float32]
Scores = NDArray[np.float32]


def log_kept_share(sampling: Mapping[str, Any] | None) -> float:
    """What is added to a logit for the negatives that training left out: ln of the share kept.

    A model that saw a share ``r`` of the rows of label 0 promises ``q`` where
    ``p = q / (q + (1 - q) / r)`` is true: the odds are ``1 / r`` times too high. On the logit
    that is an addition: ``logit(p) = logit(q) + ln(r)``.

    Paper: He et al. 2014, Practical lessons from predicting clicks on ads at Facebook, sec. 6.3.
    Differs from the paper: on the logit, which keeps rows apart that ``q`` rounds to 1.

    Args:
        sampling: ``sampling`` of a manifest, with the share ``negatives``, and ``left_out``, the
            number of rows; None where rows were not sampled.

    >>> round(log_kept_share({"negatives": 0.5, "left_out": 10}), 6)
    -0.693147
    >>> log_kept_share(None)
    0.0
    """
    if sampling is None or not sampling["left_out"]:
        return 0.0
    return math.log(sampling["negatives"])


class ToScores:
    """Makes scores of logits: corrected for sampling first, then calibrated.

    A calibrator is fitted on corrected logits of rows that were not sampled, so both are
    applied, in this order. All is computed in float64, row by row, and rounded once: the score of
    a row does not depend on the rows it is scored with.

    Args:
        shift: what is added to each logit, see :func:`log_kept_share`.
        calibrator: what comes after it; None for the logistic function.

    >>> ToScores(shift=math.log(0.1))(np.array([0.0], np.float32)).tolist()  # odds of 1 to 10
    [0.09090909361839294]
    """

    def __init__(self, *, shift: float = 0.0, calibrator: Calibrator | None = None) -> None:
        self.shift = shift
        self.calibrator = calibrator

    def __call__(self, logits: Logits, segments: Segments | None = None) -> Scores:
        """Scores of logits.

        Args:
            logits: ``(B,)`` float32.
            segments: ``(B,)``, ids of the field that the calibrator is fitted by, if it is.

        Raises:
            ValueError: segments are needed and not given.
        """
        corrected = logits.astype(np.float64) + self.shift
        if self.calibrator is None:
            return sigmoid(corrected).astype(np.float32)
        return self.calibrator(corrected, segments).astype(np.float32)
