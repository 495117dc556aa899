"""What metrics are computed from: labels and scores without a flaw."""

import numpy as np
from numpy.typing import ArrayLike, NDArray

Clicked = NDArray[np.bool_]
Scores = NDArray[np.float32]


def check_scores(
    place: str,
    label: ArrayLike,
    score: ArrayLike,
    *,
    probability: bool = False,
    allow_empty: bool = False,
) -> tuple[Clicked, Scores]:
    """Turns labels and scores into clean arrays, or tells all that is wrong with them.

    Args:
        place: the name of the caller, which opens every line of the message.
        label: 0 or 1 per row, in any numeric type.
        score: one number per row.
        probability: whether the scores must lie in [0, 1].
        allow_empty: whether zero rows will do.

    Returns:
        Whether each row was clicked, bool, and its score, float32.

    Raises:
        ValueError: one line per problem.

    >>> check_scores("demo", [0, 1], [0.25, 0.5])
    (array([False,  True]), array([0.25, 0.5 ], dtype=float32))
    """
    labels, raw_scores = np.asarray(label), np.asarray(score)
    problems = []
    for name, array in (("label", labels), ("score", raw_scores)):
        if array.ndim != 1:
            problems.append(f"{name} must have one axis; got shape {array.shape}. Flatten it.")
        elif array.dtype.kind not in "biuf":
            problems.append(f"{name} must hold numbers; got {array.dtype}. Cast it first.")
    if problems:
        raise ValueError("\n".join(f"{place}: {problem}" for problem in problems))

    if len(labels) != len(raw_scores):
        problems.append(
            f"label and score must have the same number of rows; got {len(labels)} and "
            f"{len(raw_scores)}. Pass one score per label."
        )
    elif len(labels) == 0 and not allow_empty:
        problems.append("label must have at least one row; got 0. Leave out empty splits.")
    clicked = labels == 1
    if (wrong := ~clicked & (labels != 0)).any():
        found = _first(labels, wrong)
        problems.append(f"label must be 0 or 1; got {found}. Map clicks to 1 and the rest to 0.")
    with np.errstate(over="ignore"):  # beyond float32 a score becomes infinite and keeps its order
        scores = raw_scores.astype(np.float32)
    if (wrong := np.isnan(scores)).any():
        found = _first(raw_scores, wrong)
        problems.append(f"score must not be NaN; got {found}. Look for weights that diverged.")
    if probability and (wrong := (raw_scores < 0) | (raw_scores > 1)).any():
        found = _first(raw_scores, wrong)
        problems.append(f"score must lie in [0, 1]; got {found}. Pass probabilities, not logits.")
    if problems:
        raise ValueError("\n".join(f"{place}: {problem}" for problem in problems))
    return clicked, scores


def _first(values: NDArray[np.generic], wrong: NDArray[np.bool_]) -> str:
    row, total = int(np.argmax(wrong)), int(wrong.sum())
    others = "" if total == 1 else f", the first of {total} such rows"
    return f"{values[row]} in row {row}{others}"
