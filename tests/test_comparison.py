"""Means over seeds: against numpy and scipy's tables, worked out by hand."""

import math
from pathlib import Path

import numpy as np
import pytest

from recsys_had.comparison import Measured, draw_comparison, markdown_table, summarise
from recsys_had.errors import DataError


def measured(name: str, seed: int, auc: float, logloss: float = 0.2) -> Measured:
    return Measured(name, seed, "digest", 1000, auc, logloss, 3, 4 + seed, 1.5 * seed)


def test_a_row_is_the_mean_and_the_sample_deviation_over_the_seeds() -> None:
    aucs = [0.981, 0.984, 0.9835, 0.982, 0.986]
    rows = summarise([measured("fm", seed, auc) for seed, auc in enumerate(aucs)])
    assert len(rows) == 1
    assert rows[0].seeds == 5
    assert rows[0].aucs == tuple(aucs)
    assert rows[0].auc_mean == pytest.approx(np.mean(aucs))
    assert rows[0].auc_std == pytest.approx(np.std(aucs, ddof=1))
    # Student's t for 4 degrees of freedom leaves 2.5 % above 2.776.
    assert rows[0].auc_interval == pytest.approx(2.776445 * np.std(aucs, ddof=1) / math.sqrt(5))
    assert rows[0].epochs_mean == 6
    assert rows[0].epoch_s == 3.0


def test_the_interval_of_twelve_seeds_is_still_wider_than_a_normal_one() -> None:
    aucs = [0.98 + 0.001 * seed for seed in range(12)]
    row = summarise([measured("fm", seed, auc) for seed, auc in enumerate(aucs)])[0]
    # Student's t for 11 degrees of freedom leaves 2.5 % above 2.201.
    assert row.auc_interval == pytest.approx(
        2.200985 * np.std(aucs, ddof=1) / math.sqrt(12), rel=1e-6
    )


def test_one_seed_has_no_spread() -> None:
    row = summarise([measured("fm", 1, 0.9)])[0]
    assert (row.auc_std, row.auc_interval, row.logloss_std) == (None, None, None)


def test_the_best_mean_stands_first_not_the_best_run() -> None:
    results = [measured("lucky", 1, 0.99), measured("lucky", 2, 0.90)]
    results += [measured("steady", 1, 0.96), measured("steady", 2, 0.97)]
    assert [row.experiment for row in summarise(results)] == ["steady", "lucky"]


def test_the_table_tells_mean_and_deviation() -> None:
    results = [measured("fm", 1, 0.5, 0.1), measured("fm", 2, 0.7, 0.3)]
    last = markdown_table(summarise(results)).splitlines()[-1]
    assert last == "| fm | 1,000 | 2 | .60000 +- .14142 | .20000 +- .14142 | 5.5 | 2.2 |"


def test_a_result_reads_back_and_something_else_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "fm-1.json"
    measured("fm", 1, 0.9).save(path)
    assert Measured.load(path) == measured("fm", 1, 0.9)
    assert [entry.name for entry in tmp_path.iterdir()] == ["fm-1.json"]
    path.write_text('{"auc": 1}')
    with pytest.raises(DataError, match=r"fm-1\.json: is no result of a benchmark: .* Remove it"):
        Measured.load(path)


@pytest.mark.parametrize("worst", [0.0, 0.5, 0.8, 1.0])
def test_the_picture_is_a_png_whatever_the_seeds(tmp_path: Path, worst: float) -> None:
    rows = summarise([measured("fm", 1, 1.0), measured("lr", 1, worst), measured("lr", 2, 0.81)])
    draw_comparison(rows, tmp_path / "auc.png", title="frappe")
    assert (tmp_path / "auc.png").read_bytes().startswith(b"\x89PNG")


def test_a_wide_interval_does_not_widen_the_picture(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from matplotlib.figure import Figure

    drawn: list[Figure] = []
    monkeypatch.setattr(Figure, "savefig", lambda figure, *_, **__: drawn.append(figure))
    rows = summarise([measured("fm", 1, 0.96), measured("fm", 2, 0.98)])
    draw_comparison(rows, tmp_path / "auc.png", title="frappe")
    left, right = drawn[0].axes[0].get_xlim()
    # The seeds are .04 and .02 away from 1; the interval would reach from beyond 1 to .84.
    assert (left, right) == pytest.approx((0.046, 0.02 / 1.15))
