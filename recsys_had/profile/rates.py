"""Click rates with what chance leaves open of them."""

import math
from dataclasses import dataclass

_Z_95 = 1.959964  # 95 % of a normal distribution lies within so many standard deviations


@dataclass(frozen=True)
class Rate:
    """Rows, clicks, and the click rate with its 95 % interval; None without rows.

    The interval is ``(k + z^2/2 +- z sqrt(k (n - k) / n + z^2/4)) / (n + z^2)`` for k clicks in n
    rows.

    Paper: Wilson 1927, Probable inference, the law of succession, and statistical inference.
    Differs from the paper: nothing.

    >>> rate = Rate.of(rows=10, clicks=5)
    >>> rate.click_rate, round(rate.low, 4), round(rate.high, 4)
    (0.5, 0.2366, 0.7634)
    """

    rows: int
    clicks: int
    click_rate: float | None
    low: float | None
    high: float | None

    @classmethod
    def of(cls, rows: int, clicks: int) -> "Rate":
        """The rate of so many clicks in so many rows."""
        if not rows:
            return cls(0, 0, None, None, None)
        middle = clicks + _Z_95**2 / 2
        spread = _Z_95 * math.sqrt(clicks * (rows - clicks) / rows + _Z_95**2 / 4)
        whole = rows + _Z_95**2
        low, high = max(0.0, (middle - spread) / whole), min(1.0, (middle + spread) / whole)
        return cls(int(rows), int(clicks), clicks / rows, low, high)

    @property
    def has_both_classes(self) -> bool:
        """Whether an AUC can be measured on these rows."""
        return 0 < self.clicks < self.rows


def auc_interval(auc: float, clicks: int, others: int) -> tuple[float, float]:
    """The 95 % interval of an AUC that so many clicks and other rows gave.

    ``var = (A (1 - A) + (P - 1) (Q1 - A^2) + (N - 1) (Q2 - A^2)) / (P N)`` with
    ``Q1 = A / (2 - A)`` and ``Q2 = 2 A^2 / (1 + A)``.

    Paper: Hanley and McNeil 1982, The meaning and use of the area under a ROC curve.
    Differs from the paper: the interval is cut at 0 and 1.

    >>> [round(end, 3) for end in auc_interval(0.75, 100, 100)]
    [0.683, 0.817]
    """
    square = auc * auc
    first, second = auc / (2 - auc) - square, 2 * square / (1 + auc) - square
    variance = (auc * (1 - auc) + (clicks - 1) * first + (others - 1) * second) / (clicks * others)
    spread = _Z_95 * math.sqrt(max(variance, 0.0))
    return max(0.0, auc - spread), min(1.0, auc + spread)
