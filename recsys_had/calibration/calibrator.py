"""Calibrator: one map for all rows, and further ones for the rows of some segments."""

from typing import Annotated, Literal, Self

import numpy as np
import pydantic
from numpy.typing import NDArray

from recsys_had.calibration.maps import Floats, Map, Part
from recsys_had.errors import CheckpointError

# Of each row: the id of its value in the field that cuts the rows into segments.
Segments = NDArray[np.signedinteger]


class Calibrator(Part):
    """What was fitted on a run's validation rows: corrected logits in, probabilities out.

    Args:
        version: of this layout of numbers.
        whole: the map of all rows that have none of their own.
        field: the card's field whose values have maps of their own, or None.
        segments: the map of each value, by its id in the encoder of the run.
        fitted_on: what it was fitted on, in words and numbers, for whoever reads the file.

    >>> from recsys_had.calibration.maps import TemperatureMap
    >>> one, other = TemperatureMap(temperature=1.0), TemperatureMap(temperature=4.0)
    >>> calibrator = Calibrator(whole=one, field="site", segments={7: other})
    >>> calibrator(np.array([0.0, 1e9]), np.array([3, 7])).tolist()
    [0.5, 1.0]
    """

    version: Literal[1] = 1
    whole: Map
    field: str | None = None
    segments: Annotated[dict[int, Map], pydantic.Field(strict=False, default_factory=dict)]
    fitted_on: Annotated[dict[str, str | int | float], pydantic.Field(default_factory=dict)]

    @pydantic.model_validator(mode="after")
    def _segments_have_a_field(self) -> Self:
        if self.field is None and self.segments:
            raise ValueError("segments need the field whose values they are.")
        return self

    def __call__(self, logits: Floats, segments: Segments | None = None) -> Floats:
        """Probabilities of corrected logits.

        Args:
            logits: ``(B,)`` float64.
            segments: ``(B,)``, each row's id in ``field``; not looked at where there is none.

        Raises:
            ValueError: there is a field, and no segments are given.
        """
        found = self.whole(logits)
        if self.field is None:
            return found
        if segments is None:
            raise ValueError(
                f"Calibrator: segments must be given where it is fitted by {self.field}. "
                "Pass the row's ids of that field."
            )
        for segment in np.unique(segments).tolist():
            if segment in self.segments:
                rows = np.flatnonzero(segments == segment)
                found[rows] = self.segments[segment](logits[rows])
        return found

    def to_text(self) -> str:
        """The calibrator as JSON; read back, it is the same to the bit."""
        return self.model_dump_json(indent=2) + "\n"


def parse_calibrator(text: str, *, place: str) -> Calibrator:
    """Reads what :meth:`Calibrator.to_text` wrote.

    Args:
        text: JSON.
        place: where it stands, for the message.

    Raises:
        CheckpointError: one line per thing that is wrong.
    """
    try:
        return Calibrator.model_validate_json(text)
    except pydantic.ValidationError as cause:
        raise CheckpointError(
            [
                f"{place}: {'.'.join(str(part) for part in error['loc']) or 'the calibrator'}: "
                f"is not usable: {error['msg'].rstrip('.')}. Fit it again with `recsys-had "
                "calibrate`."
                for error in cause.errors()
            ]
        ) from cause
