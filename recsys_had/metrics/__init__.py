"""The quality of scores: exact, streaming and weighted AUC, logloss, entropy, calibration.

Every metric is computed from float32 scores, those `predict` writes, and, where rows have no
weights, from integers: pairs are counted in int64, sums are kept in fixed point. So a metric does
not depend on the order of the rows, on how they are cut into batches, or on how many ranks hold
them.
"""

from recsys_had.metrics.better import HIGHER_IS_BETTER, improves, monitored
from recsys_had.metrics.calibration_error import (
    CalibrationError,
    evaluate_with_ece,
    expected_calibration_error,
)
from recsys_had.metrics.counts import EPSILON
from recsys_had.metrics.equal_mass import bin_starts
from recsys_had.metrics.exact import (
    GroupedAuc,
    auc,
    calibration,
    evaluate_scores,
    grouped_auc,
    logloss,
    normalized_entropy,
)
from recsys_had.metrics.rows import check_scores
from recsys_had.metrics.streaming import StreamingMetrics
from recsys_had.metrics.weighted import evaluate_rows

__all__ = [
    "EPSILON",
    "HIGHER_IS_BETTER",
    "CalibrationError",
    "GroupedAuc",
    "StreamingMetrics",
    "auc",
    "bin_starts",
    "calibration",
    "check_scores",
    "evaluate_rows",
    "evaluate_scores",
    "evaluate_with_ece",
    "expected_calibration_error",
    "grouped_auc",
    "improves",
    "logloss",
    "monitored",
    "normalized_entropy",
]
