"""Labels and scores to measure, and patterns of whole messages."""

import re

import numpy as np
from hypothesis import strategies as st
from numpy.typing import NDArray

Rows = tuple[NDArray[np.int64], NDArray[np.float32]]


def skewed_rows(num_rows: int, seed: int, digits: int = 7) -> Rows:
    """Gives rows with a few percent of clicks; fewer digits mean more ties."""
    rng = np.random.default_rng(seed)
    score = 1 / (1 + np.exp(3 - rng.normal(size=num_rows)))
    return (rng.random(num_rows) < score).astype(np.int64), score.round(digits).astype(np.float32)


@st.composite
def tied_rows(draw: st.DrawFn, min_size: int = 1) -> Rows:
    """Draws up to 60 rows whose scores take few values, 0 and 1 among them."""
    values = [0.0, 1e-30, 1e-7, 0.1, 0.25, 0.3, 0.5, 0.99, 1.0]
    pairs = draw(
        st.lists(
            st.tuples(st.integers(0, 1), st.sampled_from(values) | st.floats(0, 1, width=32)),
            min_size=min_size,
            max_size=60,
        )
    )
    label, score = zip(*pairs, strict=True) if pairs else ((), ())
    return np.array(label, dtype=np.int64), np.array(score, dtype=np.float32)


def message(*lines: str) -> str:
    """Makes a pattern for ``match`` that holds the whole message."""
    return "^" + re.escape("\n".join(lines)) + "$"
