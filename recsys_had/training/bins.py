"""The bins of piecewise linear numeric columns: quantiles of the training rows."""

import logging
from functools import partial

import numpy as np
import torch
import torch.distributed as dist
from numpy.typing import NDArray

from recsys_had.data.folder import DataFolder
from recsys_had.model.ctr import CTRModel
from recsys_had.training.distributed import from_rank_zero

log = logging.getLogger("recsys_had")


def fit_bins(model: CTRModel, data: DataFolder) -> None:
    """Gives each piecewise linear column of a model its bins; all ranks call it together.

    Rank 0 reads the training rows, one column at a time, and tells the others, so the bins are
    the same at any number of processes. They are part of the model's state from then on.

    Raises:
        DataError: the training rows cannot be read.
    """
    fields = model.embeddings.numeric_fields
    if fields is None:
        return
    for column, num_bins in fields.bins.items():
        edges = from_rank_zero(partial(_edges, data, column, num_bins))
        fields.set_edges(column, torch.from_numpy(edges))
        if len(edges) == 1 and dist.get_rank() == 0:
            log.warning(
                "model.numeric.columns.%s: every training row holds %g, so there is no bin and "
                "nothing to learn from the column.",
                column,
                edges[0],
            )


def _edges(data: DataFolder, column: str, num_bins: int) -> NDArray[np.float32]:
    return quantile_edges(data.column("train", column), num_bins)


def quantile_edges(values: NDArray[np.float32], num_bins: int) -> NDArray[np.float32]:
    """Edges of bins that hold equally many values each, those that coincide told once.

    The quantiles are exact: ``t / num_bins`` of the way through the sorted values, in between two
    of them in proportion.

    Args:
        values: one number a row, one row at least.
        num_bins: bins at most.

    Returns:
        One to ``num_bins + 1`` rising numbers.

    >>> quantile_edges(np.array([4, 1, 2, 3, 5], np.float32), 2).tolist()
    [1.0, 3.0, 5.0]
    >>> quantile_edges(np.array([0, 0, 0, 7], np.float32), 3).tolist()
    [0.0, 7.0]
    """
    ordered = np.sort(values)
    # In whole numbers: a product of floats could land beside the row it means.
    place, rest = np.divmod(np.arange(num_bins + 1, dtype=np.int64) * (len(values) - 1), num_bins)
    low = ordered[place].astype(np.float64)
    high = ordered[np.minimum(place + 1, len(values) - 1)].astype(np.float64)
    edges: NDArray[np.float32] = np.unique(
        (low + (high - low) * rest / num_bins).astype(np.float32)
    )
    return edges
