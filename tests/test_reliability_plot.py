"""The picture of what calibration did."""

from pathlib import Path

import numpy as np
import pytest
from matplotlib.figure import Figure

from recsys_had import reliability_plot
from recsys_had.metrics import expected_calibration_error


def test_both_panels_tell_their_error_on_the_same_axes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    figures: list[Figure] = []
    save = reliability_plot.save_png
    monkeypatch.setattr(
        reliability_plot,
        "save_png",
        lambda figure, path: (figures.append(figure), save(figure, path)),
    )
    generator = np.random.default_rng(0)
    after = generator.random(3000).astype(np.float32) ** 3
    label, weight = generator.random(3000) < after, generator.random(3000)
    before = np.sqrt(after)
    reliability_plot.reliability_png(label, before, after, tmp_path / "r.png", weight=weight)
    left, right = figures[0].axes
    assert left.get_xlim() == left.get_ylim() == right.get_xlim() == right.get_ylim()
    for axes, name, score in ((left, "Before", before), (right, "After", after)):
        error = expected_calibration_error(label, score, weight)
        assert axes.get_title(loc="left") == f"{name}: calibration error {error.ece:.4f}"
    assert (tmp_path / "r.png").read_bytes()[1:4] == b"PNG"
