"""The methods' formulas in plain loops, and rows to try them on."""

import math
from collections import Counter
from collections.abc import Iterator, Sequence

import numpy as np
import torch

from recsys_had.batch import EncodedRows, Layout, Ragged
from recsys_had.novelty import Fitting, Seen


def rows_of(
    ids: Sequence[Sequence[int]],
    *,
    label: Sequence[int] | None = None,
    lists: Sequence[Sequence[int]] | None = None,
    unseen: Sequence[Sequence[int]] | None = None,
) -> EncodedRows:
    """Rows of fields a, b, c ... and, where lists are given, one of several values."""
    found = np.array(ids, np.int32)
    single = tuple("abcdefgh"[: found.shape[1]])
    fields = single if lists is None else (*single, "many")
    lengths = [] if lists is None else [len(part) for part in lists]
    many = {
        "many": Ragged(
            np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64),
            np.array([value for part in lists or [] for value in part], np.int32),
        )
    }
    return EncodedRows(
        Layout(fields=fields, multi=frozenset({"many"} & set(fields))),
        np.arange(len(found)),
        None if label is None else np.array(label, np.float32),
        found,
        {} if lists is None else many,
        np.empty((len(found), 0), np.float32),
        unseen=None if unseen is None else np.array(unseen, np.int32),
    )


def fitting_of(
    rows: EncodedRows,
    *,
    logit: Sequence[float] | None = None,
    terms: Sequence[Sequence[float]] | None = None,
    weights: Sequence[float] = (),
    batch: int = 7,
) -> Fitting:
    """Training rows with given logits and terms, shown a few at a time."""
    logits = np.zeros(len(rows), np.float32) if logit is None else np.array(logit, np.float32)
    z = torch.tensor(terms, dtype=torch.float32) if terms is not None else None

    def passes(with_terms: bool) -> Iterator[Seen]:
        for first in range(0, len(rows), batch):
            at = slice(first, first + batch)
            own = [] if z is None or not with_terms else list(torch.split(z[at], 2, dim=1))
            yield Seen(rows.take(np.arange(len(rows))[at]), logits[at], own)

    return Fitting(rows, passes, lambda: torch.tensor(weights), "here")


def log_share(value: int, column: Sequence[int]) -> float:
    """Of a value among all of its field's, smoothed."""
    counts = Counter(column)
    return math.log((counts[value] + 0.5) / (len(column) + 0.5 * (len(counts) + 1)))


def minus_log_likelihood(
    row: Sequence[int], training: Sequence[Sequence[int]], parents: Sequence[int]
) -> float:
    """Of single-valued ids under a tree; a value of -1 was never counted."""
    total = 0.0
    for field, parent in enumerate(parents):
        column = [line[field] for line in training]
        share = math.exp(log_share(row[field], column))
        if parent >= 0:
            given = sum(line[parent] == row[parent] for line in training)
            both = sum(
                line[parent] == row[parent] and line[field] == row[field] for line in training
            )
            share = (both + share) / (given + 1)
        total -= math.log(share)
    return total


def costarr(
    z: Sequence[float],
    logit: float,
    *,
    training: Sequence[Sequence[float]],
    logits: Sequence[float],
    labels: Sequence[int],
    weights: Sequence[float],
) -> float:
    """The novelty of one row, u = [z ; z * w] written out."""
    rate = sum(labels) / len(labels)
    base = math.log(rate / (1 - rate))
    edges = [float(np.quantile(np.array(logits, np.float64), k / 10)) for k in range(1, 10)]

    def part(value: float) -> int:
        return sum(value >= edge for edge in edges)

    def joined(x: Sequence[float]) -> list[float]:
        return [*x, *(a * b for a, b in zip(x, weights, strict=True))]

    own = logit >= base
    chosen = [
        (part(other), joined(x))
        for x, other, label in zip(training, logits, labels, strict=True)
        if label == own and (other >= base) == own
    ]
    if not chosen:
        chosen = [
            (part(other), joined(x))
            for x, other, label in zip(training, logits, labels, strict=True)
            if label == own
        ]
    cells = sorted({number for number, _ in chosen})
    nearest = min(cells, key=lambda number: (abs(number - part(logit)), number))
    members = [u for number, u in chosen if number == nearest]
    mu = [sum(column) / len(members) for column in zip(*members, strict=True)]
    u = joined(z)
    product = sum(a * b for a, b in zip(u, mu, strict=True))
    norms = math.sqrt(sum(a * a for a in u)) * math.sqrt(sum(b * b for b in mu))
    cosine = product / norms if norms else 0.0
    sure = [abs(other - base) for other in logits]
    low, high = min(sure), max(sure)
    norm = min(1.0, max(0.0, (abs(logit - base) - low) / (high - low))) if high > low else 1.0
    return 1 - norm * (1 + cosine) / 2
