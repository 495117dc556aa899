"""From a model's logits to probabilities: the correction for sampling, and fitted calibrators.

Fitting needs scikit-learn, scoring numpy alone.
"""

from recsys_had.calibration.calibrator import Calibrator, parse_calibrator
from recsys_had.calibration.fitting import METHODS, Method, fit_calibrator, require_fit_rows
from recsys_had.calibration.judging import Judgement, judge
from recsys_had.calibration.scores import ToScores, log_kept_share

__all__ = [
    "METHODS",
    "Calibrator",
    "Judgement",
    "Method",
    "ToScores",
    "fit_calibrator",
    "judge",
    "log_kept_share",
    "parse_calibrator",
    "require_fit_rows",
]
