"""The methods by name, and how what they know becomes text and comes back."""

import base64
import json
import zlib
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from recsys_had.errors import CheckpointError
from recsys_had.novelty.confidence import Energy, MaxProbability
from recsys_had.novelty.costarr import Costarr
from recsys_had.novelty.likelihood import Likelihood
from recsys_had.novelty.mahalanobis import Mahalanobis
from recsys_had.novelty.method import Fitting, Method
from recsys_had.novelty.unseen import Unseen

METHODS: dict[str, type[Method]] = {
    "likelihood": Likelihood,
    "costarr": Costarr,
    "mahalanobis": Mahalanobis,
    "max_probability": MaxProbability,
    "energy": Energy,
    "unseen": Unseen,
}
DEFAULT = "likelihood"

# Numbers of each kind an array may have, by the name they are kept under.
_DTYPES = {"uint8": np.uint8, "int64": np.int64, "float32": np.float32, "float64": np.float64}


def fit(name: str, fitting: Fitting) -> Method:
    """Fits a method on training rows.

    Raises:
        DataError: it cannot be fitted on them.
    """
    return METHODS[name].fit(fitting)


def to_text(name: str, method: Method, *, rows: int, before: str | None = None) -> str:
    """JSON of a fitted method, and of those before it; arrays as compressed bytes in base64.

    Args:
        name: the method.
        method: as it was fitted.
        rows: how many rows it was fitted on.
        before: what this function gave of other methods, which are kept.
    """
    methods = {} if before is None else json.loads(before)["methods"]
    state = {key: _packed(value) for key, value in method.state().items()}
    methods[name] = {"rows": rows, "state": state}
    return json.dumps({"last": name, "methods": methods}) + "\n"


def kept_last(text: str, *, place: str) -> str:
    """Which method was kept last.

    Raises:
        CheckpointError: the text is damaged.
    """
    try:
        last: str = json.loads(text)["last"]
        METHODS[last]
    except (ValueError, KeyError, TypeError) as cause:
        raise _damaged(place, cause) from cause
    return last


def from_text(text: str, name: str, weights: Callable[[], Tensor], *, place: str) -> Method | None:
    """A method as it was fitted; None where it was not.

    Args:
        text: what :func:`to_text` gave.
        name: the method.
        weights: of the logit's terms.
        place: the text's name in an error.

    Raises:
        CheckpointError: the text is damaged.
    """
    try:
        methods = json.loads(text)["methods"]
        if name not in methods:
            return None
        state = {key: _unpacked(value) for key, value in methods[name]["state"].items()}
        return METHODS[name].load(state, weights)
    except (ValueError, KeyError, TypeError, AttributeError, zlib.error) as cause:
        raise _damaged(place, cause) from cause


def _damaged(place: str, cause: Exception) -> CheckpointError:
    return CheckpointError(
        f"{place}: what was kept of novelty is damaged: {type(cause).__name__}: {cause}. "
        "Run `recsys-had novelty` again."
    )


def _packed(value: Any) -> Any:
    if not isinstance(value, np.ndarray):
        return value
    plain = np.ascontiguousarray(value).astype(value.dtype.newbyteorder("<"))
    packed = base64.b64encode(zlib.compress(plain.tobytes(), 6)).decode()
    return {"dtype": value.dtype.name, "shape": list(value.shape), "zlib_base64": packed}


def _unpacked(value: Any) -> Any:
    if not isinstance(value, dict):
        return value
    dtype = np.dtype(_DTYPES[value["dtype"]]).newbyteorder("<")
    shape = tuple(int(length) for length in value["shape"])
    size = int(np.prod(shape, dtype=np.int64)) * dtype.itemsize
    # No more is unpacked than the shape tells, whatever the bytes would come to.
    reader = zlib.decompressobj()
    content = reader.decompress(base64.b64decode(value["zlib_base64"], validate=True), size + 1)
    if len(content) != size:
        raise ValueError(f"an array of shape {shape} must have {size} bytes")
    found: NDArray[Any] = np.frombuffer(content, dtype).reshape(shape)
    return found.astype(_DTYPES[value["dtype"]])
